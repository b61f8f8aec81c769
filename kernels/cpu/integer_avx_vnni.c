/* Products in whole numbers by AVX-VNNI; called only on CPUs that have it and AVX2. */
#define INTEGER_TABLE qb_integer_avx_vnni
#define INTEGER_NAME  "avx-vnni"
#define DOT_ENCODING  "%{vex%}"
#include "kernels/cpu/integer_avx_vnni.inc"
