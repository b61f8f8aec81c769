/* Stacks of matrices, [experts, ..], as tensors of their own. */
#include "checkpoint/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A matrix of a stack that lies as [in, out]. */
typedef struct {
    const uint8_t *bytes;
    int64_t rows, cols; /* as wanted, [out, in] */
    int64_t all_rows;   /* that the stack's matrix has */
} turned;

static qb_status fill_turned(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) {
    const turned *m = t->source;
    size_t width = qb_dtype_bytes(t->tensor.dtype);
    (void)ck;
    for (int64_t r = 0; r < m->rows; r++)
        for (int64_t c = 0; c < m->cols; c++)
            memcpy((uint8_t *)out + (size_t)(r * m->cols + c) * width,
                   m->bytes + (size_t)(c * m->all_rows + r) * width, width);
    return QB_OK;
}

bool qb_checkpoint_can_split(const qb_checkpoint *ck, const char *stack) {
    const qb_tensor *t = qb_checkpoint_find(ck, stack);
    const qb_tensor_state *s = t ? &ck->tensors[t->index] : NULL;
    return s && s->mapped && !s->fill && s->stored == QB_STORED_AS_IS && !s->also_in &&
           (t->n_dims == 2 || t->n_dims == 3) &&
           (t->dtype == QB_DTYPE_F32 || t->dtype == QB_DTYPE_F16 || t->dtype == QB_DTYPE_BF16);
}

/* Part `part` of `parts` of the rows of matrix i. */
static qb_status add_matrix(qb_checkpoint *ck, const qb_tensor_state *stack, const qb_stack *how, int64_t i,
                            int part, int parts) {
    const char *pattern = how->pattern[part], *hole = strstr(pattern, "%e");
    char name[QB_TENSOR_NAME_MAX];
    qb_tensor_state t = {.dtype_name = stack->dtype_name};
    bool turn = how->transposed && stack->tensor.n_dims == 3;
    qb_status st = QB_OK;
    snprintf(name, sizeof name, "%.*s%" PRId64 "%s", (int)(hole - pattern), pattern, i, hole + 2);
    QB_TRY(st, qb_arena_strdup(&ck->arena, name, &t.tensor.name));
    t.tensor.dtype = stack->tensor.dtype;
    t.tensor.n_dims = stack->tensor.n_dims - 1;
    for (int d = 0; d < t.tensor.n_dims; d++)
        t.tensor.shape[d] = stack->tensor.shape[turn ? t.tensor.n_dims - d : d + 1];
    int64_t all_rows = t.tensor.shape[0], rows = all_rows / parts;
    t.tensor.shape[0] = rows;
    t.tensor.bytes = stack->tensor.bytes / how->n / parts;
    t.mapped = (const uint8_t *)stack->mapped + i * t.tensor.bytes * parts +
               (turn ? part * rows * (int64_t)qb_dtype_bytes(t.tensor.dtype) : part * t.tensor.bytes);
    if (turn) {
        turned *m;
        QB_TRY(st, qb_arena_alloc(&ck->arena, 1, sizeof *m, &m));
        *m = (turned){t.mapped, rows, t.tensor.shape[1], all_rows};
        t.source = m;
        t.fill = fill_turned;
    }
    st = qb_checkpoint_add_tensor(ck, &ck->shards[stack->shard], &t);
out:
    return st;
}

static qb_status add_matrices(qb_checkpoint *ck, const qb_tensor_state *stack, const qb_stack *how) {
    int parts = how->pattern[1] ? 2 : 1;
    qb_status st = QB_OK;
    for (int64_t i = 0; st == QB_OK && i < how->n * parts; i++)
        st = add_matrix(ck, stack, how, i / parts, (int)(i % parts), parts);
    return st;
}

/* As many matrices, and of rows that can be halved where two patterns want halves. */
static bool fits(const qb_checkpoint *ck, const qb_tensor *t, const qb_stack *how) {
    int64_t rows = t->shape[how->transposed && t->n_dims == 3 ? 2 : 1];
    return qb_checkpoint_can_split(ck, how->name) && t->shape[0] == how->n &&
           (!how->pattern[1] || rows % 2 == 0);
}

/* Without the stacks, whose names are taken from them. */
static void close_ranks(qb_checkpoint *ck) {
    size_t kept = 0;
    for (size_t i = 0; i < ck->n_tensors; i++) {
        if (!ck->tensors[i].tensor.name) continue;
        ck->tensors[kept] = ck->tensors[i];
        ck->tensors[kept].tensor.index = (uint32_t)kept;
        kept++;
    }
    ck->n_tensors = kept;
}

qb_status qb_checkpoint_split(qb_checkpoint *ck, const qb_stack *stacks, size_t n) {
    char found[160];
    qb_status st = QB_OK;
    for (size_t s = 0; s < n; s++) {
        const qb_tensor *t;
        QB_TRY(st, qb_checkpoint_need(ck, stacks[s].name, &t));
        if (!fits(ck, t, &stacks[s]))
            QB_TRY(st, qb_fail(QB_ERR_FORMAT,
                               "%s: tensor %.200s: expected a stack of %" PRId64 " matrices, found %s",
                               ck->dir, stacks[s].name, stacks[s].n, qb_tensor_describe(ck, t, found)));
        qb_tensor_state stack = ck->tensors[t->index];
        QB_TRY(st, add_matrices(ck, &stack, &stacks[s]));
    }
    for (size_t s = 0; s < n; s++) {
        const qb_tensor *t = qb_checkpoint_find(ck, stacks[s].name);
        if (t) ck->tensors[t->index].tensor.name = NULL;
    }
    close_ranks(ck);
    st = qb_checkpoint_index_names(ck);
out:
    return st;
}
