/* Matrices of the CUDA backend: checked on the host, packed on the device, everything of one in one
 * allocation. */
#include "kernels/cuda/matrix.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/whole.h"
#include "kernels/cuda/matrix_kernels.h"
#include "kernels/cuda/order.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    PACK_BYTES = 32 << 20, /* neutral codes on the device at once */
    WEIGHT_EXPONENT = 13,  /* the largest weight of a float16 panel is below 2^14 */
    TABLE_FLOATS = 16 + 256,
    CHECK_GRAIN = 1 << 20, /* elements a thread looks at */
    SCALE_ROWS = 64,       /* rows of scales a thread puts in place: whole tiles, which share bytes */
};

static int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

/* Power of two that brings weights up to `largest` below 2^14; a scale that is not finite keeps what it
 * makes. */
static int exponent_for(double largest) {
    if (!(largest > 0) || !isfinite(largest)) return 0;
    int e;
    frexp(largest, &e);
    e = WEIGHT_EXPONENT + 1 - e;
    return e > 126 ? 126 : e < -126 ? -126 : e;
}

/* ---- checks: the neutral form may have been read from a file ---- */

typedef struct {
    const uint8_t *values;
    int limit;
    atomic_bool found;
} limit_check;

static void look_above(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    limit_check *run = ctx;
    uint8_t largest = 0;
    for (int64_t i = begin; i < end; i++) largest = run->values[i] > largest ? run->values[i] : largest;
    if (largest >= run->limit) atomic_store(&run->found, true);
}

static qb_status check_below(qb_threads *threads, const uint8_t *values, int64_t n, int limit,
                             const char *what) {
    limit_check run = {values, limit, false};
    qb_parallel_for(threads, n, CHECK_GRAIN, look_above, &run);
    if (!atomic_load(&run.found)) return QB_OK;
    for (int64_t i = 0; i < n; i++)
        if (values[i] >= limit)
            return qb_fail(QB_ERR_FORMAT, "%s %d at element %lld of a quantized weight; expected below %d",
                           what, values[i], (long long)i, limit);
    return QB_OK;
}

static qb_status check_codes(qb_threads *threads, const qb_qweight *q) {
    qb_status st = QB_OK;
    int limit = q->coding == QB_CODING_CODEBOOK ? 16 : 1 << q->bits;
    if (limit > 255) return QB_OK;
    if (q->codes) QB_TRY(st, check_below(threads, q->codes, q->rows * q->cols, limit, "code"));
    if (q->coding == QB_CODING_AFFINE && q->zeros)
        QB_TRY(st, check_below(threads, q->zeros, q->rows * q->n_groups, limit, "zero point"));
out:
    return st;
}

/* The 8-bit absmax codes are kept only where bitsandbytes' usual map decodes them to what the reader found.
 */
static bool usual_map(const qb_qweight *q) {
    const float *map = qb_dynamic_map();
    for (int64_t b = 0; b < q->n_blocks; b++) {
        float inner = map[q->absmax_codes[b]] * q->nested_absmax[b / QB_NESTED_BLOCK];
        float error = fabsf(inner + q->nested_offset - q->absmax[b]);
        if (!(error <= 1e-6f * (fabsf(inner) + fabsf(q->nested_offset)))) return false;
    }
    return true;
}

/* ---- the arrays of a packed matrix ---- */

typedef struct {
    int64_t bytes, padding; /* the latter of the former */
    void *host;             /* what to upload, or NULL: left as it is */
    int64_t offset;         /* in the matrix's allocation */
} array;

typedef enum { CODES, SCALES, ZEROS, OFFSETS, TABLE, NESTED, SOURCE, ARRAYS } array_name;

typedef struct {
    cuda_device *d;
    const qb_qweight *q;
    qb_column_order order;
    int64_t row_tiles, group_cols;
    qb_cuda_view view;
    array arrays[ARRAYS];
} pack_job;

static void job_free(pack_job *j) {
    for (int i = 0; i < ARRAYS; i++) qb_free(j->arrays[i].host);
    qb_column_order_free(&j->order);
}

