/* A part of the validation that must come before a document is copied. */
#pragma once

#include "base/json.h"

/* QB_ERR_FORMAT when an object holds a key twice. */
qb_status qb_results_check_keys(const qb_json *doc, const char *name) QB_NODISCARD;
