/* NEON, which every aarch64 has. */
#define SIMD_TABLE qb_simd_neon
#define SIMD_NAME  "neon"
#include "kernels/cpu/simd_body.inc"
