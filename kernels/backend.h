/* The seam between the model and what computes: counted memory and about a dozen ops, one row of
   kernels/backends.def a backend. Activations are float32 in the backend's memory; all pointers named dev_*
   below and every float* given to an op were allocated by the same device and are never touched by the host
   but through upload and download. Ops are queued in order; what returns values to the host waits for them.
   Slots marked optional may be NULL: the plain ops then serve. Shapes: T tokens, D model width, H heads, Hkv,
   Dh, F ffn width, V vocabulary; row-major. Ops are deterministic: the same inputs give the same bits on
   every run and with every thread count. */
#pragma once

#include "base/ceilings.h"
#include "base/status.h"
#include "base/threads.h"
#include "kernels/quantize.h"
#include "kernels/qweight.h"
#include "kernels/step.h"

typedef struct qb_backend qb_backend;
typedef struct qb_device { /* an opened backend; each backend embeds it first in its own struct */
    const qb_backend *backend;
    qb_threads *threads; /* host threads; owned by the device */
} qb_device;

typedef struct qb_device_options {
    int threads;          /* of the host; 0: all cores */
    qb_numa numa;         /* where they run; QB_NUMA_AUTO means off where they do not compute */
    int index;            /* which device of the backend; the cpu has only 0 */
    int64_t memory_bytes; /* use at most this much device memory; 0: what there is */
} qb_device_options;

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

/* What products with quantized weights take activations as. Float32 is the definition. I16 and I8: whole
   numbers, one scale a token and group of columns, 15 and 7 bits of the largest one there; weights that have
   no such product, and dense ones, keep to float32 (qb_matrix.integer). */
typedef enum {
    QB_ACTIVATIONS_F32,
    QB_ACTIVATIONS_I16,
    QB_ACTIVATIONS_I8,
    QB_ACTIVATIONS_FASTEST, /* asked for, never in force: the fastest that keeps a perplexity within 1e-5 of
                               float32's, which for many tokens may be float32 (qb_matrix.float32_tokens) */
} qb_activations;
const char *qb_activations_name(qb_activations a); /* "f32", "i16", "i8", "fastest" */

/* Where a matrix lives. QB_PLACE_HOST: in host memory that the device reads over its bus while it computes,
   for models larger than the device; the cpu knows no difference. */
typedef enum { QB_PLACE_DEVICE, QB_PLACE_HOST } qb_place;

/* A matrix ready for matmul, [rows, cols] = [out, in]. Dense CPU matrices are views into the checkpoint's
   mapping until matrix_settle copies them. */
typedef struct qb_matrix {
    int64_t rows, cols;
    qb_dtype dtype;    /* dense element type (F32, F16, BF16) */
    const void *dense; /* NULL when packed */
    bool copied;       /* dense is the matrix's own: matrix_settle */
    void *packed;      /* backend's own packed layout, owned by the matrix */
    unsigned integer;  /* products in whole numbers: bit a with activations a (qb_activations) */
    /* From so many tokens on the device, asked for the fastest, takes float32 all the same; 0: never. */
    int64_t float32_tokens;
    /* From so many on float32 products of a quantized matrix go as those of dense ones; 0: never. */
    int64_t dense_tokens;
    int64_t bytes; /* bytes one pass over the matrix reads: codes, scales, zeros, or the dense elements */
} qb_matrix;

/* Whether the fastest product with so many tokens takes float32, whatever it takes for fewer. */
static inline bool qb_matrix_float32_is_faster(const qb_matrix *m, int64_t tokens) {
    return m->float32_tokens && tokens >= m->float32_tokens;
}

/* Keys and values of n_seq sequences and n_layers layers: [layer][seq][kv_head][capacity][head_dim], values
   [..][value_dim]. */
typedef struct qb_kv {
    qb_dtype dtype; /* F32 or F16 */
    int64_t n_layers, n_seq, capacity, n_kv_heads, head_dim, value_dim;
    void *k, *v;
    int64_t
        state_floats; /* of a layer and sequence, for the steps that carry something from token to token */
    float *state;     /* [layer][seq][state_floats]; NULL when there are none */
} qb_kv;

/* y[T, w->rows] = x[T, w->cols] * W^T. */
typedef struct qb_product {
    const qb_matrix *w;
    const float *x;
    float *y;
    int64_t T;
} qb_product;
enum { QB_PRODUCTS_MAX = 16 }; /* that are worth handing over at once */

