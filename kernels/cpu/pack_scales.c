#include "kernels/cpu/pack_scales.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* What a group has of each row, [rows, n_groups] of `size` bytes, to [block][group][16]. */
typedef struct {
    const qb_packed *p;
    const void *from;
    int64_t size; /* 1 or 4 */
    void *to;
    atomic_bool inexact; /* put_halves: one is not a float16 */
} group_job;

static int64_t place_of(const qb_packed *p, int64_t row, int64_t group) {
    return (row / QB_BLOCK_ROWS * p->n_groups + group) * QB_BLOCK_ROWS + row % QB_BLOCK_ROWS;
}

/* A block's rows side by side, so that lines are written whole. */
static inline __attribute__((always_inline)) void put_block_groups(const group_job *j, int64_t block,
                                                                   size_t size) {
    const int64_t n = j->p->n_groups, first = block * QB_BLOCK_ROWS;
    const int64_t lanes = j->p->rows - first < QB_BLOCK_ROWS ? j->p->rows - first : QB_BLOCK_ROWS;
    const uint8_t *from = (const uint8_t *)j->from + (size_t)(first * n) * size;
    uint8_t *to = (uint8_t *)j->to + (size_t)(first * n) * size;
    for (int64_t g = 0; g < n; g++, from += size)
        for (int64_t lane = 0; lane < lanes; lane++)
            memcpy(to + (size_t)(g * QB_BLOCK_ROWS + lane) * size, from + (size_t)(lane * n) * size, size);
}

static void put_groups(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const group_job *j = ctx;
    for (int64_t block = begin; block < end; block++) {
        if (j->size == 1)
            put_block_groups(j, block, 1);
        else
            put_block_groups(j, block, 4);
    }
}

/* The same of float32 that become float16. */
static void put_halves(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    enum { PIECE = 64 };
    group_job *j = ctx;
    const int64_t n = j->p->n_groups, rows = j->p->rows;
    uint16_t halves[PIECE], *to = j->to;
    float back[PIECE];
    for (int64_t r = begin * QB_BLOCK_ROWS; r < end * QB_BLOCK_ROWS && r < rows; r++)
        for (int64_t g = 0; g < n; g += PIECE) {
            const float *from = (const float *)j->from + r * n + g;
            const int64_t count = n - g < PIECE ? n - g : PIECE;
            qb_f16_of_f32_many(from, count, halves);
            qb_f32_of_f16_many(halves, count, back);
            bool exact = true;
            for (int64_t i = 0; i < count; i++) exact &= back[i] == from[i];
            if (!exact) atomic_store(&j->inexact, true);
            for (int64_t i = 0; i < count; i++) to[place_of(j->p, r, g + i)] = halves[i];
        }
}

typedef struct {
    const qb_packed *p;
    const qb_qweight *q;
} zeros_job;

static void put_zeros(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const zeros_job *j = ctx;
    const qb_packed *p = j->p;
    const qb_qweight *q = j->q;
    for (int64_t r = begin * QB_BLOCK_ROWS; r < end * QB_BLOCK_ROWS && r < q->rows; r++)
        for (int64_t g = 0; g < q->n_groups; g++) {
            int64_t at = r / QB_BLOCK_ROWS * p->n_groups + g, bit = r % QB_BLOCK_ROWS * p->bits;
            unsigned zero = (unsigned)(q->zeros[r * q->n_groups + g] + p->lift) << (bit & 7);
            uint8_t *to = p->zeros + at * 2 * p->bits + (bit >> 3);
            to[0] = (uint8_t)(to[0] | zero);
            if (zero >> 8) to[1] = (uint8_t)(to[1] | zero >> 8); /* a 3-bit zero may straddle two bytes */
        }
}

static qb_status pack_zeros(qb_packed *p, const qb_qweight *q, qb_threads *threads,
                            const qb_pack_memory *memory) {
    int64_t bytes = p->blocks * p->n_groups * 2 * p->bits;
    qb_status st = memory->alloc(memory->owner, bytes + 8, &p->zeros); /* read in words of eight bytes */
    if (st != QB_OK) return st;
    memset(p->zeros, 0, (size_t)bytes + 8);
    p->bytes += bytes;
    qb_parallel_for(threads, p->blocks, 4, put_zeros, &(zeros_job){p, q});
    return QB_OK;
}

/* [blocks][n_groups][16], with zeros where rows are missing. */
static qb_status alloc_groups(const qb_packed *p, int64_t size, const qb_pack_memory *memory, void **out) {
    const int64_t bytes = p->blocks * p->n_groups * QB_BLOCK_ROWS * size;
    qb_status st = memory->alloc(memory->owner, bytes, out);
    if (st == QB_OK && p->rows % QB_BLOCK_ROWS) {
        int64_t last = (p->blocks - 1) * p->n_groups * QB_BLOCK_ROWS * size;
        memset((uint8_t *)*out + last, 0, (size_t)(bytes - last));
    }
    return st;
}

