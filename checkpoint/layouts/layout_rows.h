/* The rows of layouts.def, each defined in its own file. Private to checkpoint/. */
#pragma once

#include "checkpoint/layout.h"

#define X(name) extern const qb_layout qb_layout_##name;
#include "checkpoint/layouts/layouts.def"
#undef X

/* Plans and puts tensor MODULE.suffix; size1 counts only with two dimensions. */
qb_status qb_layout_plan(qb_writer *w, const char *module, const char *suffix, qb_dtype dtype, int n_dims,
                         int64_t size0, int64_t size1) QB_NODISCARD;
qb_status qb_layout_put(qb_writer *w, const char *module, const char *suffix, const void *data,
                        int64_t bytes) QB_NODISCARD;
