/* Matrices of the CPU backend, and the product with dense ones. */
#include "kernels/cpu/products.h"
#include "kernels/cpu/tuning.h"

#include <cblas.h>
#include <string.h>

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static qb_status pack_alloc(void *owner, int64_t bytes, void *out_pointer) {
    return qb_cpu_alloc(owner, QB_MEMORY_WEIGHTS, bytes, out_pointer);
}
static void pack_release(void *owner, void *pointer) {
    qb_cpu_free(owner, pointer);
}

static qb_pack_memory pack_memory(qb_device *dev) {
    return (qb_pack_memory){dev, pack_alloc, pack_release};
}

qb_status qb_cpu_matrix_create(qb_device *dev, const qb_weight *w, qb_place place, qb_matrix *out) {
    (void)place; /* all memory is the host's */
    *out = (qb_matrix){.rows = w->rows, .cols = w->cols, .dtype = w->dtype};
    if (w->packed) {
        qb_pack_memory memory = pack_memory(dev);
        qb_packed *p;
        if (w->packed->rows != w->rows || w->packed->cols != w->cols)
            return qb_fail(QB_ERR_INTERNAL, "weight [%lld, %lld] holds a quantized weight [%lld, %lld]",
                           (long long)w->rows, (long long)w->cols, (long long)w->packed->rows,
                           (long long)w->packed->cols);
        qb_status st = qb_pack(w->packed, dev->threads, &memory, &p);
        if (st != QB_OK) return st;
        out->packed = p;
        out->bytes = p->bytes;
        out->integer = qb_packed_has_integer(cpu_of(dev)->integer, p);
        return QB_OK;
    }
    if (w->dtype != QB_DTYPE_F32 && w->dtype != QB_DTYPE_F16 && w->dtype != QB_DTYPE_BF16)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "dense weights of type %s; float32, float16 and bfloat16 are supported",
                       qb_dtype_name(w->dtype));
    out->dense = w->dense;
    out->bytes = w->rows * w->cols * (int64_t)qb_dtype_bytes(w->dtype);
    qb_cpu_count(cpu_of(dev), QB_MEMORY_WEIGHTS, out->bytes);
    return QB_OK;
}

void qb_cpu_matrix_free(qb_device *dev, qb_matrix *m) {
    if (!m) return;
    if (m->packed) {
        qb_pack_memory memory = pack_memory(dev);
        qb_pack_free(m->packed, &memory);
    } else if (m->dense) {
        qb_cpu_count(cpu_of(dev), QB_MEMORY_WEIGHTS, -m->bytes);
    }
    *m = (qb_matrix){0};
}

/* ---- dense: rows against registers ---- */

/* Rows of a task meet TOKENS_AT_ONCE before the next ones, which a core's own cache holds; so many tokens as
   PANEL_TOKENS go through all rows before the next ones, which the processor's cache holds. */
enum { ROWS_A_TASK = 64, TOKENS_AT_ONCE = 64, PANEL_TOKENS = 512 };

static int64_t panels_of(int64_t n, int64_t size) {
    return (n + size - 1) / size;
}

typedef struct {
    const qb_simd *simd;
    const qb_matrix *w;
    const float *x;
    float *y;
    int64_t T;
    float *panels; /* [workers][PANEL_ROWS * cols], 16-bit weights in GEMM */
} dense_job;

static const uint8_t *dense_row(const qb_matrix *w, int64_t row) {
    return (const uint8_t *)w->dense + row * w->cols * (int64_t)qb_dtype_bytes(w->dtype);
}

/* Task i is a panel of rows against one of tokens, rows running fastest. */
static void dense_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const dense_job *j = ctx;
    const qb_matrix *w = j->w;
    const int64_t row_panels = panels_of(w->rows, ROWS_A_TASK);
    qb_dense_fn fn = w->dtype == QB_DTYPE_F16    ? j->simd->dense_f16
                     : w->dtype == QB_DTYPE_BF16 ? j->simd->dense_bf16
                                                 : j->simd->dense_f32;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i % row_panels * ROWS_A_TASK, rows = least(ROWS_A_TASK, w->rows - row);
        int64_t first = i / row_panels * PANEL_TOKENS, last = least(first + PANEL_TOKENS, j->T);
        for (int64_t t = first; t < last; t += TOKENS_AT_ONCE)
            fn(dense_row(w, row), w->cols, rows, j->x + t * w->cols, least(TOKENS_AT_ONCE, last - t),
               j->y + t * w->rows + row, w->rows);
    }
}

