/* Products of many tokens in whole numbers by AMX. Called only where the system lets this process use tiles
   (amx.h); tests run the same source over tiles in plain C. */
#include "kernels/cpu/amx.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/tiles.h"

#define AMX_NAME "amx-int8"
#define AMX_SET  qb_amx_int8
#include "kernels/cpu/integer_amx.inc"