static qb_status array_make(pack_job *j, array_name name, int64_t count, int64_t size, void *out_pointer) {
    array *a = &j->arrays[name];
    qb_status st = qb_alloc_zero((size_t)count, (size_t)size, &a->host);
    if (st != QB_OK) return st;
    a->bytes = count * size;
    memcpy(out_pointer, &a->host, sizeof(void *));
    return QB_OK;
}

static int64_t scale_entries(const pack_job *j) {
    return j->row_tiles * QB_TILE_ROWS * j->order.n_parts;
}

/* Scale of a codebook's part: that of the block its first element falls into. */
static int64_t block_of(const pack_job *j, int64_t row, int64_t part) {
    return (row * j->q->cols + j->order.group[part] * j->group_cols) / j->q->block_size;
}

static float scale_of(const pack_job *j, int64_t row, int64_t part) {
    const qb_qweight *q = j->q;
    return q->coding == QB_CODING_CODEBOOK ? q->absmax[block_of(j, row, part)]
                                           : q->scales[row * q->n_groups + j->order.group[part]];
}

typedef struct {
    const qb_qweight *q;
    atomic_bool inexact;
} exactness;

static void look_for_inexact(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    exactness *run = ctx;
    const float *scales = run->q->scales;
    for (int64_t i = begin; i < end; i++)
        if (qb_f32_of_f16(qb_f16_of_f32(scales[i])) != scales[i]) {
            atomic_store(&run->inexact, true);
            return;
        }
}

static bool scales_exact_in_f16(const pack_job *j) {
    exactness run = {j->q, false};
    qb_parallel_for(j->d->base.threads, j->q->rows * j->q->n_groups, CHECK_GRAIN / 16, look_for_inexact,
                    &run);
    return !atomic_load(&run.inexact);
}

typedef struct {
    const pack_job *j;
    int64_t size; /* bytes of a scale: 1 nested, 2 float16, 4 float32; of a zero point: its bits */
    void *to;
} place_run;

static void place_scales(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const place_run *run = ctx;
    const pack_job *j = run->j;
    for (int64_t r = begin; r < end; r++)
        for (int64_t p = 0; p < j->order.n_parts; p++) {
            int64_t at = qb_scale_index(r, p, j->order.n_parts);
            if (run->size == 1)
                ((uint8_t *)run->to)[at] = j->q->absmax_codes[block_of(j, r, p)];
            else if (run->size == 2)
                ((uint16_t *)run->to)[at] = qb_f16_of_f32(scale_of(j, r, p));
            else
                ((float *)run->to)[at] = scale_of(j, r, p);
        }
}

static void place_zeros(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const place_run *run = ctx;
    const pack_job *j = run->j;
    uint8_t *to = run->to;
    for (int64_t r = begin; r < end; r++)
        for (int64_t p = 0; p < j->order.n_parts; p++) {
            int64_t bit = qb_scale_index(r, p, j->order.n_parts) * run->size;
            unsigned zero = j->q->zeros[r * j->q->n_groups + j->order.group[p]];
            to[bit / 8] = (uint8_t)(to[bit / 8] | zero << bit % 8);
        }
}

static qb_status make_scales(pack_job *j) {
    qb_cuda_view *v = &j->view;
    bool book = j->q->coding == QB_CODING_CODEBOOK;
    bool nested = book && j->q->double_quant && j->group_cols == j->q->block_size &&
                  j->q->block_size >= QB_UNIT_COLS && usual_map(j->q);
    v->scale_kind = nested                            ? QB_VIEW_SCALES_NESTED
                    : !book && scales_exact_in_f16(j) ? QB_VIEW_SCALES_F16
                                                      : QB_VIEW_SCALES_F32;
    int64_t size = nested ? 1 : v->scale_kind == QB_VIEW_SCALES_F16 ? 2 : 4;
    void *to;
    qb_status st = array_make(j, SCALES, scale_entries(j), size, &to);
    if (st != QB_OK) return st;
    place_run run = {j, size, to};
    qb_parallel_for(j->d->base.threads, j->q->rows, SCALE_ROWS, place_scales, &run);
    if (!nested) return QB_OK;
    /* Rows that pad the last tile read past the real ones: their places exist and are zero. */
    int64_t n = (j->q->n_blocks + QB_NESTED_BLOCK - 1) / QB_NESTED_BLOCK;
    v->row_blocks = (int32_t)(j->q->cols / j->q->block_size);
    int64_t padded = (j->row_tiles * QB_TILE_ROWS * v->row_blocks + j->order.n_parts) / QB_NESTED_BLOCK + 1;
    st = array_make(j, NESTED, padded, 4, &to);
    j->arrays[NESTED].padding = (padded - n) * 4;
    if (st == QB_OK) memcpy(to, j->q->nested_absmax, (size_t)n * 4);
    v->nested_offset = j->q->nested_offset;
    return st;
}

