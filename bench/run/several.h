/* `eval` and `speed` over several models: each in a process of its own, so that none is measured in the
   memory that another took, and all in one document. */
#pragma once

#include "results/results.h"

enum { QB_SEVERAL_MAX = 64 };

/* Measures one model and leaves a document of one case; a failure that is in the document is its status too.
 */
typedef qb_status (*qb_model_measurer)(void *ctx, const char *word, qb_results *out);

/* One model is measured in this process. Of several, each is opened first, so that a wrong name shows before
   the first is measured; one that fails is in the document where it left one, the others are measured, and
   the first failure is the status. The parent must have no threads. Close `out` in any case. */
qb_status qb_several_measure(const char *const *words, size_t n, bool synthetic, qb_model_measurer measure,
                             void *ctx, qb_results *out) QB_NODISCARD;
