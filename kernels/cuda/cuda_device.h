/* An opened CUDA device, shared by the files that implement its vtable. Plain C: the runtime's handles appear
   as the incomplete structures they point to, so that device.c needs no CUDA header. A .cu includes this
   through cuda.cuh. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/backend.h"

/* Parts with state of their own, which lives as long as the device. */
typedef enum {
    QB_CUDA_PART_MATMUL,
    QB_CUDA_PART_ATTENTION,
    QB_CUDA_PART_DECODE,
    QB_CUDA_PART_GPTQ,
    QB_CUDA_PART_TRANSFER,
    QB_CUDA_PART_MONITOR,
    QB_CUDA_PART_COUNT
} qb_cuda_part;

enum { QB_CUDA_IDLE_MOST = 64 };
typedef struct cuda_device cuda_device;
typedef struct qb_cuda_allocation {
    void *pointer;
    int64_t bytes;
    qb_memory_kind kind;
    bool pinned; /* host memory that the device reads over its bus */
} qb_cuda_allocation;

struct cuda_device {
    qb_device base; /* first: the vtable hands out its address */

    int index;
    char name[128];
    char pci_bus_id[16]; /* "0000:17:00.0" */
    int major, minor;    /* compute capability */
    int multiprocessors;
    int64_t total_bytes, l2_bytes;
    int64_t shared_bytes; /* dynamic shared memory that a block may be allowed (opt-in) */

    struct CUstream_st *stream;      /* all ops are queued here, in order (cudaStream_t) */
    struct CUstream_st *copy_stream; /* uploads that overlap with ops */
    struct CUevent_st *timer_from, *timer_to;
    struct cublasContext *blas; /* on `stream`, with blas_workspace (cublasHandle_t) */
    void *blas_workspace;

    void *scratch; /* grows to the largest need seen; ops use it one at a time (qb_cuda_scratch) */
    int64_t scratch_bytes;
    uint64_t scratch_uses; /* calls of qb_cuda_scratch */
    struct { /* what gemm.cu converted last, and still lies in the scratch while `use` is the last */
        const float *x;
        int64_t T, cols, stride;
        uint64_t order, use;
    } converted;
    void *results; /* pinned host memory of QB_CUDA_RESULT_BYTES for what ops give back */

    qb_memory memory; /* device memory by kind */
    qb_numa numa;
    qb_places places;
    int64_t memory_limit;                        /* 0: none */
    int64_t pinned_now_bytes, pinned_peak_bytes; /* host memory held for the device */
    qb_cuda_allocation *allocations;             /* live ones, unordered */
    size_t n_allocations, allocation_capacity;

    void *
        idle[QB_CUDA_IDLE_MOST]; /* of the allocations those that qb_cuda_borrow may hand out, oldest first */
    size_t n_idle;
    int64_t idle_bytes;

    bool lost; /* a fault in a kernel or on the bus: nothing works until the process ends */
    qb_ceilings ceilings;
    bool ceilings_known;

    struct {
        void *state;
        void (*free)(cuda_device *d, void *state);
    } parts[QB_CUDA_PART_COUNT];
};

enum { QB_CUDA_RESULT_BYTES = 1 << 16, QB_CUDA_SCRATCH_ALIGNMENT = 256 };

extern const qb_backend qb_backend_cuda;

static inline cuda_device *cuda_of(qb_device *dev) {
    return (cuda_device *)dev;
}

/* ---- device.c: memory ---- */

/* Counted device memory, 256-byte aligned, garbage. Out of memory: QB_ERR_MEMORY with what is free and held.
 */
qb_status qb_cuda_alloc(qb_device *dev, qb_memory_kind kind, int64_t bytes, void *out_pointer) QB_NODISCARD;
/* Counted pinned host memory that kernels may read in place (QB_PLACE_HOST). */
qb_status qb_cuda_alloc_pinned(cuda_device *d, int64_t bytes, void *out_pointer) QB_NODISCARD;
/* Either; takes NULL. Waits for the device. */
void qb_cuda_free(qb_device *dev, void *pointer);
/* Workspace of one op out of blocks that earlier ops gave back, or new; what is queued before may still use
   it, and what is queued after the giving back may too. Kept blocks are given up before an allocation fails.
 */
