/* The weight matrices of a model by name: the linears of its blocks, and the embedding and head where they
   are quantized too. What stands beside them (norms, biases, dense embeddings) are plain tensors. */
#pragma once

#include "model/model.h"

typedef struct qb_module {
    char name[128]; /* "model.layers.3.self_attn.q_proj" */
    int64_t rows, cols;
    int64_t layer; /* -1: embedding or head */
} qb_module;

enum { QB_MODULES_OUTSIDE = 2 }; /* embedding and head: the list has room for both */

typedef struct qb_modules {
    qb_module *items; /* owned */
    size_t count;
} qb_modules;

qb_status qb_modules_list(const qb_model *m, qb_modules *out) QB_NODISCARD;
void qb_modules_free(qb_modules *modules);
/* Whether a tensor holds a part of one of the modules in any layout (MODULE.weight, MODULE.qweight,
   MODULE.weight.absmax, ..); a bias is a plain tensor. */
bool qb_modules_own(const qb_modules *modules, const char *tensor);
