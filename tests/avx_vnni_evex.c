/* The set avx-vnni in the encoding of AVX-512 VL, for processors that have that and not AVX-VNNI. */
#include "tests/avx_vnni_evex.h"

#define INTEGER_TABLE avx_vnni_evex
#define INTEGER_NAME  "avx-vnni evex"
#define DOT_ENCODING  "%{evex%}"
#include "kernels/cpu/integer_avx_vnni.inc"
