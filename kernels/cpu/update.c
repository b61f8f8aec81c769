/* GPTQ's updates behind each block of columns: y += A^T U, A the errors of a few rows, U[block][columns
   behind it] of one triangular matrix for all rows. By tiles of bfloat16 where there are, U's laid out once;
   else one single-threaded SGEMM each. */
#include "kernels/cpu/gemm.h"

#include "base/memory.h"
#include "base/whole.h"

#include <cblas.h>
#include <string.h>

enum { PAIR = 2 * QB_BF16_TILE, COLS = QB_BF16_TILE_COLS, PASS_PAIRS = 8 };
/* Fewer rows or a shallower block: SGEMM. */
enum { LEAST_ROWS = 32, LEAST_BLOCK = 32 };

struct qb_updates {
    const qb_bf16_tiles *tiles; /* NULL: SGEMM */
    const float *u;
    int64_t n, block;
    uint16_t *laid; /* [block][pair of columns behind it][depth][qb_bf16_pair(3)] */
    float *workers; /* [worker]: sums of tiles, left tiles */
    int64_t share;  /* floats of a worker */
};

static int64_t pairs_behind(int64_t n, int64_t block, int64_t b) {
    return qb_pieces(n - qb_least(n, (b + 1) * block), PAIR);
}
static int64_t pair_elements(int64_t block) {
    return qb_pieces(block, COLS) * qb_bf16_pair(QB_BF16_PARTS);
}
static int64_t share_of(int64_t block, int64_t most_rows) {
    const int64_t lefts = qb_pieces(most_rows, PAIR);
    return PASS_PAIRS * lefts * PAIR * PAIR + lefts * pair_elements(block) / 2;
}
/* Pairs that lie before block b's, or of all b blocks. */
static int64_t pairs_before(int64_t n, int64_t block, int64_t b) {
    int64_t pairs = 0;
    for (int64_t i = 0; i < b; i++) pairs += pairs_behind(n, block, i);
    return pairs;
}
static int64_t laid_elements(int64_t n, int64_t block) {
    return pairs_before(n, block, qb_pieces(n, block)) * pair_elements(block);
}

int64_t qb_updates_bytes(int threads, int64_t n, int64_t block, int64_t most_rows) {
    if (!qb_simd_chosen()->bf16 || block < LEAST_BLOCK) return 0;
    return laid_elements(n, block) * 2 + threads * share_of(block, most_rows) * 4;
}

/* Blocks are laid by pairs of columns, the first block's first. */
static void lay_pairs(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const qb_updates *q = ctx;
    int64_t b = 0, first = 0;
    for (int64_t i = begin; i < end; i++) {
        while (i - first >= pairs_behind(q->n, q->block, b)) first += pairs_behind(q->n, q->block, b++);
        const int64_t k = b * q->block, col = k + q->block + (i - first) * PAIR;
        const qb_bf16_source part = {.numbers = q->u + k * q->n + col,
                                     .dtype = QB_DTYPE_F32,
                                     .across = true,
                                     .stride = q->n,
                                     .rows = qb_least(PAIR, q->n - col),
                                     .cols = q->block};
        q->tiles->lay_right(&part, q->laid + i * pair_elements(q->block));
    }
}

qb_status qb_updates_create_by(const qb_bf16_tiles *tiles, qb_threads *threads, const float *u, int64_t n,
                               int64_t block, int64_t most_rows, qb_updates **out) {
    qb_updates *q;
    qb_status st;
    *out = NULL;
    qb_blas_single_thread();
    QB_TRY(st, qb_alloc_zero(1, sizeof *q, &q));
    *out = q;
    q->u = u, q->n = n, q->block = block;
    if (!tiles || block < LEAST_BLOCK) goto out;
    q->tiles = tiles, q->share = share_of(block, most_rows);
    QB_TRY(st, qb_alloc((size_t)laid_elements(n, block), sizeof *q->laid, &q->laid));
    qb_ask_huge_pages(q->laid, laid_elements(n, block) * 2);
    QB_TRY(st, qb_alloc((size_t)(qb_threads_count(threads) * q->share), sizeof *q->workers, &q->workers));
    qb_parallel_for(threads, pairs_before(n, block, qb_pieces(n, block)), 8, lay_pairs, q);
out:
    if (st != QB_OK) {
        qb_updates_free(*out);
        *out = NULL;
    }
    return st;
}

qb_status qb_updates_create(qb_threads *threads, const float *u, int64_t n, int64_t block, int64_t most_rows,
                            qb_updates **out) {
    return qb_updates_create_by(qb_simd_chosen()->bf16, threads, u, n, block, most_rows, out);
}

void qb_updates_free(qb_updates *q) {
    if (!q) return;
    qb_free(q->laid), qb_free(q->workers);
    qb_free(q);
}

static void by_sgemm(const qb_updates *q, int64_t k, const float *a, int64_t lda, int64_t rows, int64_t col,
                     int64_t cols, float *y, int64_t ldy) {
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)rows, (int)cols, (int)q->block, 1.0f, a,
                (int)lda, q->u + k * q->n + col, (int)q->n, 1.0f, y, (int)ldy);
}

void qb_updates_add(const qb_updates *q, int worker, int64_t b, const float *a, int64_t lda, int64_t rows,
                    float *y, int64_t ldy) {
    const int64_t k = b * q->block, behind = k + q->block;
    if (behind >= q->n) return;
    if (!q->tiles || rows < LEAST_ROWS) {
        by_sgemm(q, k, a, lda, rows, behind, q->n - behind, y, ldy);
        return;
    }
    const int64_t lefts = qb_pieces(rows, PAIR), of_pair = pair_elements(q->block);
    const uint16_t *right = q->laid + pairs_before(q->n, q->block, b) * of_pair;
    float *sums = q->workers + worker * q->share;
    uint16_t *left = (uint16_t *)(void *)(sums + PASS_PAIRS * lefts * PAIR * PAIR);
    for (int64_t l = 0; l < lefts; l++) {
        const qb_bf16_source part = {.numbers = a + l * PAIR,
                                     .dtype = QB_DTYPE_F32,
                                     .across = true,
                                     .stride = lda,
                                     .rows = qb_least(PAIR, rows - l * PAIR),
                                     .cols = q->block};
        q->tiles->lay_left(&part, left + l * of_pair);
    }
    for (int64_t p = 0; p < pairs_behind(q->n, q->block, b); p += PASS_PAIRS) {
        const int64_t rights = qb_least(PASS_PAIRS, pairs_behind(q->n, q->block, b) - p);
        q->tiles->multiply(QB_BF16_PARTS, QB_BF16_PARTS, qb_pieces(q->block, COLS), left, lefts,
                           right + p * of_pair, rights, of_pair, true, sums);
        for (int64_t i = 0; i < lefts * rights; i++) {
            const int64_t r = i % lefts * PAIR, c = (p + i / lefts) * PAIR;
            const int64_t some = qb_least(PAIR, rows - r), width = qb_least(PAIR, q->n - behind - c);
            float *to = y + r * ldy + c;
            if (!q->tiles->add_rows(sums + i * PAIR * PAIR, some, width, to, ldy))
                by_sgemm(q, k, a + r, lda, some, behind + c, width, to, ldy);
        }
    }
}
