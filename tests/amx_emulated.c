/* The set amx-int8 (kernels/cpu/integer_amx.inc), called only where avx512-vnni is, over tiles in plain C. */
#include "tests/amx_emulated.h"
#include "kernels/cpu/lanes.h"
#include "tests/tiles_emulated.h"

#define AMX_NAME "amx-int8 emulated"
#define AMX_SET  amx_int8_emulated
#include "kernels/cpu/integer_amx.inc"
