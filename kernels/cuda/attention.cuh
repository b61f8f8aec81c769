/* Attention over the cache: what its two kernels share, and the launches that the op and the decode step use.
   Decode (one row a sequence) cuts the visible keys into splits, one block each, of which the last joins all
   in a fixed order; prefill is one online-softmax kernel on tensor cores. */
#pragma once

#include "kernels/cuda/cuda.cuh"

#include <cuda_bf16.h>

/* The decode kernel holds a head in a warp, and the weights of all splits in shared memory. */
enum {
    ATTENTION_MAX_HEAD_DIM = 256,
    ATTENTION_BLOCK_HEADS = 8, /* query heads that a block takes together, at most */
    ATTENTION_ALONE_KEYS =
        256, /* up to so many keys one block a head is faster than splits that are joined */
    ATTENTION_SPLIT_KEYS = 128, /* the shortest split: a tile for each of a block's warps */
    ATTENTION_SPLIT_STEP = 16,
    ATTENTION_MAX_SPLITS = 64,
    ATTENTION_MAX_VISIBLE = 1 << 20,
    ATTENTION_MAX_GRID = 65535 / ATTENTION_BLOCK_HEADS,
};

/* Query heads that a block is made for, of `group` that share a key head. */
__host__ __device__ constexpr int qb_attention_block_heads(int group) {
    return group <= 2 ? group : group <= 4 ? 4 : ATTENTION_BLOCK_HEADS;
}
/* Blocks that share a multiprocessor: what the sums of so many heads leave of the registers. */
__host__ __device__ constexpr int qb_attention_resident(int block_heads) {
    return block_heads <= 4 ? 2 : 1;
}

/* How `visible` keys are cut into at most `most` splits of even length: the same for a token whether it is
   computed alone or by a captured step that serves many positions. */
struct attention_split {
    int length, live; /* keys of each but the last; splits */
};
__host__ __device__ __forceinline__ attention_split qb_attention_split(int visible, int most) {
    const int by_keys =
        visible <= ATTENTION_ALONE_KEYS ? 1 : (visible + ATTENTION_SPLIT_KEYS - 1) / ATTENTION_SPLIT_KEYS;
    const int n = by_keys < most ? by_keys : most;
    if (n == 1) return {visible, 1};
    const int even = (visible + n - 1) / n,
              length = (even + ATTENTION_SPLIT_STEP - 1) / ATTENTION_SPLIT_STEP * ATTENTION_SPLIT_STEP;
    return {length, (visible + length - 1) / length};
}

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
    int32_t most_splits, n_splits; /* that keys are cut into; that the grid holds, no fewer than are live */
    float *partial;       /* [n_seq][n_heads][n_splits][value_dim]: values weighted by 2^(score - largest) */
    float2 *partial_sums; /* [n_seq][n_heads][n_splits]: largest score, sum of the weights */
    uint32_t *arrived;    /* [n_seq][grid.y]: splits that have finished; 0 between launches */
    attention_append append;
    bool dependent; /* launched while the kernel before still runs (launch.cuh) */
};

/* Splits and memory of a launch that serves all positions below `bound`, the least bound at or above
   visible. */
struct attention_plan {
    int64_t bound;
    int32_t most_splits, n_splits;
    int64_t partial_floats, partial_bytes; /* 0 when one block sees all keys and writes the result itself */
};
int64_t qb_attention_bound(int64_t visible);
attention_plan qb_attention_plan(int64_t visible, int64_t n_seq, int64_t n_heads, int64_t n_kv_heads,
                                 int64_t value_dim, int multiprocessors);
void qb_attention_cut(attention_args *a, const attention_plan &p, void *partial, uint32_t *arrived);
/* The device's counters for attention_args.arrived, made when first asked for. Not while its stream is
   captured. */
qb_status qb_attention_arrived(cuda_device *d, uint32_t **out) QB_NODISCARD;

/* QB_OK when the kernels take these shapes. */
qb_status qb_attention_check(const qb_kv *kv, const qb_attend_attr *attr, int64_t n_seq, int64_t first,
                             int64_t n_tok) QB_NODISCARD;
/* What follows from a cache, its layer and the step; the rest is zero. */
attention_args qb_attention_args(const qb_kv *kv, int64_t layer, const qb_attend_attr *attr,
                                 const float *slopes, const float *sinks);

/* Queue the kernels. The caller has checked the shapes. */
cudaError_t qb_attention_decode(const attention_args &a, cudaStream_t stream);
cudaError_t qb_attention_prefill(const cuda_device *d, const attention_args &a);
