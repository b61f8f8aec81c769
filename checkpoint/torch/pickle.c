#include "checkpoint/torch/pickle.h"

#include "checkpoint/torch/pickle_machine.h"
#include "checkpoint/torch/torch_objects.h"

#include <string.h>

/* ---- containers ---- */

static qb_status mark(qb_pickle_machine *m, int unused) {
    (void)unused;
    qb_status st = qb_grow(&m->marks, &m->marks_capacity, m->n_marks + 1, sizeof *m->marks);
    if (st == QB_OK) m->marks[m->n_marks++] = m->n_stack;
    return st;
}

/* A tuple, list or dict of the values above the mark. */
static qb_status build_marked(qb_pickle_machine *m, int kind) {
    qb_pickle_value **items, *v;
    size_t n;
    qb_status st;
    QB_TRY(st, qb_pickle_pop_mark(m, &items, &n));
    if (kind == QB_PICKLE_DICT && n % 2) return qb_pickle_damaged(m, "a key without a value");
    QB_TRY(st, qb_pickle_new_value(m, (qb_pickle_kind)kind, &v));
    QB_TRY(st, qb_pickle_add_items(m, v, items, n));
    QB_TRY(st, qb_pickle_push(m, v));
out:
    return st;
}

static qb_status build_tuple(qb_pickle_machine *m, int count) {
    qb_pickle_value *v;
    size_t n = (size_t)count;
    if (qb_pickle_above_mark(m) < n) return qb_pickle_damaged(m, "a value is missing on the stack");
    qb_status st = qb_pickle_new_value(m, QB_PICKLE_TUPLE, &v);
    if (st == QB_OK) st = qb_pickle_add_items(m, v, m->stack + m->n_stack - n, n);
    m->n_stack -= n;
    return st == QB_OK ? qb_pickle_push(m, v) : st;
}

static qb_status extend_marked(qb_pickle_machine *m, int kind) {
    qb_pickle_value **items, *to;
    size_t n;
    qb_status st;
    QB_TRY(st, qb_pickle_pop_mark(m, &items, &n));
    if (kind == QB_PICKLE_DICT && n % 2) return qb_pickle_damaged(m, "a key without a value");
    QB_TRY(st, qb_pickle_top_of_kind(m, (qb_pickle_kind)kind, &to));
    QB_TRY(st, qb_pickle_add_items(m, to, items, n));
out:
    return st;
}

static qb_status extend_top(qb_pickle_machine *m, int kind) {
    qb_pickle_value *to, *items[2] = {NULL, NULL};
    size_t n = kind == QB_PICKLE_DICT ? 2 : 1;
    qb_status st;
    for (size_t i = n; i-- > 0;) QB_TRY(st, qb_pickle_pop(m, &items[i]));
    QB_TRY(st, qb_pickle_top_of_kind(m, (qb_pickle_kind)kind, &to));
    QB_TRY(st, qb_pickle_add_items(m, to, items, n));
out:
    return st;
}

/* ---- plain values ---- */

static qb_status push_new(qb_pickle_machine *m, int kind) {
    qb_pickle_value *v;
    return qb_pickle_push_value(m, (qb_pickle_kind)kind, &v);
}

static qb_status push_bool(qb_pickle_machine *m, int value) {
    return qb_pickle_push_integer(m, QB_PICKLE_BOOL, value);
}

static qb_status push_text(qb_pickle_machine *m, int width) {
    uint64_t n;
    const uint8_t *p;
    char *text;
    qb_pickle_value *v;
    qb_status st;
    QB_TRY(st, qb_pickle_take_number(m, width, &n));
    QB_TRY(st, qb_pickle_take(m, n, &p));
    QB_TRY(st, qb_pickle_push_value(m, QB_PICKLE_TEXT, &v));
    QB_TRY(st, qb_arena_alloc(m->arena, n + 1, 1, &text));
    memcpy(text, p, n);
    v->text = text;
    v->length = n;
out:
    return st;
}

static qb_status push_real(qb_pickle_machine *m, int width) {
    const uint8_t *p;
    uint64_t bits = 0;
    qb_pickle_value *v;
    qb_status st;
    QB_TRY(st, qb_pickle_take(m, (uint64_t)width, &p));
    QB_TRY(st, qb_pickle_push_value(m, QB_PICKLE_REAL, &v));
    for (int i = 0; i < width; i++) bits = bits << 8 | p[i];
    memcpy(&v->real, &bits, 8);
out:
    return st;
}

/* A little-endian two's complement number of any length. */
static qb_status push_long(qb_pickle_machine *m, int width) {
    uint64_t n, bits = 0;
    const uint8_t *p;
    qb_pickle_value *v;
    qb_status st;
    QB_TRY(st, qb_pickle_take_number(m, width, &n));
    QB_TRY(st, qb_pickle_take(m, n, &p));
    if (n > 8) {
        st = qb_pickle_push_value(m, QB_PICKLE_OPAQUE, &v);
        goto out;
    }
    for (uint64_t i = 0; i < n; i++) bits |= (uint64_t)p[i] << 8 * i;
    if (n && n < 8 && p[n - 1] & 0x80) bits |= ~0ull << 8 * n;
    st = qb_pickle_push_integer(m, QB_PICKLE_INT, (int64_t)bits);
out:
    return st;
}

