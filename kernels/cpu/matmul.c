/* Matrices of the CPU backend, and the product with dense ones. */
#include "base/log.h"
#include "base/whole.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/tuning.h"

#include <cblas.h>
#include <string.h>

/* ---- memory ---- */

/* For the rows of one matrix: what is not in order of them is small. */
typedef struct {
    qb_device *dev;
    int64_t rows;
} row_memory;

static qb_status alloc_rows(void *owner, int64_t bytes, void *out_pointer) {
    const row_memory *m = owner;
    int64_t at[QB_NODES_MAX + 1];
    void **out = out_pointer;
    qb_status st = qb_cpu_alloc(m->dev, QB_MEMORY_WEIGHTS, bytes, out);
    if (st != QB_OK) return st;
    qb_cpu_row_shares(m->dev->threads, m->rows, bytes, at);
    qb_cpu_place(m->dev->threads, *out, at);
    return QB_OK;
}
static void free_rows(void *owner, void *pointer) {
    qb_cpu_free(((row_memory *)owner)->dev, pointer);
}

static qb_pack_memory pack_memory(row_memory *m) {
    return (qb_pack_memory){m, alloc_rows, free_rows};
}

static int64_t whole_blocks(int64_t rows) {
    return (rows + QB_BLOCK_ROWS - 1) / QB_BLOCK_ROWS * QB_BLOCK_ROWS;
}

qb_status qb_cpu_matrix_create(qb_device *dev, const qb_weight *w, qb_place place, qb_matrix *out) {
    (void)place; /* all memory is the host's */
    *out = (qb_matrix){.rows = w->rows, .cols = w->cols, .dtype = w->dtype};
    if (w->packed) {
        row_memory rows = {dev, whole_blocks(w->rows)};
        qb_pack_memory memory = pack_memory(&rows);
        qb_packed *p;
        if (w->packed->rows != w->rows || w->packed->cols != w->cols)
            return qb_fail(QB_ERR_INTERNAL, "weight [%lld, %lld] holds a quantized weight [%lld, %lld]",
                           (long long)w->rows, (long long)w->cols, (long long)w->packed->rows,
                           (long long)w->packed->cols);
        qb_status st = qb_pack(w->packed, dev->threads, &memory, &p);
        if (st != QB_OK) return st;
        out->packed = p;
        out->bytes = p->bytes;
        out->integer = qb_packed_integer(cpu_of(dev)->integer, p);
        const int64_t tiles = qb_cpu_packed_tiles_least(p);
        if (cpu_of(dev)->simd->bf16 && tiles < INT64_MAX) out->dense_tokens = tiles;
        out->float32_tokens = qb_cpu_packed_float32_tokens(cpu_of(dev), p);
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
        row_memory rows = {.dev = dev};
        qb_pack_memory memory = pack_memory(&rows);
        qb_pack_free(m->packed, &memory);
    } else if (m->copied) {
        qb_cpu_free(dev, (void *)(uintptr_t)m->dense);
    } else if (m->dense) {
        qb_cpu_count(cpu_of(dev), QB_MEMORY_WEIGHTS, -m->bytes);
    }
    *m = (qb_matrix){0};
}

static int64_t panels_of(int64_t n, int64_t size) {
    return (n + size - 1) / size;
}

/* Half of what is there is left for what else there is to hold. */
static qb_status has_room(cpu_device *d, int64_t bytes, bool *out) {
    int64_t available = d->base.backend->available_bytes(&d->base);
    char a[32], b[32];
    if (available < 0) return QB_ERR_IO;
    *out = bytes <= available / 2;
    if (!*out && !d->told_of_room)
        qb_warn(
            "some dense weights stay in their file's small pages%s, where one token after the other reads "
            "them more slowly: a copy of %s is made only where twice that is available, found %s",
            qb_places_matter(&d->places) ? " on whichever memory node" : "",
            qb_format_bytes((double)bytes, a), qb_format_bytes((double)available, b));
    d->told_of_room = d->told_of_room || !*out;
    return QB_OK;
}

typedef struct {
    const uint8_t *from;
    uint8_t *to;
    int64_t rows, row_bytes;
} copy_job;

static void copy_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const copy_job *j = ctx;
    int64_t first = begin * QB_ROWS_A_TASK, last = qb_least(end * QB_ROWS_A_TASK, j->rows);
    memcpy(j->to + first * j->row_bytes, j->from + first * j->row_bytes,
           (size_t)((last - first) * j->row_bytes));
}

/* A file's own pages are small ones, on whichever node read it first. Streamed once a token, 16-bit weights
   in huge pages are 1.1 to 1.4 times as fast. A matrix that the caller reads alone (products.c) may lie
   wherever it is. */
qb_status qb_cpu_matrix_settle(qb_device *dev, qb_matrix *m, bool *copied) {
    cpu_device *d = cpu_of(dev);
    row_memory rows = {dev, m->rows};
    copy_job j = {.from = m->dense, .rows = m->rows};
    bool room;
    *copied = false;
    if (!m->dense || m->copied || m->bytes < QB_ALONE_BYTES || !d->settles) return QB_OK;
    j.row_bytes = m->bytes / m->rows;
    qb_status st = has_room(d, m->bytes, &room);
    if (st != QB_OK || !room) return st;
    qb_cpu_count(d, QB_MEMORY_WEIGHTS, -m->bytes); /* the view's, which the copy takes the place of */
    st = alloc_rows(&rows, m->bytes, &j.to);
    if (st != QB_OK) {
        qb_cpu_count(d, QB_MEMORY_WEIGHTS, m->bytes);
        return st;
    }
    qb_parallel_for(dev->threads, panels_of(m->rows, QB_ROWS_A_TASK), 1, copy_rows, &j);
    m->dense = j.to;
    m->copied = *copied = true;
    return QB_OK;
}

/* ---- dense: rows against registers ---- */

/* Rows of a task meet TOKENS_AT_ONCE before the next ones, which a core's own cache holds; so many tokens as
   PANEL_TOKENS go through all rows before the next ones, which the processor's cache holds. Rows are divided
   among memory nodes as qb_cpu_row_shares says; of more tokens than PANEL_TOKENS it is those that are
   divided, and larger tasks of many tokens end elsewhere: a weight is then read once for so many of them that
   it matters little from which node. */
enum { TOKENS_AT_ONCE = 64, PANEL_TOKENS = 512 };

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
    const int64_t row_panels = panels_of(w->rows, QB_ROWS_A_TASK);
    const qb_dense_fn fn = qb_cpu_dense_loops(j->simd, w->dtype);
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i % row_panels * QB_ROWS_A_TASK, rows = qb_least(QB_ROWS_A_TASK, w->rows - row);
        int64_t first = i / row_panels * PANEL_TOKENS, last = qb_least(first + PANEL_TOKENS, j->T);
        for (int64_t t = first; t < last; t += TOKENS_AT_ONCE)
            fn(dense_row(w, row), w->cols, rows, j->x + t * w->cols, qb_least(TOKENS_AT_ONCE, last - t),
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
        int64_t rows = qb_least(PANEL_ROWS, w->rows - row);
        if (row != widened) panel = widen_panel(j, row, rows, worker);
        widened = row;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)qb_least(PANEL_TOKENS, j->T - t), (int)rows,
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
            {panels_of(w->rows, QB_ROWS_A_TASK) * panels_of(part->T, PANEL_TOKENS), 1, dense_rows, j},
            part->T * w->cols * 2 * QB_ROWS_A_TASK};
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