static qb_status make_zeros(pack_job *j) {
    const qb_qweight *q = j->q;
    int width = q->bits <= 4 ? 4 : 8;
    bool usual = true;
    j->view.zero = q->offsets ? 0 : 1 << (q->bits - 1);
    for (int64_t i = 0; q->zeros && i < q->rows * q->n_groups && usual; i++)
        usual = q->zeros[i] == j->view.zero;
    if (q->offsets || usual) return QB_OK;
    uint8_t *to;
    qb_status st = array_make(j, ZEROS, scale_entries(j) * width / 8, 1, &to);
    if (st != QB_OK) return st;
    place_run run = {j, width, to};
    qb_parallel_for(j->d->base.threads, q->rows, SCALE_ROWS, place_zeros, &run);
    return QB_OK;
}

static qb_status make_offsets(pack_job *j) {
    const qb_qweight *q = j->q;
    float *to;
    if (!q->offsets) return QB_OK;
    qb_status st = array_make(j, OFFSETS, scale_entries(j), 4, &to);
    if (st != QB_OK) return st;
    for (int64_t r = 0; r < q->rows; r++)
        for (int64_t p = 0; p < j->order.n_parts; p++)
            to[qb_scale_index(r, p, j->order.n_parts)] = q->offsets[r * q->n_groups + j->order.group[p]];
    return QB_OK;
}

static qb_status make_table(pack_job *j) {
    float *to;
    if (j->q->coding != QB_CODING_CODEBOOK) return QB_OK;
    qb_status st = array_make(j, TABLE, TABLE_FLOATS, 4, &to);
    if (st != QB_OK) return st;
    memcpy(to, qb_codebook_table(j->q->codebook), 16 * sizeof *to);
    memcpy(to + 16, qb_dynamic_map(), 256 * sizeof *to);
    return QB_OK;
}

/* A bound of the largest weight, from the scales. */
static double largest_weight(const qb_qweight *q) {
    double largest = 0;
    if (q->coding == QB_CODING_CODEBOOK) {
        for (int64_t b = 0; b < q->n_blocks; b++) largest = fmax(largest, fabs((double)q->absmax[b]));
        const float *table = qb_codebook_table(q->codebook);
        double value = 0;
        for (int i = 0; i < 16; i++) value = fmax(value, fabs((double)table[i]));
        largest *= value;
        return largest;
    }
    for (int64_t i = 0; i < q->rows * q->n_groups; i++) {
        int zero = q->offsets ? 0 : q->zeros[i], top = (1 << q->bits) - 1;
        double reach = (double)(zero > top - zero ? zero : top - zero);
        largest = fmax(largest,
                       fabs((double)q->scales[i]) * reach + (q->offsets ? fabs((double)q->offsets[i]) : 0));
    }
    return largest;
}

static qb_codes_kind codes_kind(const qb_qweight *q) {
    if (q->coding == QB_CODING_CODEBOOK) return QB_CODES_BOOK;
    return q->bits == 2 ? QB_CODES_2 : q->bits == 3 ? QB_CODES_3 : q->bits == 4 ? QB_CODES_4 : QB_CODES_8;
}

