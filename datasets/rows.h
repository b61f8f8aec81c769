/* Rows of a text file joined to one text, as the Hugging
   Face loaders and the GPTQ paper's code do together. */
#pragma once

#include "base/str.h"
#include "datasets/datasets.h"

/* Appends the rows of n bytes to out with the separator between them. Lines end as Python's text files end
   them: \n, \r\n or \r, each read as \n. join must not be QB_JOIN_NONE. */
qb_status qb_rows_join(const char *bytes, size_t n, qb_join join, const char *separator,
                       qb_str *out) QB_NODISCARD;
