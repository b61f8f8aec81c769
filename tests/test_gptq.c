/* GPTQ and RTN against the outputs of the paper's own code (github.com/IST-DASLab/gptq at 2d65066) in
   golden/gptq, and against the toy problem of docs/methods.md. */
#include "tests/method_support.h"
#include "tests/support.h"

#include "base/json.h"
#include "kernels/cpu/cpu.h"
#include "quant/hessian.h"
#include "quant/method.h"

#include <dirent.h>
#include <math.h>

/* A safetensors file whole: enough of a reader for trusted golden files. */
typedef struct {
    char *bytes;
    qb_json *header;
    const char *data;
} golden;

static golden golden_open(const char *path) {
    golden g = {0};
    size_t size;
    assert_ok(qb_file_read(path, 1 << 24, &g.bytes, &size));
    uint64_t n;
    memcpy(&n, g.bytes, sizeof n);
    assert_true(n + 8 <= size);
    assert_ok(qb_json_parse(g.bytes + 8, (size_t)n, path, &g.header));
    g.data = g.bytes + 8 + n;
    return g;
}

static void golden_close(golden *g) {
    qb_json_free(g->header);
    qb_free(g->bytes);
}

/* A copy, aligned; NULL when the file has no such tensor. */
static float *golden_tensor(const golden *g, const char *name, size_t count) {
    const qb_json *t = qb_json_get(g->header, name);
    if (!t) return NULL;
    const qb_json *offset = qb_json_first(qb_json_get(t, "data_offsets"));
    size_t begin = (size_t)qb_json_number(offset), end = (size_t)qb_json_number(qb_json_next(offset));
    assert_int_equal(end - begin, count * sizeof(float));
    float *out;
    assert_ok(qb_alloc(count, sizeof *out, &out));
    memcpy(out, g->data + begin, end - begin);
    return out;
}

static double golden_number(const golden *g, const char *key) {
    const char *text = qb_json_string(qb_json_get(qb_json_get(g->header, "__metadata__"), key));
    assert_non_null(text);
    return atof(text);
}

enum { ROWS = 48, COLS = 256, SAMPLES = 4, TOKENS = 96 };

typedef struct {
    float *weight, *inputs, *hessian;
} layer;

static layer layer_open(void) {
    golden g = golden_open(shared_path("golden/gptq/layer.safetensors"));
    layer l = {golden_tensor(&g, "weight", ROWS * COLS), golden_tensor(&g, "inputs", SAMPLES * TOKENS * COLS),
               golden_tensor(&g, "hessian", COLS * COLS)};
    golden_close(&g);
    return l;
}

static void layer_close(layer *l) {
    qb_free(l->weight);
    qb_free(l->inputs);
    qb_free(l->hessian);
}

static float *copy_of(const float *x, size_t n) {
    float *out;
    assert_ok(qb_alloc(n, sizeof *out, &out));
    memcpy(out, x, n * sizeof *out);
    return out;
}

static qb_quant_config config_of(const golden *g) {
    return (qb_quant_config){
        .bits = (int64_t)golden_number(g, "bits"),
        .group_size = (int64_t)golden_number(g, "group_size"),
        .symmetric = golden_number(g, "sym") != 0,
        .mse = golden_number(g, "mse") != 0,
        .act_order = golden_number(g, "desc_act") != 0,
        .static_groups = golden_number(g, "static_groups") != 0,
        .damp_percent = golden_number(g, "percdamp"),
        .block_columns = (int64_t)golden_number(g, "block_size"),
    };
}

/* ||X (W - Q)^T||^2 over the calibration inputs, in float64. */
static double output_error(const layer *l, const float *q) {
    double total = 0;
    for (int t = 0; t < SAMPLES * TOKENS; t++)
        for (int r = 0; r < ROWS; r++) {
            double y = 0;
            for (int k = 0; k < COLS; k++)
                y += (double)l->inputs[t * COLS + k] *
                     ((double)l->weight[r * COLS + k] - (double)q[r * COLS + k]);
            total += y * y;
        }
    return total;
}

/* Column of each place in quantization order. */
static int column_at(const qb_hessian *h, int place) {
    return h->perm ? (int)h->perm[place] : place;
}

static float scale_of(const qb_qweight *q, int row, int column) {
    return q->scales[row * q->n_groups + (q->g_idx ? q->g_idx[column] : column / q->group_size)];
}

/* The upper factor of the inverse of the permuted, damped Hessian in float64, by Gauss-Jordan and a plain
   Cholesky: another road than the one the code takes. */
