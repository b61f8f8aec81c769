/* The plain C instruction set: what every other one is compared with. */
#define LANES_GENERIC
#define SIMD_TABLE qb_simd_generic
#define SIMD_NAME  "generic"
#include "kernels/cpu/simd_body.inc"
