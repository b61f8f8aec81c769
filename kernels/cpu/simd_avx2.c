/* Compiled with -mavx2 -mfma -mf16c; called only on CPUs that have them. */
#define SIMD_TABLE qb_simd_avx2
#define SIMD_NAME  "avx2"
#include "kernels/cpu/simd_body.inc"