static double *exact_factor(const qb_hessian *h) {
    int n = (int)h->n;
    double *a, *inverse, mean = 0;
    assert_ok(qb_alloc((size_t)n * (size_t)n, sizeof *a, &a));
    assert_ok(qb_alloc_zero((size_t)n * (size_t)n, sizeof *inverse, &inverse));
    for (int i = 0; i < n; i++) mean += (double)h->h[i * n + i] / n;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) a[i * n + j] = (double)h->h[column_at(h, i) * n + column_at(h, j)];
        a[i * n + i] += h->damp_percent * mean;
        inverse[i * n + i] = 1;
    }
    for (int p = 0; p < n; p++) {
        double pivot = 1 / a[p * n + p];
        for (int j = 0; j < n; j++) {
            a[p * n + j] *= pivot;
            inverse[p * n + j] *= pivot;
        }
        for (int i = 0; i < n; i++) {
            double f = a[i * n + p];
            if (i == p || f == 0) continue;
            for (int j = 0; j < n; j++) {
                a[i * n + j] -= f * a[p * n + j];
                inverse[i * n + j] -= f * inverse[p * n + j];
            }
        }
    }
    for (int i = 0; i < n; i++) /* inverse = U^T U, row by row, into a */
        for (int j = 0; j < n; j++) {
            double sum = inverse[i * n + j];
            for (int k = 0; k < i && k <= j; k++) sum -= a[k * n + i] * a[k * n + j];
            a[i * n + j] = j < i ? 0 : j == i ? sqrt(sum) : sum / a[i * n + i];
        }
    qb_free(inverse);
    return a;
}

/* Replays a row in float64 up to the place where our code and theirs part, feeding back the codes on which
   both agree, and returns how far that weight stands from the midpoint of the two codes, in steps of the
   grid. */
static double distance_to_tie(const layer *l, const qb_hessian *h, const qb_qweight *q, const float *ours,
                              const float *theirs, int row) {
    double *u = exact_factor(h), w[COLS], distance = 1e9;
    for (int i = 0; i < COLS; i++)
        w[i] = h->dead[column_at(h, i)] ? 0 : (double)l->weight[row * COLS + column_at(h, i)];
    for (int i = 0; i < COLS; i++) {
        int k = row * COLS + column_at(h, i);
        double scale = (double)scale_of(q, row, column_at(h, i));
        if (fabs((double)ours[k] - (double)theirs[k]) > 1e-3 * scale) {
            double middle = ((double)ours[k] + (double)theirs[k]) / 2;
            if (fabs((double)ours[k] - (double)theirs[k]) < 1.001 * scale)
                distance = fabs(w[i] - middle) / scale;
            break;
        }
        double error = (w[i] - (double)ours[k]) / u[i * COLS + i];
        for (int j = i; j < COLS; j++) w[j] -= error * u[i * COLS + j];
    }
    qb_free(u);
    return distance;
}

static bool row_differs(const qb_qweight *q, const float *ours, const float *theirs, int row) {
    for (int k = 0; k < COLS; k++)
        if (fabsf(ours[row * COLS + k] - theirs[row * COLS + k]) > 1e-3F * scale_of(q, row, k)) return true;
    return false;
}

typedef struct {
    int cases, rows, differing;
    double worst_tie, worst_error;
} tally;

/* The report's error is through the Hessian the sum over the inputs, of the weight with the scales that a
   file holds. */
static void check_reported(const layer *l, const qb_qweight *q, double error, const char *path) {
    qb_qweight stored = *q;
    float *back = copy_of(l->weight, ROWS * COLS);
    stored.scales = copy_of(q->scales, (size_t)(ROWS * q->n_groups));
    assert_ok(qb_qweight_round_scales(&stored));
    qb_qweight_dequantize(&stored, back);
    double expected = output_error(l, back), reported = error * SAMPLES / 2;
    if (fabs(reported / expected - 1) > 1e-5)
        fail_msg("%s: reported error %.9g, expected %.9g", path, reported, expected);
    qb_free(stored.scales);
    qb_free(back);
}

static void check_case(const layer *l, const char *path, tally *t) {
    golden g = golden_open(path);
    qb_quant_config config = config_of(&g);
    float *theirs = golden_tensor(&g, "gptq.dequantized", ROWS * COLS),
          *weight = copy_of(l->weight, ROWS * COLS);
    float *ours = copy_of(l->weight, ROWS * COLS);
    qb_hessian h = {.n = COLS, .n_samples = SAMPLES, .h = copy_of(l->hessian, COLS * COLS)};
    assert_ok(qb_hessian_prepare("golden", &h));
    assert_int_equal(h.n_dead, 1);
    qb_quant_job job = {"golden", ROWS, COLS, weight, QB_DTYPE_F32, &h, &config, NULL, NULL, NULL};
    qb_qweight q;
    qb_module_report report = {0};
    assert_ok(quantize_alone("gptq", &job, &q, &report));
    assert_null(report.fallback);
    check_reported(l, &q, report.error, path);
    qb_qweight_dequantize(&q, ours);
    int differing = 0;
    for (int r = 0; r < ROWS; r++) {
        if (!row_differs(&q, ours, theirs, r)) continue;
        double distance = distance_to_tie(l, &h, &q, ours, theirs, r);
        if (distance > 1e-4) fail_msg("%s: row %d parts %g steps from a tie", path, r, distance);
        t->worst_tie = fmax(t->worst_tie, distance);
        differing++;
        memcpy(ours + r * COLS, theirs + r * COLS,
               COLS * sizeof *ours); /* the rest of the row follows from the tie */
    }
    double expected = golden_number(&g, "output_error"), found = output_error(l, ours);
    t->worst_error = fmax(t->worst_error, fabs(found / expected - 1));
    if (fabs(found / expected - 1) > 1e-5)
        fail_msg("%s: output error %g, expected %g", path, found, expected);
    t->cases++;
    t->rows += ROWS;
    t->differing += differing;
    qb_qweight_free(&q);
    qb_hessian_free(&h);
    qb_free(theirs);
    qb_free(weight);
    qb_free(ours);
    golden_close(&g);
}

