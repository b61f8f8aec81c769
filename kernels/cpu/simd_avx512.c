/* Compiled for AVX-512 F, BW, DQ and VL; called only on CPUs that have them. */
#define SIMD_TABLE qb_simd_avx512
#define SIMD_NAME  "avx512"
#include "kernels/cpu/simd_body.inc"