static qb_status make_arrays(pack_job *j) {
    qb_status st;
    int32_t *source;
    QB_TRY(st, make_scales(j));
    if (j->q->coding == QB_CODING_AFFINE) QB_TRY(st, make_zeros(j));
    QB_TRY(st, make_offsets(j));
    QB_TRY(st, make_table(j));
    if (j->order.source) {
        QB_TRY(st, array_make(j, SOURCE, j->order.padded_cols, 4, &source));
        memcpy(source, j->order.source, (size_t)j->order.padded_cols * 4);
    }
out:
    return st;
}

/* ---- onto the device ---- */

static qb_status place_alloc(cuda_device *d, qb_place place, int64_t bytes, qb_cuda_matrix *m) {
    m->pinned = place == QB_PLACE_HOST;
    return m->pinned ? qb_cuda_alloc_pinned(d, bytes, &m->memory)
                     : qb_cuda_alloc(&d->base, QB_MEMORY_WEIGHTS, bytes, &m->memory);
}

static qb_status place_put(cuda_device *d, const qb_cuda_matrix *m, int64_t offset, const void *from,
                           int64_t bytes) {
    uint8_t *to = (uint8_t *)m->memory + offset;
    if (!m->pinned) return qb_cuda_upload_new(&d->base, to, from, bytes);
    memcpy(to, from, (size_t)bytes);
    return QB_OK;
}

static const void *array_at(const qb_cuda_matrix *m, const array *a) {
    return a->bytes > 0 ? (uint8_t *)m->memory + a->offset : NULL;
}

static void set_view(const pack_job *j, qb_cuda_matrix *m) {
    qb_cuda_view *v = &m->view;
    *v = j->view;
    v->codes = array_at(m, &j->arrays[CODES]);
    v->scales = array_at(m, &j->arrays[SCALES]);
    v->zeros = array_at(m, &j->arrays[ZEROS]);
    v->offsets = array_at(m, &j->arrays[OFFSETS]);
    v->table = array_at(m, &j->arrays[TABLE]);
    v->nested = array_at(m, &j->arrays[NESTED]);
    v->source = array_at(m, &j->arrays[SOURCE]);
}

static qb_status pack_rows(const pack_job *j, const qb_cuda_matrix *m) {
    int64_t cols = j->q->cols, rows = j->q->rows;
    int64_t panel = PACK_BYTES / cols / QB_TILE_ROWS * QB_TILE_ROWS;
    if (panel < QB_TILE_ROWS) panel = QB_TILE_ROWS;
    panel = qb_least(panel, rows);
    uint8_t *codes, *room = NULL;
    qb_status st;
    if (!j->q->codes) QB_TRY(st, qb_alloc((size_t)(panel * cols), 1, &room));
    QB_TRY(st, qb_cuda_scratch(j->d, panel * cols, &codes));
    for (int64_t row = 0; row < rows; row += panel) {
        int64_t n = qb_least(panel, rows - row);
        const uint8_t *from = qb_qweight_rows(j->q, j->d->base.threads, row, n, room);
        QB_TRY(st, qb_cuda_upload(&j->d->base, codes, from, n * cols));
        QB_TRY(st, qb_cuda_pack_codes(j->d, &m->view, codes, row, n));
    }
out:
    qb_free(room);
    return st;
}

/* Lays out the arrays one after another and fills them. */
static qb_status place_packed(pack_job *j, qb_place place, qb_cuda_matrix *m, int64_t *bytes) {
    qb_status st;
    int64_t total = 0;
    *bytes = 0;
    for (int i = 0; i < ARRAYS; i++) {
        j->arrays[i].offset = total;
        total += round_up(j->arrays[i].bytes, 256);
        if (i != TABLE) *bytes += j->arrays[i].bytes - j->arrays[i].padding;
    }
    QB_TRY(st, place_alloc(j->d, place, total, m));
    set_view(j, m);
    for (int i = 0; i < ARRAYS; i++)
        if (j->arrays[i].host)
            QB_TRY(st, place_put(j->d, m, j->arrays[i].offset, j->arrays[i].host, j->arrays[i].bytes));
    QB_TRY(st, pack_rows(j, m));
    st = qb_cuda_sync(&j->d->base);
out:
    return st;
}