static qb_status push_int(qb_pickle_machine *m, int width) {
    uint64_t bits;
    qb_status st = qb_pickle_take_number(m, width, &bits);
    return st == QB_OK ? qb_pickle_push_integer(m, QB_PICKLE_INT, width == 4 ? (int32_t)bits : (int64_t)bits)
                       : st;
}

/* ---- memo ---- */

static qb_status memo_put(qb_pickle_machine *m, uint64_t index) {
    if (qb_pickle_above_mark(m) == 0) return qb_pickle_damaged(m, "nothing to remember");
    if (index >= QB_PICKLE_MAX_VALUES) return qb_pickle_damaged(m, "a memo index out of range");
    qb_status st = qb_grow(&m->memo, &m->memo_capacity, index + 1, sizeof *m->memo);
    if (st != QB_OK) return st;
    while (m->n_memo <= index) m->memo[m->n_memo++] = NULL;
    m->memo[index] = m->stack[m->n_stack - 1];
    return QB_OK;
}

static qb_status memo_put_index(qb_pickle_machine *m, int width) {
    uint64_t index;
    qb_status st = qb_pickle_take_number(m, width, &index);
    return st == QB_OK ? memo_put(m, index) : st;
}

static qb_status memo_put_next(qb_pickle_machine *m, int unused) {
    (void)unused;
    return memo_put(m, m->n_memo);
}

static qb_status memo_get(qb_pickle_machine *m, int width) {
    uint64_t index;
    qb_status st = qb_pickle_take_number(m, width, &index);
    if (st != QB_OK) return st;
    if (index >= m->n_memo || !m->memo[index])
        return qb_pickle_damaged(m, "a memo entry that was never made");
    return qb_pickle_push(m, m->memo[index]);
}

/* ---- globals ---- */

static qb_status push_global(qb_pickle_machine *m, const char *module, const char *name) {
    int number = qb_torch_global(module, name);
    if (number < 0)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: the pickle names %.100s.%.100s, which is not among the tensors and containers "
                       "that are read; nothing of a pickle is ever executed (save a plain state_dict, or "
                       "convert it to safetensors)",
                       m->file, module, name);
    return qb_pickle_push_integer(m, QB_PICKLE_GLOBAL, number);
}

static qb_status global_line(qb_pickle_machine *m, int unused) {
    (void)unused;
    const char *module, *name;
    qb_status st;
    QB_TRY(st, qb_pickle_take_line(m, &module));
    QB_TRY(st, qb_pickle_take_line(m, &name));
    st = push_global(m, module, name);
out:
    return st;
}

static qb_status stack_global(qb_pickle_machine *m, int unused) {
    (void)unused;
    qb_pickle_value *module, *name;
    qb_status st;
    QB_TRY(st, qb_pickle_pop(m, &name));
    QB_TRY(st, qb_pickle_pop(m, &module));
    if (module->kind != QB_PICKLE_TEXT || name->kind != QB_PICKLE_TEXT)
        return qb_pickle_damaged(m, "a global's name is not text");
    st = push_global(m, module->text, name->text);
out:
    return st;
}

static qb_status reduce(qb_pickle_machine *m, int unused) {
    (void)unused;
    qb_pickle_value *args, *function, *made;
    qb_status st;
    QB_TRY(st, qb_pickle_pop(m, &args));
    QB_TRY(st, qb_pickle_pop(m, &function));
    if (function->kind != QB_PICKLE_GLOBAL || args->kind != QB_PICKLE_TUPLE)
        return qb_pickle_damaged(m, "a call of what is no function");
    QB_TRY(st, qb_pickle_push_value(m, QB_PICKLE_NONE, &made));
    st = qb_torch_reduce(function->integer, args, m->file, m->arena, made);
out:
    return st;
}

static qb_status persistent(qb_pickle_machine *m, int unused) {
    (void)unused;
    qb_pickle_value *id, *made;
    qb_status st;
    QB_TRY(st, qb_pickle_pop(m, &id));
    QB_TRY(st, qb_pickle_push_value(m, QB_PICKLE_NONE, &made));
    st = qb_torch_persistent(id, m->file, m->arena, made);
out:
    return st;
}

/* An object's attributes: a state_dict's are versions of its modules, which nothing here needs. */
static qb_status build(qb_pickle_machine *m, int unused) {
    (void)unused;
    qb_pickle_value *attributes;
    qb_status st = qb_pickle_pop(m, &attributes);
    if (st != QB_OK) return st;
    if (qb_pickle_above_mark(m) == 0) return qb_pickle_damaged(m, "attributes of nothing");
    qb_pickle_kind kind = m->stack[m->n_stack - 1]->kind;
    if (kind == QB_PICKLE_DICT || kind == QB_PICKLE_TENSOR) return QB_OK;
    return qb_pickle_damaged(m, "attributes of what is neither dict nor tensor");
}

