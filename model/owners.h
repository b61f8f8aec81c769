/* Which part of the topology a tensor of the checkpoint belongs to: found by name in one search, however many
   layers and experts there are. */
#pragma once

#include "model/model.h"

typedef enum { QB_OWNER_LINEAR, QB_OWNER_BIAS, QB_OWNER_VECTOR, QB_OWNER_EMBED } qb_owner_kind;
typedef struct qb_owner {
    char *name; /* of the module, or the whole tensor name for BIAS and VECTOR */
    qb_owner_kind kind;
    int64_t layer;           /* -1 before the blocks, n_layers behind them */
    const qb_linear *linear; /* LINEAR, BIAS */
} qb_owner;

typedef struct qb_owners {
    qb_owner *items; /* sorted by name; owned with the names */
    size_t count, capacity;
    qb_arena names;
} qb_owners;

qb_status qb_owners_build(const qb_topology *t, qb_owners **out) QB_NODISCARD;
void qb_owners_free(qb_owners *o); /* takes NULL */
/* NULL when nothing of the topology reads the tensor. Of a linear: MODULE, or MODULE. and anything (.weight,
   .qweight, .weight.absmax, ..) but its bias. */
const qb_owner *qb_owners_find(const qb_owners *o, const char *tensor);
/* Refuses tensors under a layer that nobody names, and layers beyond the config's; a tensor elsewhere that
   nobody reads is a warning. */
qb_status qb_owners_check(const qb_model *m, const char *where) QB_NODISCARD;