static qb_status check_sizes(const pack_job *j) {
    if (j->order.padded_cols > INT32_MAX / 2 || scale_entries(j) > INT32_MAX / 2 ||
        j->q->rows > INT32_MAX / 2)
        return qb_fail(
            QB_ERR_UNSUPPORTED,
            "quantized weight [%lld, %lld] with %lld scales a row is too large for the cuda backend",
            (long long)j->q->rows, (long long)j->q->cols, (long long)j->order.n_parts);
    return QB_OK;
}

static int64_t code_bytes(const pack_job *j, qb_codes_kind kind) {
    return j->row_tiles * (j->order.padded_cols / QB_TILE_COLS) * qb_tile_bytes(kind);
}

static qb_status create_dense(cuda_device *d, const qb_weight *w, qb_place place, qb_cuda_matrix *m,
                              qb_matrix *out);

/* Blocks or groups cut so finely that their padding outgrows float32 are kept as float32: exact, larger, and
   said so in `bytes` and in the log. */
static qb_status create_expanded(cuda_device *d, qb_qweight *q, qb_place place, qb_cuda_matrix *m,
                                 qb_matrix *out) {
    char name[48];
    float *dense;
    qb_status st = qb_qweight_complete(q, d->base.threads);
    if (st == QB_OK) st = qb_alloc((size_t)q->rows * (size_t)q->cols, sizeof *dense, &dense);
    if (st != QB_OK) return st;
    qb_debug("cuda: %s [%lld, %lld] is kept as float32: its scales change within 32 columns, at other "
             "columns in each "
             "row",
             qb_qweight_describe(q, name), (long long)q->rows, (long long)q->cols);
    qb_qweight_dequantize(q, dense);
    qb_weight w = {.rows = q->rows, .cols = q->cols, .dtype = QB_DTYPE_F32, .dense = dense};
    out->dtype = QB_DTYPE_F32;
    st = create_dense(d, &w, place, m, out);
    out->dense = NULL; /* not what the checkpoint holds */
    qb_free(dense);
    return st;
}

/* Groups are padded to whole units of columns: said where it costs. */
static void log_padding(const pack_job *j) {
    char name[48];
    if (j->order.padded_cols * 4 > round_up(j->q->cols, QB_TILE_COLS) * 5)
        qb_debug("cuda: %s [%lld, %lld]: groups that are no multiple of %d columns are padded, %lld columns "
                 "become %lld",
                 qb_qweight_describe(j->q, name), (long long)j->q->rows, (long long)j->q->cols, QB_UNIT_COLS,
                 (long long)j->q->cols, (long long)j->order.padded_cols);
}

static qb_status create_packed(cuda_device *d, qb_qweight *q, qb_place place, qb_cuda_matrix *m,
                               qb_matrix *out) {
    bool book = q->coding == QB_CODING_CODEBOOK;
    qb_status st;
    pack_job j = {.d = d, .q = q, .row_tiles = (q->rows + QB_TILE_ROWS - 1) / QB_TILE_ROWS};
    QB_TRY(st, check_codes(d->base.threads, q));
    QB_TRY(st, qb_qweight_fill_values(q, d->base.threads));
    j.group_cols = qb_qweight_scale_cols(q);
    QB_TRY(st, qb_column_order_make(q->cols, j.group_cols, book ? q->cols / j.group_cols : q->n_groups,
                                    book ? NULL : q->g_idx, &j.order));
    QB_TRY(st, check_sizes(&j));
    qb_codes_kind kind = codes_kind(q);
    j.arrays[CODES].bytes = code_bytes(&j, kind);
    if (j.arrays[CODES].bytes + scale_entries(&j) * 2 > q->rows * q->cols * 4 && q->cols > QB_TILE_COLS) {
        st = create_expanded(d, q, place, m, out);
        goto out;
    }
    log_padding(&j);
    j.view = (qb_cuda_view){.rows = q->rows,
                            .cols = q->cols,
                            .padded_cols = j.order.padded_cols,
                            .kind = kind,
                            .codebook = (int32_t)q->codebook,
                            .bits = q->bits,
                            .n_groups = (int32_t)j.order.n_parts,
                            .group_shift = j.order.shift,
                            .exponent = exponent_for(largest_weight(q)),
                            .order = j.order.digest};
    QB_TRY(st, make_arrays(&j));
    st = place_packed(&j, place, m, &out->bytes);
out:
    job_free(&j);
    return st;
}

