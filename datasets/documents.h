/* JSON lines, each an object whose "text" is one document. Lines are found at once and parsed when asked for:
   a C4 shard has 356,317 of them, of which calibration draws a few hundred. */
#pragma once

#include "base/str.h"
#include "datasets/text.h"

typedef struct qb_documents {
    const qb_text *text; /* outlives this */
    size_t *starts;      /* owned; offset of each line that is not blank */
    int64_t count;
} qb_documents;

qb_status qb_documents_index(const qb_text *text, qb_documents *out) QB_NODISCARD;
/* Appends document i. Errors name the file and the line: not JSON, no "text", not UTF-8. */
qb_status qb_documents_get(const qb_documents *d, int64_t i, qb_str *out) QB_NODISCARD;
/* Appends the first `limit` documents (0: all) with the separator between them. */
qb_status qb_documents_join(const qb_documents *d, int64_t limit, const char *separator,
                            qb_str *out) QB_NODISCARD;
void qb_documents_free(qb_documents *d);
