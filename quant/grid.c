#include "quant/grid.h"

#include "kernels/cpu/cpu.h"

#include <string.h>

extern const qb_grid_ops qb_grid_generic;
#if defined(__x86_64__)
extern const qb_grid_ops qb_grid_avx2, qb_grid_avx512;
#endif

const qb_grid_ops *qb_grid_ops_best(void) {
#if defined(__x86_64__)
    const char *simd = qb_cpu_simd();
    if (strcmp(simd, "avx512") == 0 || strcmp(simd, "amx-bf16") == 0) return &qb_grid_avx512;
    if (strcmp(simd, "avx2") == 0) return &qb_grid_avx2;
#endif
    return &qb_grid_generic;
}

/* Blocks of 16 columns: one cache line of each source row is read whole, sixteen panel rows are written
 * whole. */
void qb_grid_load(float *panel, const float *rows, int64_t ld, int64_t n_rows, int64_t n) {
    if (n_rows < QB_LANES) memset(panel, 0, (size_t)n * QB_LANES * sizeof *panel);
    for (int64_t k0 = 0; k0 < n; k0 += 16) {
        int64_t count = n - k0 < 16 ? n - k0 : 16;
        for (int64_t lane = 0; lane < n_rows; lane++) {
            const float *row = rows + lane * ld + k0;
            float *to = panel + k0 * QB_LANES + lane;
            for (int64_t k = 0; k < count; k++) to[k * QB_LANES] = row[k];
        }
    }
}
