/* The seam between the model and what computes: counted memory and about a dozen ops. `cpu` is the only row
   of kernels/backends.def today. Activations are float32 in the backend's memory; all pointers named dev_*
   below and every float* given to an op were allocated by the same device. Shapes: T tokens, D model width, H
   heads, Hkv, Dh, F ffn width, V vocabulary; row-major. Ops are deterministic: the same inputs give the same
   bits on every run and with every thread count. */
#pragma once

#include "base/status.h"
#include "base/threads.h"
#include "kernels/qweight.h"

typedef struct qb_backend qb_backend;
typedef struct qb_device { /* an opened backend; each backend embeds it first in its own struct */
    const qb_backend *backend;
    qb_threads *threads; /* host threads; owned by the device */
} qb_device;

typedef enum {
    QB_MEMORY_WEIGHTS,
    QB_MEMORY_KV,
    QB_MEMORY_ACTIVATIONS,
    QB_MEMORY_WORKSPACE,
    QB_MEMORY_COUNT
} qb_memory_kind;
typedef struct qb_memory {
    int64_t now_bytes[QB_MEMORY_COUNT], peak_bytes[QB_MEMORY_COUNT], total_peak_bytes;
} qb_memory;

/* A matrix ready for matmul, [rows, cols] = [out, in]. Dense CPU matrices are views into the checkpoint's
 * mapping. */
typedef struct qb_matrix {
    int64_t rows, cols;
    qb_dtype dtype;    /* dense element type (F32, F16, BF16) */
    const void *dense; /* NULL when packed */
    void *packed;      /* backend's own packed layout, owned by the matrix */
    int64_t bytes;     /* bytes one pass over the matrix reads: codes, scales, zeros, or the dense elements */
} qb_matrix;

typedef enum { QB_NORM_RMS, QB_NORM_LAYER } qb_norm_kind;
typedef enum {
    QB_ACTIVATION_SILU,
    QB_ACTIVATION_GELU,
    QB_ACTIVATION_GELU_TANH,
    QB_ACTIVATION_RELU
} qb_activation;
typedef enum { QB_ROPE_HALF, QB_ROPE_INTERLEAVED } qb_rope_kind; /* pairs (i, i + rot/2), or (2i, 2i + 1) */

/* Keys and values of n_seq sequences and n_layers layers: [layer][seq][kv_head][capacity][head_dim]. */
typedef struct qb_kv {
    qb_dtype dtype; /* F32 or F16 */
    int64_t n_layers, n_seq, capacity, n_kv_heads, head_dim;
    void *k, *v;
} qb_kv;

typedef struct qb_attention {
    const float *q;       /* [n_seq * n_tok, H * Dh], rope applied */
    float *out;           /* [n_seq * n_tok, H * Dh] */
    int64_t n_seq, n_tok; /* rows: sequence-major */
    int64_t first; /* position of each sequence's first row; keys 0 .. first + t are visible to row t */
    int64_t n_heads;
    const qb_kv *kv;
    int64_t layer;
    float scale; /* 1 / sqrt(Dh) */
} qb_attention;

typedef struct qb_ceilings { /* what the machine can do; speed rows quote their share of these */
    double read_bytes_per_s; /* streaming read with all threads, working set far beyond cache */
    double gemm_flop_per_s;  /* float32 GEMM (2 * m * n * k operations) with all threads */
} qb_ceilings;

struct qb_backend {
    const char *name, *summary;
    /* threads = 0: all cores. */
    qb_status (*open)(int threads, qb_device **out);
    void (*close)(qb_device *dev);

    qb_status (*alloc)(qb_device *dev, qb_memory_kind kind, int64_t bytes,
                       void *out_pointer);       /* 64-byte aligned */
    void (*free)(qb_device *dev, void *pointer); /* takes NULL */
    qb_status (*upload)(qb_device *dev, void *to, const void *from, int64_t bytes);
    qb_status (*download)(qb_device *dev, void *to, const void *from, int64_t bytes);
    qb_status (*copy)(qb_device *dev, void *to, const void *from,
                      int64_t bytes); /* within the device, no overlap */
    qb_status (*sync)(qb_device *dev);
    void (*memory)(const qb_device *dev, qb_memory *out);

