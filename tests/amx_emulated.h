/* Sets of kernels/cpu/ that need a processor with AMX, over tiles in plain C (tiles_emulated.h). */
#pragma once

#include "kernels/cpu/integer.h"

/* As qb_amx_int8. */
void amx_int8_emulated(const qb_integer *vnni, qb_integer *out);