qb_status qb_cuda_borrow(cuda_device *d, int64_t bytes, void *out_pointer) QB_NODISCARD;
void qb_cuda_give_back(cuda_device *d, void *pointer);
/* At least `bytes` of scratch, 256-byte aligned, valid until the next call; what is queued on `stream` before
   may still use the old one. Not while the stream is captured, unless it need not grow. */
qb_status qb_cuda_scratch(cuda_device *d, int64_t bytes, void *out_pointer) QB_NODISCARD;

/* ---- transfer.cu: through pinned buffers, on `stream`; upload_new on `copy_stream`, which `stream` then
 * waits for ---- */

qb_status qb_cuda_upload(qb_device *dev, void *to, const void *from, int64_t bytes) QB_NODISCARD;
qb_status qb_cuda_upload_new(qb_device *dev, void *to, const void *from, int64_t bytes) QB_NODISCARD;
qb_status qb_cuda_download(qb_device *dev, void *to, const void *from, int64_t bytes) QB_NODISCARD;
qb_status qb_cuda_copy(qb_device *dev, void *to, const void *from, int64_t bytes) QB_NODISCARD;
qb_status qb_cuda_clear(qb_device *dev, void *to, int64_t bytes) QB_NODISCARD;
qb_status qb_cuda_sync(qb_device *dev) QB_NODISCARD;

/* ---- runtime.cu: what device.c needs of the runtime ---- */

/* Device `index`: checks driver, existence and compute capability, fills the description, makes streams,
   events and the cuBLAS handle. qb_cuda_runtime_close undoes what was done. */
qb_status qb_cuda_runtime_open(cuda_device *d, int index) QB_NODISCARD;
void qb_cuda_runtime_close(cuda_device *d);
qb_status qb_cuda_raw_alloc(cuda_device *d, bool pinned, int64_t bytes, void **out) QB_NODISCARD;
void qb_cuda_raw_free(cuda_device *d, bool pinned, void *pointer);
int64_t qb_cuda_raw_free_bytes(const cuda_device *d); /* by the driver; 0 when it does not say */
qb_status qb_cuda_timer_start(qb_device *dev) QB_NODISCARD;
qb_status qb_cuda_timer_stop(qb_device *dev, double *seconds) QB_NODISCARD;

/* ---- ops ---- */

/* A qb_matrix's `dense` is memory that kernels read: on the device, or pinned on the host (QB_PLACE_HOST). */

/* norm.cu, rope.cu, elementwise.cu, rows.cu, logits.cu, ceilings.cu */
qb_status qb_cuda_norm(qb_device *dev, const qb_norm_attr *attr, float *y, const float *x,
                       const float *weight, const float *bias, int64_t T, int64_t n);
qb_status qb_cuda_rope(qb_device *dev, const qb_rope_attr *attr, float *x, const float *table, int64_t n_seq,
                       int64_t n_tok, int64_t first);
qb_status qb_cuda_kv_store(qb_device *dev, const qb_kv *kv, int64_t layer, const float *k, const float *v,
                           int64_t n_seq, int64_t n_tok, int64_t first);
qb_status qb_cuda_activate(qb_device *dev, const qb_activate_attr *attr, float *y, const float *gate,
                           const float *up, int64_t T, int64_t n);
qb_status qb_cuda_map(qb_device *dev, qb_step_kind kind, float value, float *x, int64_t n);
qb_status qb_cuda_xielu(qb_device *dev, float *y, const float *x, const float *numbers, int64_t n);
qb_status qb_cuda_gate_rows(qb_device *dev, float *x, const float *gate, int64_t T, int64_t n);
qb_status qb_cuda_temperature(qb_device *dev, const qb_temperature_attr *attr, float *x, int64_t n_seq,
                              int64_t n_tok, int64_t first, int64_t n);
