/* Ops that look at one element at a time, and at no more of its row than a factor. */
#include "kernels/cpu/device.h"

#include <math.h>

typedef struct {
    const qb_simd *simd;
    const qb_activate_attr *attr;
    float *y;
    const float *x, *up;
    int64_t n;
} element_job;

/* ---- activations ---- */

static void activate_range(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const element_job *j = ctx;
    j->simd->activate(j->attr, j->y + begin, j->x + begin, j->up ? j->up + begin : NULL, end - begin);
}

static void activate_halves(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const element_job *j = ctx;
    for (int64_t t = begin; t < end; t++) {
        const float *gate = j->x + t * 2 * j->n;
        j->simd->activate(j->attr, j->y + t * j->n, gate, gate + j->n, j->n);
    }
}

enum { PARTED = 256 };

static void activate_interleaved(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const element_job *j = ctx;
    float gate[PARTED], up[PARTED];
    for (int64_t i = begin; i < end; i += PARTED) {
        int64_t n = end - i < PARTED ? end - i : PARTED;
        for (int64_t d = 0; d < n; d++) gate[d] = j->x[2 * (i + d)], up[d] = j->x[2 * (i + d) + 1];
        j->simd->activate(j->attr, j->y + i, gate, up, n);
    }
}

qb_status qb_cpu_activate(qb_device *dev, const qb_activate_attr *attr, float *y, const float *gate,
                          const float *up, int64_t T, int64_t n) {
    qb_status st = qb_step_check(&(qb_step){.kind = QB_STEP_ACTIVATE, .u.activate = *attr});
    if (st != QB_OK) return st;
    if ((up != NULL) != (attr->glu == QB_GLU_SEPARATE))
        return qb_fail(QB_ERR_INTERNAL, "an activation with%s a separate factor; its gating is %d",
                       up ? "" : "out", (int)attr->glu);
    element_job j = {cpu_of(dev)->simd, attr, y, gate, up, n};
    if (attr->glu == QB_GLU_HALVES)
        qb_parallel_for(dev->threads, T, qb_cpu_rows_a_task(n), activate_halves, &j);
    else
        qb_parallel_for(dev->threads, T * n, ELEMENTS_A_TASK,
                        attr->glu == QB_GLU_INTERLEAVED ? activate_interleaved : activate_range, &j);
    return QB_OK;
}

typedef struct {
    float *y;
    const float *x;
    float positive, negative, beta, eps;
} xielu_job;

static void xielu_range(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const xielu_job *j = ctx;
    for (int64_t i = begin; i < end; i++) {
        float x = j->x[i], below = x > j->eps ? j->eps : x; /* a NaN stays */
        j->y[i] =
            x > 0.0f ? j->positive * x * x + j->beta * x : (expm1f(below) - x) * j->negative + j->beta * x;
    }
}

/* log(1 + e^x), without overflow. */
static float softplus(float x) {
    return x > 20.0f ? x : (float)log1p(exp((double)x));
}

qb_status qb_cpu_xielu(qb_device *dev, float *y, const float *x, const float *numbers, int64_t n) {
    xielu_job j = {y, x, softplus(numbers[0]), numbers[2] + softplus(numbers[1]), numbers[2], numbers[3]};
    qb_parallel_for(dev->threads, n, ELEMENTS_A_TASK, xielu_range, &j);
    return QB_OK;
}

/* ---- sums ---- */

static void add_range(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const element_job *j = ctx;
    for (int64_t i = begin; i < end; i++) j->y[i] += j->x[i];
}

qb_status qb_cpu_add(qb_device *dev, float *x, const float *y, int64_t n) {
    element_job j = {.y = x, .x = y};
    qb_parallel_for(dev->threads, n, 4 * ELEMENTS_A_TASK, add_range, &j);
    return QB_OK;
}

static void add_bias_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const element_job *j = ctx;
    for (int64_t t = begin; t < end; t++)
        for (int64_t i = 0; i < j->n; i++) j->y[t * j->n + i] += j->x[i];
}

qb_status qb_cpu_add_bias(qb_device *dev, float *x, const float *bias, int64_t T, int64_t n) {
    element_job j = {.y = x, .x = bias, .n = n};
    qb_parallel_for(dev->threads, T, qb_cpu_rows_a_task(n), add_bias_rows, &j);
    return QB_OK;
}

/* ---- maps ---- */

typedef struct {
    const qb_simd *simd;
    qb_step_kind kind;
    float value, *x;
} map_job;

static void map_range(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const map_job *j = ctx;
    float *x = j->x, v = j->value;
    if (j->kind == QB_STEP_SOFTCAP) {
        j->simd->softcap(x + begin, end - begin, v);
        return;
    }
    for (int64_t i = begin; i < end; i++)
        if (j->kind == QB_STEP_SCALE)
            x[i] *= v;
        else /* a NaN compares with nothing and stays */
            x[i] = x[i] < -v ? -v : x[i] > v ? v : x[i];
}

qb_status qb_cpu_map(qb_device *dev, qb_step_kind kind, float value, float *x, int64_t n) {
    if (kind != QB_STEP_SCALE && kind != QB_STEP_CLAMP && kind != QB_STEP_SOFTCAP)
        return qb_fail(QB_ERR_INTERNAL, "a map of step %s", qb_step_name(kind));
    map_job j = {cpu_of(dev)->simd, kind, value, x};
    qb_parallel_for(dev->threads, n, ELEMENTS_A_TASK, map_range, &j);
    return QB_OK;
}

/* ---- a factor a row ---- */

static void gate_range(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const element_job *j = ctx;
    for (int64_t t = begin; t < end; t++) {
        float factor = 1.0f / (1.0f + expf(-j->x[t]));
        for (int64_t i = 0; i < j->n; i++) j->y[t * j->n + i] *= factor;
    }
}

qb_status qb_cpu_gate_rows(qb_device *dev, float *x, const float *gate, int64_t T, int64_t n) {
    element_job j = {.y = x, .x = gate, .n = n};
    qb_parallel_for(dev->threads, T, qb_cpu_rows_a_task(n), gate_range, &j);
    return QB_OK;
}

typedef struct {
    const qb_temperature_attr *attr;
    float *x;
    int64_t n_tok, first, n;
} temperature_job;

static void temperature_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const temperature_job *j = ctx;
    for (int64_t row = begin; row < end; row++) {
        float factor = qb_temperature_factor(j->attr, j->first + row % j->n_tok);
        for (int64_t i = 0; i < j->n; i++) j->x[row * j->n + i] *= factor;
    }
}

qb_status qb_cpu_temperature(qb_device *dev, const qb_temperature_attr *attr, float *x, int64_t n_seq,
                             int64_t n_tok, int64_t first, int64_t n) {
    temperature_job j = {attr, x, n_tok, first, n};
    qb_parallel_for(dev->threads, n_seq * n_tok, qb_cpu_rows_a_task(n), temperature_rows, &j);
    return QB_OK;
}