/* Group values as float16 where that holds them all exactly, or as they are. */
static qb_status pack_values(qb_packed *p, qb_threads *threads, const qb_pack_memory *memory,
                             const float *values, void **out, bool *f16) {
    group_job j = {.p = p, .from = values, .size = sizeof *values};
    qb_status st = alloc_groups(p, sizeof(uint16_t), memory, out);
    if (st != QB_OK) return st;
    j.to = *out;
    qb_parallel_for(threads, p->blocks, 4, put_halves, &j);
    *f16 = !atomic_load(&j.inexact);
    if (!*f16) {
        memory->free(memory->owner, *out);
        if ((st = alloc_groups(p, sizeof *values, memory, out)) != QB_OK) return st;
        j.to = *out;
        qb_parallel_for(threads, p->blocks, 4, put_groups, &j);
    }
    p->bytes += p->blocks * p->n_groups * QB_BLOCK_ROWS * (*f16 ? 2 : 4);
    return QB_OK;
}

qb_status qb_pack_affine_scales(qb_packed *p, const qb_qweight *q, qb_threads *threads,
                                const qb_pack_memory *memory) {
    bool f16;
    qb_status st = pack_values(p, threads, memory, q->scales, &p->scales, &f16);
    if (st != QB_OK) return st;
    p->scale_kind = f16 ? QB_SCALES_F16 : QB_SCALES_F32;
    if (q->offsets) return pack_values(p, threads, memory, q->offsets, &p->offsets, &p->offsets_f16);
    return qb_qweight_zeros_in_middle(q) ? QB_OK : pack_zeros(p, q, threads, memory);
}

/* A file may bring a map of its own instead of bitsandbytes' usual one. Then the 8-bit codes cannot be
   decoded in the kernel and the float32 absmax that the reader made of them is kept instead, as its bytes
   will show. */
static bool usual_map(const qb_qweight *q) {
    const float *map = qb_dynamic_map();
    for (int64_t b = 0; b < q->n_blocks; b++) {
        float inner = map[q->absmax_codes[b]] * q->nested_absmax[b / QB_NESTED_BLOCK];
        float error = fabsf(inner + q->nested_offset - q->absmax[b]);
        if (!(error <= 1e-6f * (fabsf(inner) + fabsf(q->nested_offset)))) return false;
    }
    return true;
}

static qb_status pack_nested(qb_packed *p, const qb_qweight *q, int64_t entries,
                             const qb_pack_memory *memory) {
    int64_t real = (q->n_blocks + QB_NESTED_BLOCK - 1) / QB_NESTED_BLOCK, n = entries / QB_NESTED_BLOCK + 1;
    qb_status st = memory->alloc(memory->owner, n * 4, &p->nested);
    if (st != QB_OK) return st;
    memset(p->nested, 0, (size_t)n * 4);
    memcpy(p->nested, q->nested_absmax, (size_t)real * 4);
    p->bytes += real * 4;
    p->nested_offset = q->nested_offset;
    p->map = qb_dynamic_map();
    return QB_OK;
}

qb_status qb_pack_absmax(qb_packed *p, const qb_qweight *q, qb_threads *threads,
                         const qb_pack_memory *memory) {
    qb_status st = QB_OK;
    bool nested = q->double_quant && usual_map(q);
    bool aligned = q->cols % q->block_size == 0 && !p->by_row;
    int64_t size = nested ? 1 : 4;
    for (p->block_shift = 0; 1LL << p->block_shift < q->block_size;) p->block_shift++;
    /* Rows that pad the last sixteen read past the real entries: their places exist and are zero. */
    int64_t entries = p->blocks * QB_BLOCK_ROWS * (aligned ? p->n_groups : q->cols);
    if (!aligned) entries = (entries >> p->block_shift) + 1;
    p->scale_kind = aligned ? (nested ? QB_SCALES_NESTED : QB_SCALES_F32)
                            : (nested ? QB_SCALES_FLAT_NESTED : QB_SCALES_FLAT);
    QB_TRY(st, memory->alloc(memory->owner, entries * size, &p->scales));
    p->bytes += q->n_blocks * size;
    const uint8_t *from = nested ? q->absmax_codes : (const uint8_t *)q->absmax;
    uint8_t *to = p->scales;
    memset(to, 0, (size_t)(entries * size));
    if (!aligned) {
        memcpy(to, from, (size_t)(q->n_blocks * size));
    } else {
        group_job j = {.p = p, .from = from, .size = size, .to = to};
        qb_parallel_for(threads, p->blocks, 4, put_groups, &j);
    }
    if (nested) QB_TRY(st, pack_nested(p, q, entries, memory));
out:
    return st;
}

float qb_packed_absmax(const qb_packed *p, int64_t index) {
    if (p->scale_kind == QB_SCALES_FLAT) return ((const float *)p->scales)[index];
    return p->map[((const uint8_t *)p->scales)[index]] * p->nested[index / QB_NESTED_BLOCK] +
           p->nested_offset;
}
