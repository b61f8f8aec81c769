/* The sets amx-int8 (kernels/cpu/integer_amx.inc), called only where avx512-vnni is, and amx-bf16
   (kernels/cpu/dense_amx.inc), where avx512 is, over tiles in plain C. */
#include "tests/amx_emulated.h"
#include "kernels/cpu/lanes.h"
#include "tests/tiles_emulated.h"

#define AMX_NAME "amx-int8 emulated"
#define AMX_SET  amx_int8_emulated
#include "kernels/cpu/integer_amx.inc"

#undef AMX_NAME
#undef AMX_SET
#define AMX_NAME "amx-bf16 emulated"
#define AMX_SET  amx_bf16_emulated
#include "kernels/cpu/dense_amx.inc"
