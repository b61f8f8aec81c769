/* What is odd about a weight and no damage: `bench inspect` lists all of it, and loading says the first of
   each kind, so that no number is measured in silence over what a look would have shown. */
#pragma once

#include "model/model.h"

typedef enum {
    QB_ODD_NO_STEP,       /* scales of 0 */
    QB_ODD_FEW_BITS,      /* scales where float16 has few bits left */
    QB_ODD_NEGATIVE,      /* scales below 0 where they are sizes */
    QB_ODD_ONE_CODE,      /* every code the same */
    QB_ODD_TWIN,          /* a dense weight beside the packed one */
    QB_ODD_RULED_DENSE,   /* packed, where a rule of the config says dense */
    QB_ODD_ZERO_AT_ZERO,  /* zero points that v1 holds only by wrapping */
    QB_ODD_NOT_SYMMETRIC, /* labelled symmetric, and is not */
    QB_ODD_CONSTANT,      /* a dense tensor of one value */
} qb_oddity;
typedef void (*qb_oddity_fn)(void *ctx, qb_oddity kind, const char *where, const char *text);

/* Of a packed weight as it was read: module is its name. */
void qb_oddities_of_packed(const qb_checkpoint *ck, const char *module, const qb_qweight *q,
                           qb_oddity_fn found, void *ctx);
/* Of n elements of a dense one; ends at the first that differs. */
void qb_oddities_of_dense(const char *tensor, qb_dtype dtype, const void *bytes, int64_t n,
                          qb_oddity_fn found, void *ctx);
/* Warns of what a weight that is about to be computed with has: of each kind the first of the model. */
void qb_oddities_warn(qb_model *m, const char *module, const qb_weight *w);