typedef struct qb_attention {
    const float *q;       /* [n_seq * n_tok, H * Dh], rope applied */
    float *out;           /* [n_seq * n_tok, H * value_dim] */
    int64_t n_seq, n_tok; /* rows: sequence-major */
    int64_t first; /* position of each sequence's first row; keys 0 .. first + t are visible to row t */
    int64_t layer;
    const qb_kv *kv;
    const qb_attend_attr *attr;
    const float *slopes, *sinks; /* [H] on the device, or NULL */
} qb_attention;

/* Weights of a list of steps on the device: what the steps' module, vector and vector2 index. */
typedef struct qb_step_weights {
    const qb_step *steps;
    int64_t n_steps, n_modules, n_vectors;
    qb_matrix *matrices; /* [n_modules] */
    float **biases;      /* [n_modules], NULL where a linear has none */
    float **vectors;     /* [n_vectors], device float32 */
} qb_step_weights;

/* All that computing a whole token takes, so that a backend can fuse across steps and capture the lot once.
   The structure and all it points to outlive the device's use of it; `id` changes whenever any of it does. */
typedef struct qb_decoder {
    uint64_t id;
    int64_t n_layers, hidden, vocab;
    int64_t n_slots, slot_width[QB_SLOTS_MAX];
    int64_t top_k, n_experts; /* of routed slots; 0: none */
    bool slot_routed[QB_SLOTS_MAX];
    int8_t embed_slot, logits_slot;
    const qb_matrix *embed;          /* [V, width of embed_slot] */
    const float *const *rope_tables; /* each [rope_capacity][width / 2][2] */
    int64_t n_rope_tables, rope_capacity;
    const qb_step_weights *enter;         /* behind the embedding */
    const qb_step_weights *const *blocks; /* [n_layers] */
    const qb_step_weights *leave;         /* up to the logits */
} qb_decoder;

/* What the device's sensors say now; NaN and -1 where it has none. */
typedef struct qb_monitor {
    double energy_j;     /* since some fixed moment: differences count */
    bool energy_sampled; /* integrated from samples of the power, for want of a counter */
    double power_w, power_limit_w, temperature_c, sm_clock_hz, memory_clock_hz;
    int throttled; /* 1: by the reasons below, 0: not, -1: not known */
    char throttle_reasons[96];
    int foreign_processes; /* other processes that compute on the device */
    int64_t process_bytes; /* device memory of this process as the driver counts it */
} qb_monitor;

struct qb_backend {
    const char *name, *summary;
    /* Rows of activations that one matmul wants, where there are many, to spread its dequantization over
       them; 0: no wish. */
    int64_t batch_rows;
    bool separate_memory; /* what alloc gives is not the host's memory */
    /* Whether the plain ops compute a step with its attributes; QB_ERR_UNSUPPORTED names what they lack.
       Asked for every step when a model is loaded: what is not listed is refused, never passed over. */
    qb_status (*check_step)(const qb_step *step);
    qb_status (*open)(const qb_device_options *options, qb_device **out);
    void (*close)(qb_device *dev);

    qb_status (*alloc)(qb_device *dev, qb_memory_kind kind, int64_t bytes,
                       void *out_pointer);       /* 64-byte aligned */
    void (*free)(qb_device *dev, void *pointer); /* takes NULL */
    qb_status (*upload)(qb_device *dev, void *to, const void *from, int64_t bytes);
    /* The same into memory that no op has used since it was allocated, which may go beside what is queued;
       ops queued later find it there. */
    qb_status (*upload_new)(qb_device *dev, void *to, const void *from, int64_t bytes);
    qb_status (*download)(qb_device *dev, void *to, const void *from, int64_t bytes);
    qb_status (*copy)(qb_device *dev, void *to, const void *from,
                      int64_t bytes);                            /* within the device, no overlap */
    qb_status (*clear)(qb_device *dev, void *to, int64_t bytes); /* to zero */
    qb_status (*sync)(qb_device *dev);
    void (*memory)(const qb_device *dev, qb_memory *out);
    /* What alloc could still give now, less where limited; -1 with the error set when not known. */
    int64_t (*available_bytes)(const qb_device *dev);
    /* Time that the ops between the two calls took on the device; timer_stop waits for them. */
    qb_status (*timer_start)(qb_device *dev);
    qb_status (*timer_stop)(qb_device *dev, double *seconds);

    /* Makes `w` ready: dense F32/F16/BF16 stay views (the caller keeps the mapping alive), quantized weights
       are packed. The qb_weight may be freed afterwards. */
    qb_status (*matrix_create)(qb_device *dev, const qb_weight *w, qb_place place, qb_matrix *out);
    void (*matrix_free)(qb_device *dev, qb_matrix *m);

