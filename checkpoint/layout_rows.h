/* The rows of layouts.def, each defined in its own file. Private to checkpoint/. */
#pragma once

#include "checkpoint/layout.h"

#define X(name) extern const qb_layout qb_layout_##name;
#include "checkpoint/layouts.def"
#undef X
