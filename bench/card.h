/* The perplexity lines of a model card that `bench quantize` or `bench convert` wrote. */
#pragma once

#include "results/rows.h"

/* Puts the perplexities of the case into DIR/README.md, in the place of the line that
   says that there is none, or of earlier ones of the same text and protocol. QB_ERR_NOT_FOUND when DIR holds
   no card with such lines. */
qb_status qb_card_put_perplexities(const char *dir, const qb_row_case *c) QB_NODISCARD;