    /* y[T, rows] = x[T, cols] * W^T. Few rows read the packed codes directly; many dequantize panels into
     * GEMM. */
    qb_status (*matmul)(qb_device *dev, float *y, const float *x, int64_t T, const qb_matrix *w);
    /* H[n, n] += x[T, n]^T x[T, n]; only the lower triangle (row >= column) is written. */
    qb_status (*hessian)(qb_device *dev, float *h, const float *x, int64_t T, int64_t n);

    /* y[T, n], x[T, n] in groups of attr->dim; y may be x. weight and bias NULL: none. */
    qb_status (*norm)(qb_device *dev, const qb_norm_attr *attr, float *y, const float *x, const float *weight,
                      const float *bias, int64_t T, int64_t n);
    /* In place on x[n_seq * n_tok, heads * head_dim]. table: [capacity][width/2][2] (cos, sin). Row (s, t)
       stands at position first + t. */
    qb_status (*rope)(qb_device *dev, const qb_rope_attr *attr, float *x, const float *table, int64_t n_seq,
                      int64_t n_tok, int64_t first);
    /* Stores k [n_seq * n_tok, Hkv * head_dim] and v [.., Hkv * value_dim] at positions first .. of the
       layer; n_seq may be below kv->n_seq. */
    qb_status (*kv_store)(qb_device *dev, const qb_kv *kv, int64_t layer, const float *k, const float *v,
                          int64_t n_seq, int64_t n_tok, int64_t first);
    qb_status (*attention)(qb_device *dev, const qb_attention *a);
    /* y[T, n]; gate[T, n], or [T, 2 n] where it holds both; up NULL but for QB_GLU_SEPARATE. y may be gate or
       up, unless gate holds both. */
    qb_status (*activate)(qb_device *dev, const qb_activate_attr *attr, float *y, const float *gate,
                          const float *up, int64_t T, int64_t n);
    qb_status (*add)(qb_device *dev, float *x, const float *y, int64_t n); /* x += y */
    qb_status (*add_bias)(qb_device *dev, float *x, const float *bias, int64_t T,
                          int64_t n); /* x[t] += bias */
    /* QB_STEP_SCALE, QB_STEP_CLAMP or QB_STEP_SOFTCAP in place on x[n]. */
    qb_status (*map)(qb_device *dev, qb_step_kind kind, float value, float *x, int64_t n);
    /* x[T, n] *= sigmoid(gate[T]). */
    qb_status (*gate_rows)(qb_device *dev, float *x, const float *gate, int64_t T, int64_t n);
    /* x[n_seq * n_tok, n] times QB_STEP_TEMPERATURE's factor of each row's position. */
    qb_status (*temperature)(qb_device *dev, const qb_temperature_attr *attr, float *x, int64_t n_seq,
                             int64_t n_tok, int64_t first, int64_t n);
    qb_status (*split)(qb_device *dev, const qb_split_attr *attr, const float *x, float *const out[3],
                       int64_t T);
    qb_status (*join)(qb_device *dev, const qb_join_attr *attr, float *y, const float *x, const float *shared,
                      int64_t T);
    /* Router logits [T, experts] of the device to a routing in host memory: qb_route's. bias [experts], or
       NULL. */
    qb_status (*route)(qb_device *dev, const qb_route_attr *attr, const float *logits, const float *bias,
                       int64_t T, qb_routing *out);
    /* y[r->rows, n] = x[token of the row], times its weight if `weigh`. */
    qb_status (*gather)(qb_device *dev, const qb_routing *r, bool weigh, float *y, const float *x, int64_t n);
    /* y[T, n] = sum over a token's rows of x[r->rows, n] in expert order, each times its weight if `weigh`.
     */
    qb_status (*scatter)(qb_device *dev, const qb_routing *r, bool weigh, float *y, const float *x, int64_t T,
                         int64_t n);
    /* x[T, D] = table[ids]; ids are host memory, checked against rows by the caller. QB_ERR_UNSUPPORTED, also
       for T = 0, where the table is packed and the device looks up dense rows alone. */
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
    /* {"threads":..,"simd":"avx512","integer":"avx512-vnni","blas":"SkylakeX",..} for `bench doctor` and the
     * result's context. */
    struct cJSON *(*describe)(qb_device *dev);

    /* ---- optional slots: NULL means that the plain ops serve ---- */

