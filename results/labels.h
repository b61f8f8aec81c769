/* What a case is called where its document does not say: those of earlier versions. Private to results/. */
#pragma once

#include "results/rows.h"

/* "GPTQ 4b g128" of a case whose other fields are filled; the same without the bits. Clean text. */
void qb_label_guess(const qb_row_case *c, bool with_bits, qb_str *out);
/* Makes the labels of a set unlike each other, and the names within a document: where two cases of one model
   share one, the config values that tell them apart follow, or the id where none does, then the document. */
qb_status qb_labels_tell_apart(qb_rows *rows) QB_NODISCARD;