/* Calls fn for every golden case. */
static void each_case(void (*fn)(const layer *, const char *, tally *), tally *t) {
    const char *dir = shared_path("golden/gptq");
    layer l = layer_open();
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (strncmp(e->d_name, "gptq_", 5) != 0) continue;
        char *path = qb_path_join(dir, e->d_name);
        fn(&l, path, t);
        qb_free(path);
    }
    closedir(d);
    layer_close(&l);
}

static void test_gptq__matches_the_papers_code(void **state) {
    (void)state;
    tally t = {0};
    each_case(check_case, &t);
    print_message(
        "%d cases, %d of %d rows part at a tie (at most %.2g steps from it), output error within %.2g\n",
        t.cases, t.differing, t.rows, t.worst_tie, t.worst_error);
    assert_int_equal(t.cases, 82);
    assert_true(t.differing <= 8);
}

/* What the MSE search minimises. */
static double search_error(const float *w, size_t n, double scale, double zero, int levels) {
    double sum = 0;
    for (size_t k = 0; k < n; k++) {
        double q = fmin(fmax(rint((double)w[k] / scale) + zero, 0), levels - 1);
        sum += pow(fabs(scale * (q - zero) - (double)w[k]), 2.4);
    }
    return sum;
}

/* RTN stands beside the cases without act-order. The paper's code took the grid of the weight with its dead
 * column. */
static void check_rtn(const layer *l, const char *path, tally *t) {
    golden g = golden_open(path);
    qb_quant_config config = config_of(&g);
    size_t groups = config.group_size == -1 ? 1 : (size_t)(COLS / config.group_size);
    float *theirs = golden_tensor(&g, "rtn.dequantized", ROWS * COLS);
    if (theirs) {
        float *scales = golden_tensor(&g, "rtn.scales", ROWS * groups);
        float *zeros = golden_tensor(&g, "rtn.zeros", ROWS * groups);
        float *weight = copy_of(l->weight, ROWS * COLS), *ours = copy_of(l->weight, ROWS * COLS);
        qb_quant_job job = {"golden", ROWS, COLS, weight, QB_DTYPE_F32, NULL, &config, NULL, NULL, NULL};
        qb_qweight q;
        qb_module_report report = {0};
        assert_ok(quantize_alone("rtn", &job, &q, &report));
        qb_qweight_dequantize(&q, ours);
        size_t group = COLS / groups;
        for (size_t i = 0; i < ROWS * groups; i++) {
            const float *w = l->weight + i * group;
            bool same = q.scales[i] == scales[i] && (float)q.zeros[i] == zeros[i];
            if (!same && !config.mse) fail_msg("%s: grid %zu differs", path, i);
            if (!same) { /* two shrunken ranges may be equally good */
                double a = search_error(w, group, (double)q.scales[i], q.zeros[i], 1 << q.bits);
                double b = search_error(w, group, (double)scales[i], (double)zeros[i], 1 << q.bits);
                t->worst_tie = fmax(t->worst_tie, fabs(a / b - 1));
                if (fabs(a / b - 1) > 1e-6)
                    fail_msg("%s: grid %zu has error %.9g, expected %.9g", path, i, a, b);
                t->differing++;
            }
            t->rows++;
            for (size_t k = i * group; same && k < (i + 1) * group; k++)
                if (ours[k] != theirs[k])
                    fail_msg("%s: weight %zu is %.9g, expected %.9g", path, k, (double)ours[k],
                             (double)theirs[k]);
        }
        t->cases++;
        qb_qweight_free(&q);
        qb_free(theirs);
        qb_free(scales);
        qb_free(zeros);
        qb_free(weight);
        qb_free(ours);
    }
    golden_close(&g);
}

static void test_rtn__matches_the_papers_quantizer(void **state) {
    (void)state;
    tally t = {0};
    each_case(check_rtn, &t);
    print_message("%d cases, %d of %d grids are an equally good choice (error within %.2g)\n", t.cases,
                  t.differing, t.rows, t.worst_tie);
    assert_int_equal(t.cases, 42);
    assert_true(t.differing <= 20);
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gptq__matches_the_papers_code),
        cmocka_unit_test(test_rtn__matches_the_papers_quantizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
