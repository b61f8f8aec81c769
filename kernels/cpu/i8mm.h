/* aarch64's matrix products of bytes. */
#pragma once

#include "kernels/cpu/integer.h"

/* The set neon-i8mm in *out, made from neon-dotprod; called only where it is there. */
void qb_i8mm(const qb_integer *dotprod, qb_integer *out);
