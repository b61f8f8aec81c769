/* Attention over the cache: what its two kernels share, and the launches that the op and the decode step use.
   Decode (one row a sequence) cuts the visible keys into splits, one block each, and joins the splits in a
   fixed order; prefill is one online-softmax kernel on tensor cores. */
#pragma once

#include "kernels/cuda/cuda.cuh"

#include <cuda_bf16.h>

/* The decode kernels hold a head in a warp, a split's scores and all splits' weights in shared memory. */
enum {
    ATTENTION_MAX_HEAD_DIM = 256,
    ATTENTION_BLOCK_HEADS = 8, /* query heads that a block takes together */
    ATTENTION_MAX_SPLIT = 512,
    ATTENTION_MAX_SPLITS = 2048,
    ATTENTION_MAX_VISIBLE = ATTENTION_MAX_SPLIT * ATTENTION_MAX_SPLITS,
    ATTENTION_MAX_GRID = 65535 / ATTENTION_BLOCK_HEADS,
    ATTENTION_FIRST_BOUND = 256,
};

/* The decode step's share: q, k and v come as their products left them; the kernel adds the biases, turns q
   and k to their position and stores k and v in the cache before it reads them. k NULL: the op alone, q is
   ready. */
struct attention_append {
    const float *k, *v;      /* [n_seq][n_kv_heads * head_dim], v of value_dim */
    const float *bias[3];    /* of q, k, v; may be NULL */
    const float *rope_table; /* [position][rope_width / 2][2] */
    int32_t rope_width;      /* elements of a head that turn */
    qb_rope_kind rope;
};

/* What makes logits of scaled scores, beside the scale; all zero where a model has none of it. */
struct attention_shape {
    int64_t window, chunk; /* 0: none */
    float softcap, scale;  /* scale: the score's own, for the bfloat16 form of ALiBi */
    qb_alibi alibi;
    const float *slopes, *sinks; /* [n_heads], or NULL */

    /* Whether logits are more than scaled scores. */
    __device__ __forceinline__ bool bends() const { return softcap != 0.0f || alibi != QB_ALIBI_NONE; }
    /* The first key that a query at `position` sees. */
    __device__ __forceinline__ int first_key(int position) const {
        int64_t from = window > 0 && position >= window ? position - window + 1 : 0;
        if (chunk > 0 && position / chunk * chunk > from) from = position / chunk * chunk;
        return static_cast<int>(from);
    }
    /* A scaled score in the softmax's powers of two, as a logit in the same. */
    __device__ __forceinline__ float logit(float score, float slope, int key, int position) const {
        float s = score * 0.69314718f;
        if (alibi == QB_ALIBI_BF16) s += bf16(bf16(slope) * bf16(static_cast<float>(key))) * scale;
        if (softcap != 0.0f) s = softcap * tanhf(s / softcap);
        if (alibi == QB_ALIBI_PLAIN) s += slope * static_cast<float>(key - position);
        return s * 1.44269504f;
    }
    static __device__ __forceinline__ float bf16(float v) { return __bfloat162float(__float2bfloat16_rn(v)); }
};

/* One call, passed to the kernels by value. */
struct attention_args {
    const float *q;  /* [n_seq * n_tok][n_heads * head_dim] */
    float *out;      /* [n_seq * n_tok][n_heads * value_dim] */
    void *k, *v;     /* the layer's [seq][kv_head][capacity][head_dim], v [..][value_dim]; written only with
                        `append` */
    bool half_cache; /* float16, else float32 */
    const int32_t *dev_first; /* position of the first row in device memory, or NULL: `first` */
    int32_t first, n_tok, n_seq, n_heads, group, head_dim,
        value_dim; /* group: query heads that share a key head */
    int64_t capacity;
    float scale_log2; /* score scale times log2(e): the softmax works in powers of two */
    attention_shape shape;
    /* decode only */
    int32_t split, n_splits; /* keys a block; splits that the grid holds */
    float *partial;       /* [n_seq][n_heads][n_splits][value_dim]: values weighted by 2^(score - largest) */
    float2 *partial_sums; /* [n_seq][n_heads][n_splits]: largest score, sum of the weights */
    attention_append append;
    bool dependent; /* launched while the kernel before still runs (launch.cuh) */
};

/* How the keys 0 .. visible - 1 are cut. The length of a split follows from `bound`, the power of two at or
   above visible (and ATTENTION_FIRST_BOUND), so that it is the same for a token whether it is computed alone
   or by a captured step that serves all positions below the bound. */
struct attention_plan {
    int64_t bound;
    int32_t split, n_splits;
    int64_t partial_floats, partial_bytes; /* 0 when one block sees all keys and writes the result itself */
};
int64_t qb_attention_bound(int64_t visible);
attention_plan qb_attention_plan(int64_t visible, int64_t n_seq, int64_t n_heads, int64_t n_kv_heads,
                                 int64_t value_dim, int multiprocessors);
void qb_attention_cut(attention_args *a, const attention_plan &p, void *partial);

/* QB_OK when the kernels take these shapes. */
qb_status qb_attention_check(const qb_kv *kv, const qb_attend_attr *attr, int64_t n_seq, int64_t first,
                             int64_t n_tok) QB_NODISCARD;
/* What follows from a cache, its layer and the step; the rest is zero. */
attention_args qb_attention_args(const qb_kv *kv, int64_t layer, const qb_attend_attr *attr,
                                 const float *slopes, const float *sinks);

/* Queue the kernels. The caller has checked the shapes. */
cudaError_t qb_attention_decode(const attention_args &a, cudaStream_t stream);
cudaError_t qb_attention_prefill(const attention_args &a, cudaStream_t stream);
