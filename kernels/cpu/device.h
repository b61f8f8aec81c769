/* An opened CPU device, shared by the files that implement its vtable. */
#pragma once

#include "base/huge.h"
#include "kernels/backend.h"
#include "kernels/cpu/integer.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/simd.h"

typedef struct cpu_device {
    qb_device base; /* first: the vtable hands out its address */
    const qb_simd *simd;
    const qb_integer *integer;
    qb_numa numa;
    qb_places places;
    qb_activations activations;
    bool fastest; /* they were asked for as the fastest: float32_tokens of matrices count */
    qb_memory memory;
    qb_huge weights;      /* what is streamed once a token costs little address translation there */
    int64_t memory_limit; /* 0: none */
    int64_t timer_ns;
    void *workspace; /* grows to the largest need seen; ops use it one at a time */
    int64_t workspace_bytes;
    qb_ceilings ceilings;
    double
        node_read[QB_NODES_MAX]; /* bytes a second of each of `places` from its own memory; 0: not measured */
    bool ceilings_known;
    bool settles;      /* dense weights gain where they are copied: matrix_settle */
    bool told_of_room; /* that there was not enough for a copy of weights */
} cpu_device;

static inline cpu_device *cpu_of(qb_device *dev) {
    return (cpu_device *)dev;
}

/* The grain of a loop over n items that each stream unit_bytes: all of them in one, on the caller, when
   together they take less time than waking a worker and waiting for it (some 10 us; far more on a busy
   machine). */
enum { QB_ALONE_BYTES = 128 * 1024 };
static inline int64_t qb_cpu_grain(int64_t n, int64_t unit_bytes, int64_t grain) {
    return n * unit_bytes < QB_ALONE_BYTES ? n : grain;
}

enum { ELEMENTS_A_TASK = 8192 };
/* Rows of n elements such that a task holds about ELEMENTS_A_TASK. */
static inline int64_t qb_cpu_rows_a_task(int64_t n) {
    return n >= ELEMENTS_A_TASK || n < 1 ? 1 : ELEMENTS_A_TASK / n;
}

/* At least `bytes` of scratch, 64-byte aligned, valid until the next call. */
qb_status qb_cpu_workspace(cpu_device *d, int64_t bytes, void *out_pointer) QB_NODISCARD;
qb_status qb_cpu_alloc(qb_device *dev, qb_memory_kind kind, int64_t bytes, void *out_pointer) QB_NODISCARD;
void qb_cpu_free(qb_device *dev, void *pointer);
/* Counts memory that is not ours but is read (mapped weights); negative gives back. */
void qb_cpu_count(cpu_device *d, qb_memory_kind kind, int64_t bytes);

/* Rows of a matrix that a task of a product is, of few tokens, whatever the form; some forms take more for
   many tokens. */
enum { QB_ROWS_A_TASK = 64 };

/* nodes.c */
/* Where each node's share of an array of `bytes` begins that is `rows` rows of equal size, by the nodes that
   products of few tokens read them on: at[qb_threads_nodes] is `bytes`. */
void qb_cpu_row_shares(const qb_threads *threads, int64_t rows, int64_t bytes, int64_t at[QB_NODES_MAX + 1]);
/* Has each node of several take the pages of memory[at[node] .. at[node + 1]), by where a page begins, at[0]
   being 0; what was in them is lost. Pages of which a part is others' stay as they are. */
void qb_cpu_place(qb_threads *threads, void *memory, const int64_t *at);
/* Takes huge pages (qb_ask_huge_pages) back where a node's share of each `share_bytes` is too small for such
   pages to be its own. */
void qb_cpu_fit_pages(const qb_threads *threads, void *memory, int64_t bytes, int64_t share_bytes);

/* matmul.c */
qb_status qb_cpu_matrix_create(qb_device *dev, const qb_weight *w, qb_place place, qb_matrix *out);
void qb_cpu_matrix_free(qb_device *dev, qb_matrix *m);
qb_status qb_cpu_matrix_settle(qb_device *dev, qb_matrix *m, bool *copied);
/* gram_tiles.c, where there are tiles of bfloat16: as qb_cpu_hessian. */
qb_status qb_hessian_by_tiles(cpu_device *d, float *h, const float *x, int64_t T, int64_t n);
/* products.c */
qb_status qb_cpu_matmul(qb_device *dev, float *y, const float *x, int64_t T, const qb_matrix *w);
qb_status qb_cpu_matmul_all(qb_device *dev, const qb_product *products, int64_t n);
/* integer.c */
qb_status qb_cpu_set_activations(qb_device *dev, qb_activations wanted, qb_activations *got);
/* attention.c */
qb_status qb_cpu_attention(qb_device *dev, const qb_attention *a);
void qb_cpu_kv_settle(qb_device *dev, const qb_kv *kv);
/* ops.c */
qb_status qb_cpu_hessian(qb_device *dev, float *h, const float *x, int64_t T, int64_t n);
qb_status qb_cpu_norm(qb_device *dev, const qb_norm_attr *attr, float *y, const float *x, const float *weight,
                      const float *bias, int64_t T, int64_t n);
