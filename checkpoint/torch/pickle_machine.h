/* What the opcodes of a pickle work on: bytes, a stack of values with marks, a memo. Private to
   checkpoint/pickle.c. */
#pragma once

#include "checkpoint/torch/pickle.h"

/* The machine: a stack of values, the marks on it, and the memo. */
typedef struct {
    const uint8_t *bytes, *at, *end;
    const char *file;
    qb_arena *arena;
    qb_pickle_value **stack, **memo;
    size_t *marks;
    size_t n_stack, n_memo, n_marks, stack_capacity, memo_capacity, marks_capacity;
    size_t n_values;
    bool stopped;
} qb_pickle_machine;

/* The error of a pickle that contradicts itself, with the place in it. */
qb_status qb_pickle_damaged(const qb_pickle_machine *m, const char *what) QB_NODISCARD;

/* The next n bytes; a little-endian number of `width` bytes; the text up to the end of the line. */
qb_status qb_pickle_take(qb_pickle_machine *m, uint64_t n, const uint8_t **out) QB_NODISCARD;
qb_status qb_pickle_take_number(qb_pickle_machine *m, int width, uint64_t *out) QB_NODISCARD;
qb_status qb_pickle_take_line(qb_pickle_machine *m, const char **out) QB_NODISCARD;

qb_status qb_pickle_new_value(qb_pickle_machine *m, qb_pickle_kind kind, qb_pickle_value **out) QB_NODISCARD;
qb_status qb_pickle_push(qb_pickle_machine *m, qb_pickle_value *v) QB_NODISCARD;
qb_status qb_pickle_push_value(qb_pickle_machine *m, qb_pickle_kind kind, qb_pickle_value **out) QB_NODISCARD;
qb_status qb_pickle_push_integer(qb_pickle_machine *m, qb_pickle_kind kind, int64_t integer) QB_NODISCARD;
/* Values above the last mark; values below a mark belong to what is being built there. */
size_t qb_pickle_above_mark(const qb_pickle_machine *m);
qb_status qb_pickle_pop(qb_pickle_machine *m, qb_pickle_value **out) QB_NODISCARD;
/* Takes off the mark: items[0 .. count) stay readable until the next push. */
qb_status qb_pickle_pop_mark(qb_pickle_machine *m, qb_pickle_value ***items, size_t *count) QB_NODISCARD;

/* Appends to a tuple, list or dict. */
qb_status qb_pickle_add_items(qb_pickle_machine *m, qb_pickle_value *to, qb_pickle_value *const *items,
                              size_t n) QB_NODISCARD;
/* The value on top, which must be of that kind, LIST or DICT. */
qb_status qb_pickle_top_of_kind(const qb_pickle_machine *m, qb_pickle_kind kind,
                                qb_pickle_value **out) QB_NODISCARD;