/* ---- dense: many tokens, float32 panels into SGEMM ---- */

enum { PANEL_ROWS = 256, MANY_PANELS = 16 };

/* A panel of rows as float32: the weights themselves, or widened into the worker's scratch. */
static const float *widen_panel(const dense_job *j, int64_t row, int64_t rows, int worker) {
    const qb_matrix *w = j->w;
    if (w->dtype == QB_DTYPE_F32) return (const float *)(const void *)dense_row(w, row);
    float *to = j->panels + worker * PANEL_ROWS * w->cols;
    if (w->dtype == QB_DTYPE_F16)
        j->simd->f32_of_f16(dense_row(w, row), rows * w->cols, to);
    else
        j->simd->f32_of_bf16(dense_row(w, row), rows * w->cols, to);
    return to;
}

/* Task i is one panel of rows against one of tokens, tokens running fastest, so that a worker that takes
   several in a row widens a panel once. The SGEMM calls are the same however tasks are handed out. */
static void dense_gemm(void *ctx, int64_t begin, int64_t end, int worker) {
    const dense_job *j = ctx;
    const qb_matrix *w = j->w;
    int64_t token_panels = panels_of(j->T, PANEL_TOKENS), widened = -1;
    const float *panel = NULL;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i / token_panels * PANEL_ROWS, t = i % token_panels * PANEL_TOKENS;
        int64_t rows = least(PANEL_ROWS, w->rows - row);
        if (row != widened) panel = widen_panel(j, row, rows, worker);
        widened = row;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)least(PANEL_TOKENS, j->T - t), (int)rows,
                    (int)w->cols, 1.0f, j->x + t * w->cols, (int)w->cols, panel, (int)w->cols, 0.0f,
                    j->y + t * w->rows + row, (int)w->rows);
    }
}

/* ---- both as loops ---- */

static bool dense_same_room(const qb_matrix *a, const qb_matrix *b) {
    return a->cols == b->cols && a->dtype == b->dtype;
}

/* Whether SGEMM is the faster way. */
static bool is_gemm(const cpu_device *d, int64_t T) {
    int64_t from = d->simd->wide ? qb_cpu_tuning_here()->wide_gemm_tokens : 0;
    return T >= (from ? from : d->simd->dense_gemm_tokens);
}

static int64_t dense_room(const cpu_device *d, const qb_cpu_part *part) {
    if (!is_gemm(d, part->T) || part->w->dtype == QB_DTYPE_F32) return 0;
    return qb_threads_count(d->base.threads) * PANEL_ROWS * part->w->cols * 4;
}

static void dense_plan(const cpu_device *d, void *job, void *room, const qb_cpu_part *part,
                       qb_cpu_loops *out) {
    const qb_matrix *w = part->w;
    dense_job *j = job;
    *j = (dense_job){.simd = d->simd, .w = w, .x = part->x, .y = part->y, .T = part->T, .panels = room};
    if (!is_gemm(d, part->T)) {
        out->multiply = (qb_cpu_loop){
            {panels_of(w->rows, ROWS_A_TASK) * panels_of(part->T, PANEL_TOKENS), 1, dense_rows, j},
            part->T * w->cols * 2 * ROWS_A_TASK};
        return;
    }
    /* Small matrices have too few row panels to share: their token panels are handed out too. */
    int64_t row_panels = panels_of(w->rows, PANEL_ROWS), token_panels = panels_of(part->T, PANEL_TOKENS);
    out->multiply =
        (qb_cpu_loop){{row_panels * token_panels, row_panels < MANY_PANELS ? 1 : token_panels, dense_gemm, j},
                      QB_ALONE_BYTES};
}

const qb_cpu_form qb_cpu_dense_form = {
    .most_tokens = (int64_t)1 << 40, /* all */
    .job_bytes = sizeof(dense_job),
    .same_room = dense_same_room,
    .room_bytes = dense_room,
    .plan = dense_plan,
};
