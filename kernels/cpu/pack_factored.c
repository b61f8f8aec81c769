/* Scales and offsets of GGUF's K types are a small whole number times a scale of 256 columns. The neutral
   form holds their products; here the factors are found again, so that a group takes a byte and not four. */
#include "kernels/cpu/pack_scales.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { OUTER_COLS = 256, MOST_GROUPS = OUTER_COLS / 16 };

typedef struct {
    const qb_packed *p;
    const qb_qweight *q;
    const float *values;
    int8_t *inner;
    float *outer;
    atomic_bool failed;
} factor_job;

/* value = odd * 2^exponent. */
static int64_t odd_part(float value, int *exponent) {
    int64_t m = (int64_t)ldexpf(frexpf(value, exponent), 24);
    *exponent -= 24;
    int zeros = m ? __builtin_ctzll((unsigned long long)m) : 0;
    *exponent += zeros;
    return m / ((int64_t)1 << zeros);
}

static uint32_t common(uint32_t a, uint32_t b) {
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The largest factor of values, and each value over it; false where one of these is no signed byte. */
static bool factor(const float values[MOST_GROUPS], float *outer, int8_t inner[MOST_GROUPS]) {
    int64_t part[MOST_GROUPS];
    int exponent[MOST_GROUPS], least = 0;
    bool any = false;
    for (int i = 0; i < MOST_GROUPS; i++) {
        if (!isfinite(values[i])) return false;
        part[i] = odd_part(values[i], &exponent[i]);
        if (!part[i]) continue;
        least = !any || exponent[i] < least ? exponent[i] : least;
        any = true;
    }
    uint32_t whole = 0;
    for (int i = 0; i < MOST_GROUPS; i++) {
        if (!part[i]) continue;
        if (exponent[i] - least > 7) return false;
        part[i] *= (int64_t)1 << (exponent[i] - least);
        whole = common(whole, (uint32_t)(part[i] < 0 ? -part[i] : part[i]));
    }
    *outer = any ? ldexpf((float)whole, least) : 0.0f;
    for (int i = 0; i < MOST_GROUPS; i++) {
        int64_t k = any ? part[i] / (int64_t)whole : 0;
        if (k < -128 || k > 127 || *outer * (float)k != values[i]) return false;
        inner[i] = (int8_t)k;
    }
    return true;
}

static void factor_blocks(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    factor_job *j = ctx;
    const qb_packed *p = j->p;
    const int64_t in_outer = p->outer_shift == 3 ? 8 : MOST_GROUPS, groups = j->q->n_groups;
    for (int64_t r = begin * QB_BLOCK_ROWS; r < end * QB_BLOCK_ROWS && r < p->rows; r++) {
        int64_t block = r / QB_BLOCK_ROWS, lane = r % QB_BLOCK_ROWS;
        for (int64_t o = 0; o < p->n_outer; o++) {
            int64_t g = o * in_outer, n = groups - g < in_outer ? groups - g : in_outer;
            float some[MOST_GROUPS] = {0};
            int8_t inner[MOST_GROUPS];
            memcpy(some, j->values + r * groups + g, (size_t)n * sizeof *some);
            if (!factor(some, j->outer + (block * p->n_outer + o) * QB_BLOCK_ROWS + lane, inner)) {
                atomic_store(&j->failed, true);
                return;
            }
            for (int64_t i = 0; i < n; i++)
                j->inner[(block * groups + g + i) * QB_BLOCK_ROWS + lane] = inner[i];
        }
    }
}

qb_status qb_pack_factored(qb_packed *p, const qb_qweight *q, const float *values, qb_threads *threads,
                           const qb_pack_memory *memory, void **inner, float **outer, bool *done) {
    *done = false;
    if (q->g_idx || (q->group_size != 16 && q->group_size != 32)) return QB_OK;
    p->outer_shift = q->group_size == 16 ? 4 : 3;
    p->n_outer = (q->n_groups + ((int64_t)1 << p->outer_shift) - 1) >> p->outer_shift;
    int64_t n_inner = p->blocks * q->n_groups * QB_BLOCK_ROWS,
            n_outer = p->blocks * p->n_outer * QB_BLOCK_ROWS;
    qb_status st = memory->alloc(memory->owner, n_inner, inner);
    if (st != QB_OK) return st;
    st = memory->alloc(memory->owner, n_outer * (int64_t)sizeof **outer, outer);
    if (st != QB_OK) return st; /* what there is goes with the weight */
    memset(*inner, 0, (size_t)n_inner);
    memset(*outer, 0, (size_t)n_outer * sizeof **outer);
    factor_job j = {.p = p, .q = q, .values = values, .inner = *inner, .outer = *outer};
    qb_parallel_for(threads, p->blocks, 16, factor_blocks, &j);
    *done = !atomic_load(&j.failed);
    if (*done) {
        p->bytes += n_inner + n_outer * (int64_t)sizeof **outer;
        return QB_OK;
    }
    memory->free(memory->owner, *inner);
    memory->free(memory->owner, *outer);
    *inner = NULL, *outer = NULL;
    return QB_OK;
}
