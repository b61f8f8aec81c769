#include "adapter/apply.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- the adapter's tensors ---- */

static qb_status read_part(const qb_merge_plan *p, const qb_part *part, float **out) {
    const qb_tensor *t = part->tensor;
    return qb_checkpoint_read_f32(p->adapter->checkpoint, t->name, t->shape[0],
                                  t->n_dims > 1 ? t->shape[1] : 0, out);
}

/* values = left [rows, rank] times right [rank, cols]. */
typedef struct {
    float *left, *right; /* owned */
    int64_t rank, rows, cols;
    float scale;
    float *values, *sums; /* sums [workers, cols] */
} product;

/* Of A [n r, in] the rows of one expert, of B [out, r n] its columns; of the one that lies along the values'
   rows what begins at first_row. */
static void take_a(const qb_edit *e, const float *a, int64_t in, float *out, bool turn) {
    int64_t width = e->a->tensor->shape[1], first = turn ? e->first_row : 0;
    for (int64_t k = 0; k < e->rank; k++)
        for (int64_t j = 0; j < in; j++)
            out[turn ? j * e->rank + k : k * in + j] = a[(e->part_of * e->rank + k) * width + first + j];
}

static void take_b(const qb_edit *e, const float *b, int64_t n_out, float *out, bool turn) {
    int64_t width = e->rank * e->n_experts, first = turn ? 0 : e->first_row;
    for (int64_t i = 0; i < n_out; i++)
        for (int64_t k = 0; k < e->rank; k++)
            out[turn ? k * n_out + i : i * e->rank + k] =
                b[(first + i) * width + k * e->n_experts + e->part_of];
}

static qb_status read_factors(const qb_merge_plan *p, const qb_edit *e, product *m) {
    float *a = NULL, *b = NULL;
    int64_t out = e->turned ? m->cols : m->rows, in = e->turned ? m->rows : m->cols;
    qb_status st;
    QB_TRY(st, read_part(p, e->a, &a));
    QB_TRY(st, read_part(p, e->b, &b));
    QB_TRY(st, qb_alloc((size_t)(m->rows * e->rank), sizeof *m->left, &m->left));
    QB_TRY(st, qb_alloc((size_t)(m->cols * e->rank), sizeof *m->right, &m->right));
    take_a(e, a, in, e->turned ? m->left : m->right, e->turned);
    take_b(e, b, out, e->turned ? m->right : m->left, e->turned);
out:
    qb_free(a);
    qb_free(b);
    return st;
}

/* ---- W + scale B A ---- */

static void add_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    const product *m = ctx;
    float *sum = m->sums + worker * m->cols;
    for (int64_t i = begin; i < end; i++) {
        float *row = m->values + i * m->cols;
        memset(sum, 0, (size_t)m->cols * sizeof *sum);
        for (int64_t k = 0; k < m->rank; k++) {
            float l = m->left[i * m->rank + k];
            const float *r = m->right + k * m->cols;
            for (int64_t j = 0; j < m->cols; j++) sum[j] += l * r[j];
        }
        for (int64_t j = 0; j < m->cols; j++) row[j] += sum[j] * m->scale;
    }
}

/* ---- DoRA: every output's weights get the length that the magnitude says ---- */

static void scale_rows(float *values, int64_t rows, int64_t cols, const float *magnitude) {
    for (int64_t i = 0; i < rows; i++) {
        float *row = values + i * cols;
        double sum = 0;
        for (int64_t j = 0; j < cols; j++) sum += (double)row[j] * (double)row[j];
        float factor = magnitude[i] / (float)sqrt(sum);
        for (int64_t j = 0; j < cols; j++) row[j] *= factor;
    }
}

static qb_status scale_columns(float *values, int64_t rows, int64_t cols, const float *magnitude) {
    double *sums;
    qb_status st = qb_alloc_zero((size_t)cols, sizeof *sums, &sums);
    if (st != QB_OK) return st;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            double v = (double)values[i * cols + j];
            sums[j] += v * v;
        }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) values[i * cols + j] *= magnitude[j] / (float)sqrt(sums[j]);
    qb_free(sums);
    return QB_OK;
}

static qb_status apply_lora(const qb_merge_plan *p, const qb_edit *e, int64_t rows, int64_t cols,
                            qb_threads *threads, float *values) {
    enum { ROWS_A_CHUNK = 16 };
    product m = {.rank = e->rank, .rows = rows, .cols = cols, .scale = (float)e->scale, .values = values};
    float *magnitude = NULL;
    qb_status st;
    QB_TRY(st, read_factors(p, e, &m));
    QB_TRY(st, qb_alloc((size_t)(qb_threads_count(threads) * cols), sizeof *m.sums, &m.sums));
    qb_parallel_for(threads, rows, ROWS_A_CHUNK, add_rows, &m);
    if (e->magnitude) {
        QB_TRY(st, read_part(p, e->magnitude, &magnitude));
        if (e->turned)
            st = scale_columns(values, rows, cols, magnitude);
        else
            scale_rows(values, rows, cols, magnitude);
    }
out:
    qb_free(m.left);
    qb_free(m.right);
    qb_free(m.sums);
    qb_free(magnitude);
    return st;
}

/* ---- the other kinds ---- */

static qb_status apply_plain(const qb_merge_plan *p, const qb_edit *e, int64_t n, int64_t cols,
                             float *values) {
    float *from;
    qb_status st = read_part(p, e->a, &from);
    if (st != QB_OK) return st;
    if (e->kind == QB_EDIT_WHOLE) memcpy(values, from, (size_t)n * sizeof *values);
    for (int64_t i = 0; e->kind == QB_EDIT_BIAS && i < n; i++) values[i] += from[i] * (float)e->scale;
    const float *row = from;
    for (const qb_json *j = qb_json_first(e->tokens); j; j = qb_json_next(j), row += cols)
        memcpy(values + (int64_t)qb_json_number(j) * cols, row, (size_t)cols * sizeof *values);
    qb_free(from);
    return QB_OK;
}

qb_status qb_merge_apply(const qb_merge_plan *p, const char *tensor, int64_t expert, int64_t rows,
                         int64_t cols, qb_threads *threads, float *values) {
    size_t n;
    const qb_edit *e = qb_merge_edits(p, tensor, expert, &n);
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < n; i++)
        st = e[i].kind == QB_EDIT_LORA ? apply_lora(p, &e[i], rows, cols, threads, values)
                                       : apply_plain(p, &e[i], rows * cols, cols, values);
    for (int64_t i = 0; st == QB_OK && n && i < rows * cols; i++)
        if (!isfinite(values[i]))
            st = qb_fail(QB_ERR_NUMERIC, "%.200s: element %" PRId64 " becomes %g: base or adapter is damaged",
                         tensor, i, (double)values[i]);
    return st;
}