    /* One token of each of n_seq sequences at position `first` through the whole model, keys and
       values appended to kv: logits[n_seq, V] on the device. ids are host memory, checked by the caller.
       QB_ERR_UNSUPPORTED (nothing done) when this model or n_seq has no fused step: the plain ops serve. */
    qb_status (*decode)(qb_device *dev, const qb_decoder *d, const qb_kv *kv, const int32_t *ids,
                        int64_t n_seq, int64_t first, float *logits);
    /* The same for n tokens after each other, each the argmax of the step before: chosen[n][n_seq] in host
       memory, the host looking up only now and then. *n_chosen: rows of it that are there, fewer than n only
       where the status is QB_ERR_NUMERIC (as argmax) or another error. */
    qb_status (*decode_greedy)(qb_device *dev, const qb_decoder *d, const qb_kv *kv, const int32_t *ids,
                               int64_t n_seq, int64_t first, int64_t n, float *logits, int32_t *chosen,
                               int64_t *n_chosen);
    /* matmul of the x that the last matmul had: neither x nor anything it points to has changed since, so
       that what was made of it then may serve. */
    qb_status (*matmul_again)(qb_device *dev, float *y, const float *x, int64_t T, const qb_matrix *w);
    /* Products of which none reads what another writes, any number: the same bits as matmul one by one. Those
       of one x make of it only once what they can share. */
    qb_status (*matmul_all)(qb_device *dev, const qb_product *products, int64_t n);
    /* Sensors of the device; does not wait for queued ops. QB_ERR_UNSUPPORTED where there are none to read.
     */
    qb_status (*monitor)(qb_device *dev, qb_monitor *out);
    /* Rounds a weight to nearest: affine codes by `rule`, codebook codes (rule NULL) by `bounds`. The same
       bits as quant/'s own loops. */
    qb_status (*round)(qb_device *dev, const qb_grid_rule *rule, const qb_code_bounds *bounds,
                       qb_code_job *job);
    /* GPTQ with the whole arithmetic on the device; codes as quant/gptq.c's but for float ties.
       QB_ERR_UNSUPPORTED (nothing done) for block_columns that no kernel serves. */
    qb_status (*gptq)(qb_device *dev, qb_gptq_problem *problem);
    /* From the next product on. NULL: float32 alone. */
    qb_status (*set_activations)(qb_device *dev, qb_activations wanted, qb_activations *got);
    /* For a matrix that many tokens will read one by one: a dense one that is a view moves to where the
       device's threads read it fastest, if it is not there; *copied then, and the weight that it was made of
       may be freed. NULL: matrices are there. */
    qb_status (*matrix_settle)(qb_device *dev, qb_matrix *m, bool *copied);
    /* The same for the keys and values of a cache that was just allocated and holds nothing yet. */
    void (*kv_settle)(qb_device *dev, const qb_kv *kv);
    /* Of these four no plain ops serve: check_step refuses the steps where they are NULL. */
    /* out[T, n0 + n1 + n2] = rows side by side; x[2] NULL: two. */
    qb_status (*concat)(qb_device *dev, float *out, const float *const x[3], const int64_t n[3], int64_t T);
    /* In place on x[n_seq * n_tok, width]; what is kept lies in kv->state of the layer. */
    qb_status (*conv)(qb_device *dev, const qb_conv_attr *attr, float *x, const float *weight,
                      const qb_kv *kv, int64_t layer, int64_t n_seq, int64_t n_tok, int64_t first);
    /* out[.., value_heads * value_dim] of qkv [.., 2 key_heads * key_dim + value_heads * value_dim], beta and
       decay [.., value_heads]. */
    qb_status (*delta)(qb_device *dev, const qb_delta_attr *attr, float *out, const float *qkv,
                       const float *beta, const float *decay, const float *a_log, const float *dt_bias,
                       const qb_kv *kv, int64_t layer, int64_t n_seq, int64_t n_tok, int64_t first);
    /* y[n] by numbers [4], QB_STEP_XIELU's; y may be x. With ap = softplus(alpha_p), an = beta +
       softplus(alpha_n): ap x^2 + beta x above 0, an (e^min(x, eps) - 1 - x) + beta x elsewhere (Huang and
       Schlag 2024, arXiv:2411.13010). */
    qb_status (*xielu)(qb_device *dev, float *y, const float *x, const float *numbers, int64_t n);
};

/* NULL when there is no such backend; `index` walks the registry until NULL. */
const qb_backend *qb_backend_find(const char *name);
const qb_backend *qb_backend_at(size_t index);
