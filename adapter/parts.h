/* An adapter's tensors by what they are for. */
#pragma once

#include "adapter/config.h"
#include "base/memory.h"
#include "checkpoint/checkpoint.h"

typedef enum {
    QB_PART_WHOLE,     /* takes the place of the base's tensor `path` */
    QB_PART_A,         /* [r, in] */
    QB_PART_B,         /* [out, r] */
    QB_PART_B_BIAS,    /* [out] */
    QB_PART_EMBED_A,   /* [r, rows of the table] */
    QB_PART_EMBED_B,   /* [width, r] */
    QB_PART_MAGNITUDE, /* DoRA's [out] */
    QB_PART_TOKENS,    /* rows of an embedding or head */
} qb_part_kind;

typedef struct qb_part {
    const char *path; /* of the module in the base; of WHOLE the tensor's name */
    int depth; /* "base_layer" before it: of several adapted parameters of one module the outer has 0 */
    qb_part_kind kind;
    bool wrapped; /* WHOLE: the base weight or bias of an adapted module */
    bool copy;    /* the second one of a saved module's weight */
    const qb_tensor *tensor;
} qb_part;

typedef struct qb_adapter {
    qb_checkpoint *checkpoint; /* owned: its config is adapter_config.json */
    qb_adapter_config config;
    qb_part *parts; /* by path, depth and kind; owned */
    size_t count;
    qb_arena names;
} qb_adapter;

/* Opens ADAPTER, a directory with adapter_config.json and adapter_model.safetensors (or .bin), and sorts its
   tensors; a name that is none of PEFT's is an error. qb_adapter_close in any case. */
qb_status qb_adapter_open(const char *path, bool residual_base, qb_adapter *out) QB_NODISCARD;
void qb_adapter_close(qb_adapter *a); /* takes {0} */
/* "[8, 4096]" into and from buffer. */
const char *qb_part_shape(const qb_part *part, char buffer[128]);
