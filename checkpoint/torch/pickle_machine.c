#include "checkpoint/torch/pickle_machine.h"

#include <string.h>

qb_status qb_pickle_damaged(const qb_pickle_machine *m, const char *what) {
    return qb_fail(QB_ERR_FORMAT, "%s: damaged pickle: %s at byte %zu", m->file, what,
                   (size_t)(m->at - m->bytes));
}

/* ---- bytes ---- */

qb_status qb_pickle_take(qb_pickle_machine *m, uint64_t n, const uint8_t **out) {
    *out = NULL;
    if (n > (uint64_t)(m->end - m->at)) return qb_pickle_damaged(m, "it ends within an opcode");
    *out = m->at;
    m->at += n;
    return QB_OK;
}

qb_status qb_pickle_take_number(qb_pickle_machine *m, int width, uint64_t *out) {
    const uint8_t *p = NULL;
    qb_status st = qb_pickle_take(m, (uint64_t)width, &p);
    *out = 0;
    for (int i = 0; st == QB_OK && i < width; i++) *out |= (uint64_t)p[i] << 8 * i;
    return st;
}

qb_status qb_pickle_take_line(qb_pickle_machine *m, const char **out) {
    *out = NULL;
    const uint8_t *end = memchr(m->at, '\n', (size_t)(m->end - m->at));
    if (!end) return qb_pickle_damaged(m, "a line without an end");
    size_t n = (size_t)(end - m->at);
    char *text;
    qb_status st = qb_arena_alloc(m->arena, n + 1, 1, &text);
    if (st != QB_OK) return st;
    memcpy(text, m->at, n);
    m->at = end + 1;
    *out = text;
    return QB_OK;
}

/* ---- the stack ---- */

qb_status qb_pickle_new_value(qb_pickle_machine *m, qb_pickle_kind kind, qb_pickle_value **out) {
    *out = NULL;
    if (m->n_values++ >= QB_PICKLE_MAX_VALUES)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: a pickle of more than %d values", m->file,
                       QB_PICKLE_MAX_VALUES);
    qb_status st = qb_arena_alloc(m->arena, 1, sizeof **out, out);
    if (st == QB_OK) (*out)->kind = kind;
    return st;
}

qb_status qb_pickle_push(qb_pickle_machine *m, qb_pickle_value *v) {
    if (m->n_stack >= QB_PICKLE_MAX_VALUES) return qb_pickle_damaged(m, "the stack grows without end");
    qb_status st = qb_grow(&m->stack, &m->stack_capacity, m->n_stack + 1, sizeof *m->stack);
    if (st == QB_OK) m->stack[m->n_stack++] = v;
    return st;
}

qb_status qb_pickle_push_value(qb_pickle_machine *m, qb_pickle_kind kind, qb_pickle_value **out) {
    qb_status st = qb_pickle_new_value(m, kind, out);
    return st == QB_OK ? qb_pickle_push(m, *out) : st;
}

qb_status qb_pickle_push_integer(qb_pickle_machine *m, qb_pickle_kind kind, int64_t integer) {
    qb_pickle_value *v;
    qb_status st = qb_pickle_push_value(m, kind, &v);
    if (st == QB_OK) v->integer = integer;
    return st;
}

size_t qb_pickle_above_mark(const qb_pickle_machine *m) {
    return m->n_stack - (m->n_marks ? m->marks[m->n_marks - 1] : 0);
}

qb_status qb_pickle_pop(qb_pickle_machine *m, qb_pickle_value **out) {
    *out = NULL;
    if (qb_pickle_above_mark(m) == 0) return qb_pickle_damaged(m, "a value is missing on the stack");
    *out = m->stack[--m->n_stack];
    return QB_OK;
}

qb_status qb_pickle_pop_mark(qb_pickle_machine *m, qb_pickle_value ***items, size_t *count) {
    *items = NULL;
    *count = 0;
    if (m->n_marks == 0) return qb_pickle_damaged(m, "a mark is missing");
    *count = qb_pickle_above_mark(m);
    m->n_stack -= *count;
    m->n_marks--;
    *items = m->stack ? m->stack + m->n_stack : NULL;
    return QB_OK;
}

qb_status qb_pickle_add_items(qb_pickle_machine *m, qb_pickle_value *to, qb_pickle_value *const *items,
                              size_t n) {
    if (n > to->capacity - to->count) {
        size_t capacity = 2 * (to->count + n);
        qb_pickle_value **grown;
        qb_status st = qb_arena_alloc(m->arena, capacity, sizeof *grown, &grown);
        if (st != QB_OK) return st;
        if (to->count) memcpy(grown, to->items, to->count * sizeof *grown);
        to->items = grown;
        to->capacity = capacity;
    }
    if (n) memcpy(to->items + to->count, items, n * sizeof *items);
    to->count += n;
    return QB_OK;
}

qb_status qb_pickle_top_of_kind(const qb_pickle_machine *m, qb_pickle_kind kind, qb_pickle_value **out) {
    *out = NULL;
    if (qb_pickle_above_mark(m) == 0 || m->stack[m->n_stack - 1]->kind != kind)
        return qb_pickle_damaged(m, kind == QB_PICKLE_DICT ? "a dict is missing" : "a list is missing");
    *out = m->stack[m->n_stack - 1];
    return QB_OK;
}
