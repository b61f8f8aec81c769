#pragma once

#include "kernels/cpu/integer.h"

/* kernels/cpu/integer_avx_vnni.inc; called only where AVX-512 VNNI and VL are. */
extern const qb_integer avx_vnni_evex;