qb_status qb_cuda_split(qb_device *dev, const qb_split_attr *attr, const float *x, float *const out[3],
                        int64_t T);
qb_status qb_cuda_join(qb_device *dev, const qb_join_attr *attr, float *y, const float *x,
                       const float *shared, int64_t T);
qb_status qb_cuda_route(qb_device *dev, const qb_route_attr *attr, const float *logits, const float *bias,
                        int64_t T, qb_routing *out);
qb_status qb_cuda_gather(qb_device *dev, const qb_routing *r, bool weigh, float *y, const float *x,
                         int64_t n);
qb_status qb_cuda_scatter(qb_device *dev, const qb_routing *r, bool weigh, float *y, const float *x,
                          int64_t T, int64_t n);
qb_status qb_cuda_concat(qb_device *dev, float *out, const float *const x[3], const int64_t n[3], int64_t T);
/* recurrent.cu */
qb_status qb_cuda_conv(qb_device *dev, const qb_conv_attr *attr, float *x, const float *weight,
                       const qb_kv *kv, int64_t layer, int64_t n_seq, int64_t n_tok, int64_t first);
qb_status qb_cuda_delta(qb_device *dev, const qb_delta_attr *attr, float *out, const float *qkv,
                        const float *beta, const float *decay, const float *a_log, const float *dt_bias,
                        const qb_kv *kv, int64_t layer, int64_t n_seq, int64_t n_tok, int64_t first);
/* elementwise.cu, logits.cu */
qb_status qb_cuda_add(qb_device *dev, float *x, const float *y, int64_t n);
qb_status qb_cuda_add_bias(qb_device *dev, float *x, const float *bias, int64_t T, int64_t n);
qb_status qb_cuda_embed(qb_device *dev, float *x, const qb_matrix *table, const int32_t *ids, int64_t T);
qb_status qb_cuda_nll(qb_device *dev, const float *logits, int64_t T, int64_t V, const int32_t *targets,
                      double *out);
qb_status qb_cuda_argmax(qb_device *dev, const float *logits, int64_t T, int64_t V, int32_t *out);
qb_status qb_cuda_all_finite(qb_device *dev, const float *x, int64_t n, bool *out);
qb_status qb_cuda_ceilings(qb_device *dev, qb_ceilings *out);
/* matrix.cu, matmul*.cu */
qb_status qb_cuda_matrix_create(qb_device *dev, const qb_weight *w, qb_place place, qb_matrix *out);
void qb_cuda_matrix_free(qb_device *dev, qb_matrix *m);
qb_status qb_cuda_matmul(qb_device *dev, float *y, const float *x, int64_t T, const qb_matrix *w);
qb_status qb_cuda_matmul_again(qb_device *dev, float *y, const float *x, int64_t T, const qb_matrix *w);
qb_status qb_cuda_hessian(qb_device *dev, float *h, const float *x, int64_t T, int64_t n);
/* monitor.c, quantize_round.cu, gptq.cu */
qb_status qb_cuda_monitor(qb_device *dev, qb_monitor *out);
qb_status qb_cuda_round(qb_device *dev, const qb_grid_rule *rule, const qb_code_bounds *bounds,
                        qb_code_job *job);
qb_status qb_cuda_gptq(qb_device *dev, qb_gptq_problem *problem);
/* attention.cu, decode.cu */
qb_status qb_cuda_check_step(const qb_step *step);
qb_status qb_cuda_attention(qb_device *dev, const qb_attention *a);
qb_status qb_cuda_decode(qb_device *dev, const qb_decoder *d, const qb_kv *kv, const int32_t *ids,
                         int64_t n_seq, int64_t first, float *logits);
qb_status qb_cuda_decode_greedy(qb_device *dev, const qb_decoder *d, const qb_kv *kv, const int32_t *ids,
                                int64_t n_seq, int64_t first, int64_t n, float *logits, int32_t *chosen,
                                int64_t *n_chosen);

#ifdef __cplusplus
}
#endif
