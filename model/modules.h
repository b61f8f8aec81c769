/* The weight matrices of a model by name: the linears of its blocks that methods quantize, and the embedding
   and head where they are quantized too. What stands beside them (norms, biases, routers, dense embeddings)
   are plain tensors. */
#pragma once

#include "model/model.h"

typedef struct qb_module {
    char name[QB_NAME_BYTES]; /* "model.layers.3.self_attn.q_proj" */
    int64_t rows, cols;
    int64_t layer;           /* -1: embedding or head */
    const qb_linear *linear; /* NULL for the embedding */
} qb_module;

typedef struct qb_modules {
    qb_module *items; /* owned */
    size_t count, capacity;
    size_t *by_name; /* [count] items in the order of names; owned */
} qb_modules;

qb_status qb_modules_list(const qb_model *m, qb_modules *out) QB_NODISCARD;
/* Those that the checkpoint has quantized. */
qb_status qb_modules_list_packed(const qb_model *m, qb_modules *out) QB_NODISCARD;
/* Adds those of another model that are not in the list. */
qb_status qb_modules_join(qb_modules *to, const qb_modules *from) QB_NODISCARD;
void qb_modules_free(qb_modules *modules);
/* Whether a tensor holds a part of one of the modules in any layout (MODULE.weight, MODULE.qweight,
   MODULE.weight.absmax, ..); a bias is a plain tensor. */
bool qb_modules_own(const qb_modules *modules, const char *tensor);
/* A module as the checkpoint has it; free with qb_module_unread. */
qb_status qb_module_read(const qb_model *m, const qb_module *module, qb_weight *out) QB_NODISCARD;
void qb_module_unread(const qb_model *m, const qb_module *module, qb_weight *w);
/* Some writers give every linear a bias of zeros. One that is not zero belongs to a model that the config
   does not describe: an error. n: its elements. Absent is fine. */
qb_status qb_modules_check_no_bias(const qb_model *m, const char *tensor, int64_t n) QB_NODISCARD;
/* The tensors that the config wants beside the modules must be there, as floats of its shapes, and no bias
   that it knows nothing of. The first failure is returned; with `failed` each is handed over instead, its
   text in qb_error_text, the tensor NULL where the text alone names it. */
qb_status qb_modules_check_others(const qb_model *m, const qb_modules *modules,
                                  void (*failed)(void *ctx, const char *tensor), void *ctx) QB_NODISCARD;