qb_status qb_cpu_rope(qb_device *dev, const qb_rope_attr *attr, float *x, const float *table, int64_t n_seq,
                      int64_t n_tok, int64_t first);
qb_status qb_cpu_kv_store(qb_device *dev, const qb_kv *kv, int64_t layer, const float *k, const float *v,
                          int64_t n_seq, int64_t n_tok, int64_t first);
qb_status qb_cpu_embed(qb_device *dev, float *x, const qb_matrix *table, const int32_t *ids, int64_t T);
/* elementwise.c */
qb_status qb_cpu_activate(qb_device *dev, const qb_activate_attr *attr, float *y, const float *gate,
                          const float *up, int64_t T, int64_t n);
qb_status qb_cpu_add(qb_device *dev, float *x, const float *y, int64_t n);
qb_status qb_cpu_add_bias(qb_device *dev, float *x, const float *bias, int64_t T, int64_t n);
qb_status qb_cpu_map(qb_device *dev, qb_step_kind kind, float value, float *x, int64_t n);
qb_status qb_cpu_xielu(qb_device *dev, float *y, const float *x, const float *numbers, int64_t n);
qb_status qb_cpu_gate_rows(qb_device *dev, float *x, const float *gate, int64_t T, int64_t n);
qb_status qb_cpu_temperature(qb_device *dev, const qb_temperature_attr *attr, float *x, int64_t n_seq,
                             int64_t n_tok, int64_t first, int64_t n);
/* rows.c */
qb_status qb_cpu_split(qb_device *dev, const qb_split_attr *attr, const float *x, float *const out[3],
                       int64_t T);
qb_status qb_cpu_join(qb_device *dev, const qb_join_attr *attr, float *y, const float *x, const float *shared,
                      int64_t T);
qb_status qb_cpu_route(qb_device *dev, const qb_route_attr *attr, const float *logits, const float *bias,
                       int64_t T, qb_routing *out);
qb_status qb_cpu_gather(qb_device *dev, const qb_routing *r, bool weigh, float *y, const float *x, int64_t n);
qb_status qb_cpu_scatter(qb_device *dev, const qb_routing *r, bool weigh, float *y, const float *x, int64_t T,
                         int64_t n);
/* recurrent.c */
qb_status qb_cpu_concat(qb_device *dev, float *out, const float *const x[3], const int64_t n[3], int64_t T);
qb_status qb_cpu_conv(qb_device *dev, const qb_conv_attr *attr, float *x, const float *weight,
                      const qb_kv *kv, int64_t layer, int64_t n_seq, int64_t n_tok, int64_t first);
qb_status qb_cpu_delta(qb_device *dev, const qb_delta_attr *attr, float *out, const float *qkv,
                       const float *beta, const float *decay, const float *a_log, const float *dt_bias,
                       const qb_kv *kv, int64_t layer, int64_t n_seq, int64_t n_tok, int64_t first);
/* logits.c */
qb_status qb_cpu_nll(qb_device *dev, const float *logits, int64_t T, int64_t V, const int32_t *targets,
                     double *out);
qb_status qb_cpu_argmax(qb_device *dev, const float *logits, int64_t T, int64_t V, int32_t *out);
qb_status qb_cpu_all_finite(qb_device *dev, const float *x, int64_t n, bool *out);
/* ceilings.c */
qb_status qb_cpu_ceilings(qb_device *dev, qb_ceilings *out);
struct cJSON *qb_cpu_describe(qb_device *dev);

/* Has OpenBLAS take a buffer for each of so many threads now, once: later, where the system refuses one, it
   would try again for ever. QB_ERR_MEMORY when there is no room for them. */
qb_status qb_blas_take_buffers(int threads) QB_NODISCARD;
