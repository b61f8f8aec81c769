/* Checkpoints of random weights in the true shapes of a model, for speed, memory and quantization time
   without the download. A value depends on the seed, the tensor's name and its place alone. */
#include "base/rng.h"
#include "checkpoint/state.h"

#define MATHLIB_STANDALONE 1
#include <Rmath.h>
#include <stdio.h>
#include <string.h>

/* The normal distribution cut into equal shares, each drawn as its middle: 12 random bits a value, and a
   table that stays in the first-level cache. Its standard deviation is 0.9996 and its largest value 3.67. */
enum { SHARE_BITS = 12, SHARES = 1 << SHARE_BITS };

static void quantile_table(float stddev, uint16_t table[SHARES]) {
    for (int i = 0; i < SHARES / 2; i++) {
        float z = (float)qnorm(((double)i + 0.5) / SHARES, 0.0, 1.0, 1, 0) * stddev;
        table[i] = qb_f16_of_f32(z);
        table[SHARES - 1 - i] = qb_f16_of_f32(-z);
    }
}

enum { VALUES_A_DRAW = 4, GRAIN = 1 << 18 };

typedef struct {
    uint64_t seed;
    uint16_t table[SHARES];
    uint16_t *out;
} normal_run;

/* begin is a multiple of VALUES_A_DRAW. */
static void fill_range(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const normal_run *run = ctx;
    const uint16_t *table = run->table;
    uint16_t *out = run->out;
    int64_t i = begin;
    uint64_t counter = (uint64_t)(begin / VALUES_A_DRAW);
    for (; i + VALUES_A_DRAW <= end; i += VALUES_A_DRAW) {
        uint64_t bits = qb_noise_u64(run->seed, counter++);
        out[i] = table[bits & (SHARES - 1)];
        out[i + 1] = table[bits >> 16 & (SHARES - 1)];
        out[i + 2] = table[bits >> 32 & (SHARES - 1)];
        out[i + 3] = table[bits >> 48 & (SHARES - 1)];
    }
    for (uint64_t bits = qb_noise_u64(run->seed, counter); i < end; i++, bits >>= 16)
        out[i] = table[bits & (SHARES - 1)];
}

static void fill_normal(qb_threads *threads, uint64_t seed, float stddev, int64_t n, uint16_t *out) {
    normal_run run = {.seed = seed, .out = out};
    quantile_table(stddev, run.table);
    qb_parallel_for(threads, n, GRAIN, fill_range, &run);
}

static qb_status fill(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) {
    int64_t n = t->tensor.bytes / 2;
    uint16_t *values = out;
    if (t->tensor.n_dims == 1)
        for (int64_t i = 0; i < n; i++) values[i] = 0x3c00; /* 1.0: norms that change nothing */
    else
        fill_normal(ck->threads, qb_noise_u64(ck->seed, qb_name_hash(t->tensor.name)), t->stddev, n, values);
    return QB_OK;
}

static qb_status add_spec(qb_checkpoint *ck, const qb_tensor_spec *spec) {
    qb_tensor_state *t = &ck->tensors[ck->n_tensors];
    char shape[128];
    uint32_t position;
    if (!qb_tensor_name_ok(spec->name) || spec->n_dims < 1 || spec->n_dims > 3 || spec->shape[0] < 1 ||
        (spec->n_dims >= 2 && spec->shape[1] < 1) || (spec->n_dims == 3 && spec->shape[2] < 1) ||
        !(spec->stddev >= 0 && spec->stddev < 1000) ||
        !qb_shape_bytes(spec->n_dims, spec->shape, 16, &t->tensor.bytes))
        return qb_fail(QB_ERR_FORMAT,
                       "synthetic tensor %.96s: shape %s with standard deviation %g is not possible",
                       spec->name, qb_shape_text(spec->n_dims > 3 ? 3 : spec->n_dims, spec->shape, shape),
                       (double)spec->stddev);
    qb_status st = qb_arena_strdup(&ck->arena, spec->name, &t->tensor.name);
    if (st == QB_OK) st = qb_names_add(&ck->names, t->tensor.name, (uint32_t)ck->n_tensors, &position);
    if (st != QB_OK) return st;
    if (position != ck->n_tensors)
        return qb_fail(QB_ERR_FORMAT, "synthetic tensor %.96s is listed twice", spec->name);
    t->tensor.dtype = QB_DTYPE_F16;
    t->dtype_name = "F16";
    t->tensor.n_dims = spec->n_dims;
    for (int d = 0; d < spec->n_dims; d++) t->tensor.shape[d] = spec->shape[d];
    t->tensor.index = (uint32_t)ck->n_tensors++;
    t->stored_bytes = t->tensor.bytes;
    t->stddev = spec->stddev;
    t->fill = fill;
    return QB_OK;
}

qb_status qb_checkpoint_synthetic(const qb_json *config, const qb_tensor_spec *specs, size_t n, uint64_t seed,
                                  qb_checkpoint **out) {
    *out = NULL;
    qb_checkpoint *ck;
    qb_status st = qb_alloc_zero(1, sizeof *ck, &ck);
    if (st != QB_OK) return st;
    pthread_mutex_init(&ck->lock, NULL);
    pthread_cond_init(&ck->filled, NULL);
    ck->dir = "synthetic";
    ck->quantization_source = ck->config_source = "synthetic";
    ck->synthetic = true;
    ck->seed = seed;
    ck->config = config ? qb_json_copy(config) : qb_json_object();
    if (!ck->config) {
        st = qb_fail(QB_ERR_MEMORY, "out of memory");
        goto out;
    }
    QB_TRY(st, qb_alloc_zero(n, sizeof *ck->tensors, &ck->tensors));
    for (size_t i = 0; i < n; i++) QB_TRY(st, add_spec(ck, &specs[i]));
out:
    if (st != QB_OK)
        qb_checkpoint_close(ck);
    else
        *out = ck;
    return st;
}