/* ---- dense ---- */

/* Largest of the bfloat16 elements, on the device. */
static qb_status set_bf16_exponent(cuda_device *d, qb_cuda_view *v) {
    float largest[QB_CONVERT_BYTES / sizeof(float)], *work;
    int n;
    qb_status st;
    QB_TRY(st, qb_cuda_scratch(d, QB_CONVERT_BYTES, &work));
    QB_TRY(st, qb_cuda_largest_bf16(d, v->codes, v->rows * v->cols, work, &n));
    QB_TRY(st, qb_cuda_download(&d->base, largest, work, n * (int64_t)sizeof *largest));
    float most = 0.0f;
    for (int i = 0; i < n; i++) most = fmaxf(most, largest[i]);
    v->exponent = exponent_for((double)most);
out:
    return st;
}

static qb_status create_dense(cuda_device *d, const qb_weight *w, qb_place place, qb_cuda_matrix *m,
                              qb_matrix *out) {
    if (w->dtype != QB_DTYPE_F32 && w->dtype != QB_DTYPE_F16 && w->dtype != QB_DTYPE_BF16)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "dense weights of type %s; float32, float16 and bfloat16 are supported",
                       qb_dtype_name(w->dtype));
    if (w->rows > INT32_MAX / 2 || w->cols > INT32_MAX / 2)
        return qb_fail(QB_ERR_UNSUPPORTED, "dense weight [%lld, %lld] is too large for the cuda backend",
                       (long long)w->rows, (long long)w->cols);
    qb_status st;
    out->bytes = w->rows * w->cols * (int64_t)qb_dtype_bytes(w->dtype);
    QB_TRY(st, place_alloc(d, place, out->bytes, m));
    QB_TRY(st, place_put(d, m, 0, w->dense, out->bytes));
    m->view = (qb_cuda_view){.codes = m->memory,
                             .rows = w->rows,
                             .cols = w->cols,
                             .padded_cols = round_up(w->cols, QB_TILE_COLS),
                             .kind = w->dtype == QB_DTYPE_F32   ? QB_CODES_F32
                                     : w->dtype == QB_DTYPE_F16 ? QB_CODES_F16
                                                                : QB_CODES_BF16,
                             .bits = (int32_t)qb_dtype_bytes(w->dtype) * 8};
    out->dense = m->memory;
    if (w->dtype == QB_DTYPE_BF16) st = set_bf16_exponent(d, &m->view);
out:
    return st;
}

qb_status qb_cuda_matrix_create(qb_device *dev, const qb_weight *w, qb_place place, qb_matrix *out) {
    cuda_device *d = cuda_of(dev);
    *out = (qb_matrix){.rows = w->rows, .cols = w->cols, .dtype = w->dtype};
    if (w->packed && (w->packed->rows != w->rows || w->packed->cols != w->cols))
        return qb_fail(QB_ERR_INTERNAL, "weight [%lld, %lld] holds a quantized weight [%lld, %lld]",
                       (long long)w->rows, (long long)w->cols, (long long)w->packed->rows,
                       (long long)w->packed->cols);
    qb_cuda_matrix *m;
    qb_status st = qb_alloc_zero(1, sizeof *m, &m);
    if (st != QB_OK) return st;
    out->packed = m;
    st = w->packed ? create_packed(d, w->packed, place, m, out) : create_dense(d, w, place, m, out);
    if (st != QB_OK) qb_cuda_matrix_free(dev, out);
    return st;
}

void qb_cuda_matrix_free(qb_device *dev, qb_matrix *out) {
    if (!out) return;
    qb_cuda_matrix *m = out->packed;
    if (m) qb_cuda_free(dev, m->memory);
    qb_free(m);
    *out = (qb_matrix){0};
}
