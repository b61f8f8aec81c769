/* The set amx-bf16 (kernels/cpu/dense_amx.inc), called only where avx512 is, over tiles in plain C. */
#include "kernels/cpu/lanes.h"
#include "tests/amx_emulated.h"
#include "tests/tiles_emulated.h"

#define AMX_NAME "amx-bf16 emulated"
#define AMX_SET  amx_bf16_emulated
#include "kernels/cpu/dense_amx.inc"