    /* Makes `w` ready: dense F32/F16/BF16 stay views (the caller keeps the mapping alive), quantized weights
       are packed. The qb_weight may be freed afterwards. */
    qb_status (*matrix_create)(qb_device *dev, const qb_weight *w, qb_matrix *out);
    void (*matrix_free)(qb_device *dev, qb_matrix *m);

    /* y[T, rows] = x[T, cols] * W^T. Few rows read the packed codes directly; many dequantize panels into
     * GEMM. */
    qb_status (*matmul)(qb_device *dev, float *y, const float *x, int64_t T, const qb_matrix *w);
    /* H[n, n] += x[T, n]^T x[T, n]; only the lower triangle (row >= column) is written. */
    qb_status (*hessian)(qb_device *dev, float *h, const float *x, int64_t T, int64_t n);

    qb_status (*norm)(qb_device *dev, qb_norm_kind kind, float *y, const float *x, const float *weight,
                      const float *bias /* may be NULL */, int64_t T, int64_t D, float eps); /* y may be x */
    /* In place on x[n_seq * n_tok, heads * Dh]; the first `rot` elements of each head turn. table:
       [capacity][rot/2][2] (cos, sin). Row (s, t) stands at position first + t. */
    qb_status (*rope)(qb_device *dev, qb_rope_kind kind, float *x, const float *table, int64_t n_seq,
                      int64_t n_tok, int64_t first, int64_t heads, int64_t head_dim, int64_t rot);
    /* Stores k, v [n_seq * n_tok, Hkv * Dh] at positions first .. of the layer; n_seq may be below kv->n_seq.
     */
    qb_status (*kv_store)(qb_device *dev, const qb_kv *kv, int64_t layer, const float *k, const float *v,
                          int64_t n_seq, int64_t n_tok, int64_t first);
    qb_status (*attention)(qb_device *dev, const qb_attention *a);
    /* y[n] = act(gate[n]) * up[n]; up NULL: y = act(gate). y may be gate. */
    qb_status (*activate)(qb_device *dev, qb_activation kind, float *y, const float *gate, const float *up,
                          int64_t n);
    qb_status (*add)(qb_device *dev, float *x, const float *y, int64_t n); /* x += y */
    qb_status (*add_bias)(qb_device *dev, float *x, const float *bias, int64_t T,
                          int64_t n); /* x[t] += bias */
    /* x[T, D] = table[ids]; ids are host memory, checked against rows by the caller. */
    qb_status (*embed)(qb_device *dev, float *x, const qb_matrix *table, const int32_t *ids, int64_t T);
    /* out[t] = -log softmax(logits[t])[targets[t]] in float64; a target < 0 gives 0. Host targets and out.
       Returns QB_ERR_NUMERIC when a logit is NaN or infinite. */
    qb_status (*nll)(qb_device *dev, const float *logits, int64_t T, int64_t V, const int32_t *targets,
                     double *out);
    /* Host out: index of the largest logit of each row, the first of equals. QB_ERR_NUMERIC as nll. */
    qb_status (*argmax)(qb_device *dev, const float *logits, int64_t T, int64_t V, int32_t *out);
    /* Host out: false when any of x[n] is NaN or infinite. */
    qb_status (*all_finite)(qb_device *dev, const float *x, int64_t n, bool *out);

    /* Measured once per device and kept; takes under two seconds. */
    qb_status (*ceilings)(qb_device *dev, qb_ceilings *out);
    /* {"threads":..,"simd":"avx512","blas":"SkylakeX",..} for `bench doctor` and the result's context. */
    struct cJSON *(*describe)(qb_device *dev);
};

/* NULL when there is no such backend; `index` walks the registry until NULL. */
const qb_backend *qb_backend_find(const char *name);
const qb_backend *qb_backend_at(size_t index);
