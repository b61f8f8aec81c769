/* What a merge changes: a list of edits to the base's tensors, planned from names and shapes alone, so that
   whatever does not fit is told before anything is written. */
#pragma once

#include "adapter/parts.h"
#include "model/model.h"

typedef enum {
    QB_EDIT_WHOLE, /* the adapter's tensor takes the place of the base's */
    QB_EDIT_LORA,  /* += scale * B A, and DoRA's magnitudes */
    QB_EDIT_ROWS,  /* rows replaced */
    QB_EDIT_BIAS,  /* += scale * B's bias */
} qb_edit_kind;

/* The tensor's values are [rows, cols] as its file has them; a stack's expert is [out, in]. */
typedef struct qb_edit {
    const char *tensor; /* "model.layers.0.self_attn.q_proj.weight", of an expert "MODULE.weight" */
    int64_t expert;     /* of a stack whose experts share a name; else 0 */
    qb_edit_kind kind;
    const qb_part *a, *b, *magnitude; /* of LORA; `a` is the tensor of the other kinds */
    int64_t rank;
    double scale;
    bool turned; /* the values lie as [in, out]: += scale * (B A)^T */
    /* Of experts, whose factors lie side by side: A [experts * r, in], row e r + k; B [out, r * experts],
       column k experts + e. first_row: where the values' rows begin in a pair of which they are a part. */
    int64_t n_experts, part_of, first_row;
    const qb_json *tokens; /* ROWS: the list of ids */
    bool follows_tie;      /* a tied head is changed by it too */
} qb_edit;

typedef struct qb_merge_plan {
    const qb_model *model;
    const qb_adapter *adapter;
    qb_edit *edits; /* owned; by tensor and expert, those of a tensor in the order in which they apply */
    size_t count, capacity;
    qb_arena names;
    char embed[QB_NAME_BYTES + 8], head[QB_NAME_BYTES + 8]; /* their tensors' names */
    int64_t vocab;   /* rows of both tables where the adapter's vocabulary was resized; 0 */
    bool unties;     /* the config ties the head, the merged one is another: both are written */
    bool drops_head; /* a tied head that the file holds beside the embedding is not written again */
} qb_merge_plan;

/* Every tensor of the adapter gets its place or is an error, and so does every module that its config names
   and it has no tensors for. qb_merge_plan_free in any case. */
qb_status qb_merge_plan_make(const qb_model *m, const qb_adapter *a, qb_merge_plan *out) QB_NODISCARD;
void qb_merge_plan_free(qb_merge_plan *p);
/* The first edit of a tensor (of an expert), its number in *n; NULL with 0. */
const qb_edit *qb_merge_edits(const qb_merge_plan *p, const char *tensor, int64_t expert, size_t *n);

/* ---- between the files that plan ---- */

qb_status qb_merge_add(qb_merge_plan *p, const char *tensor, const qb_edit *edit) QB_NODISCARD;
/* All parts of one module at one depth. */
typedef struct qb_part_group {
    const char *path;
    int depth;
    const qb_part *a, *b, *b_bias, *embed_a, *embed_b, *magnitude, *tokens;
} qb_part_group;
/* A LoRA of parameters that experts share. *taken stays false for a module that has no experts. */
qb_status qb_merge_plan_experts(qb_merge_plan *p, const qb_part_group *g, bool *taken) QB_NODISCARD;
/* The layer's number in "model.layers.3.mlp"; -1. */
int64_t qb_merge_layer_of(const qb_model *m, const char *path);
const char *qb_merge_adapter_dir(const qb_merge_plan *p);
/* The error of a module that lacks a part. */
qb_status qb_merge_missing(const qb_merge_plan *p, const char *path, const char *what) QB_NODISCARD;
/* complete.c: fails where the config names a module that has no tensors. */
qb_status qb_merge_check_complete(const qb_merge_plan *p) QB_NODISCARD;
/* tables.c: which of embedding and head are written, and with how many rows. */
qb_status qb_merge_settle_tables(qb_merge_plan *p) QB_NODISCARD;
/* Fails unless the part has this shape. */
qb_status qb_merge_expect(const qb_merge_plan *p, const qb_part *part, int64_t rows, int64_t cols,
                          const char *why) QB_NODISCARD;