/* ---- opcodes ---- */

static qb_status drop(qb_pickle_machine *m, int unused) {
    (void)unused;
    qb_pickle_value *v, **items;
    size_t n;
    return qb_pickle_above_mark(m) ? qb_pickle_pop(m, &v) : qb_pickle_pop_mark(m, &items, &n);
}

static qb_status drop_marked(qb_pickle_machine *m, int unused) {
    (void)unused;
    qb_pickle_value **items;
    size_t n;
    return qb_pickle_pop_mark(m, &items, &n);
}

static qb_status skip(qb_pickle_machine *m, int n) {
    const uint8_t *p;
    return qb_pickle_take(m, (uint64_t)n, &p);
}

static qb_status stop(qb_pickle_machine *m, int unused) {
    (void)unused;
    m->stopped = true;
    return QB_OK;
}

typedef struct {
    uint8_t opcode;
    qb_status (*run)(qb_pickle_machine *m, int argument);
    int argument;
} opcode_row;

/* In the order of pickletools' groups. */
static const opcode_row opcodes[] = {
    {0x80, skip, 1}, /* PROTO */
    {0x95, skip, 8}, /* FRAME */
    {'.', stop, 0},
    {'N', push_new, QB_PICKLE_NONE},
    {0x88, push_bool, 1},
    {0x89, push_bool, 0},
    {'K', push_int, 1},
    {'M', push_int, 2},
    {'J', push_int, 4},
    {0x8a, push_long, 1},
    {'G', push_real, 8},
    {'U', push_text, 1},
    {'C', push_text, 1},
    {0x8c, push_text, 1},
    {'T', push_text, 4},
    {'B', push_text, 4},
    {'X', push_text, 4},
    {0x8d, push_text, 8},
    {0x8e, push_text, 8},
    {'(', mark, 0},
    {'0', drop, 0},
    {'1', drop_marked, 0},
    {')', push_new, QB_PICKLE_TUPLE},
    {'t', build_marked, QB_PICKLE_TUPLE},
    {0x85, build_tuple, 1},
    {0x86, build_tuple, 2},
    {0x87, build_tuple, 3},
    {']', push_new, QB_PICKLE_LIST},
    {'l', build_marked, QB_PICKLE_LIST},
    {'a', extend_top, QB_PICKLE_LIST},
    {'e', extend_marked, QB_PICKLE_LIST},
    {'}', push_new, QB_PICKLE_DICT},
    {'d', build_marked, QB_PICKLE_DICT},
    {'s', extend_top, QB_PICKLE_DICT},
    {'u', extend_marked, QB_PICKLE_DICT},
    {'q', memo_put_index, 1},
    {'r', memo_put_index, 4},
    {0x94, memo_put_next, 0},
    {'h', memo_get, 1},
    {'j', memo_get, 4},
    {'c', global_line, 0},
    {0x93, stack_global, 0},
    {'R', reduce, 0},
    {'Q', persistent, 0},
    {'b', build, 0},
};

static qb_status step(qb_pickle_machine *m) {
    const uint8_t *p;
    qb_status st = qb_pickle_take(m, 1, &p);
    if (st != QB_OK) return st;
    for (size_t i = 0; i < sizeof opcodes / sizeof opcodes[0]; i++)
        if (opcodes[i].opcode == *p) return opcodes[i].run(m, opcodes[i].argument);
    m->at = p;
    return qb_fail(QB_ERR_UNSUPPORTED,
                   "%s: pickle opcode 0x%02x at byte %zu is not among those that hold tensors", m->file, *p,
                   (size_t)(p - m->bytes));
}

qb_status qb_pickle_read(const uint8_t *bytes, size_t size, const char *file, qb_arena *arena, size_t *used,
                         const qb_pickle_value **out) {
    if (size > QB_PICKLE_MAX_BYTES) size = QB_PICKLE_MAX_BYTES;
    qb_pickle_machine m = {.bytes = bytes, .at = bytes, .end = bytes + size, .file = file, .arena = arena};
    qb_pickle_value *top = NULL;
    qb_status st = QB_OK;
    *out = NULL;
    while (st == QB_OK && !m.stopped) st = step(&m);
    if (st == QB_OK && m.n_marks) st = qb_pickle_damaged(&m, "a mark is left");
    if (st == QB_OK) st = qb_pickle_pop(&m, &top);
    *out = st == QB_OK ? top : NULL;
    *used = (size_t)(m.at - bytes);
    qb_free(m.stack);
    qb_free(m.memo);
    qb_free(m.marks);
    return st;
}

const qb_pickle_value *qb_pickle_get(const qb_pickle_value *dict, const char *key) {
    if (!dict || dict->kind != QB_PICKLE_DICT) return NULL;
    for (size_t i = 0; i + 1 < dict->count; i += 2)
        if (dict->items[i]->kind == QB_PICKLE_TEXT && !strcmp(dict->items[i]->text, key))
            return dict->items[i + 1];
    return NULL;
}
