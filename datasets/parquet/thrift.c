#include "datasets/parquet/thrift.h"

enum { DEEPEST = 32 };

static uint8_t take_byte(qb_thrift *t) {
    if (t->p >= t->end) {
        t->bad = true;
        return 0;
    }
    return *t->p++;
}

static uint64_t take_varint(qb_thrift *t) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t byte = take_byte(t);
        value |= (uint64_t)(byte & 127) << shift;
        if (!(byte & 128)) return value;
    }
    t->bad = true;
    return 0;
}

static int64_t unzigzag(uint64_t v) {
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

qb_thrift_type qb_thrift_field(qb_thrift *t, int *id) {
    uint8_t head = take_byte(t);
    int type = head & 15, delta = head >> 4;
    if (t->bad || type == QB_THRIFT_STOP) return QB_THRIFT_STOP;
    int64_t number = delta ? *id + delta : unzigzag(take_varint(t));
    if (type > QB_THRIFT_STRUCT || number < 0 || number > 32767) t->bad = true;
    if (t->bad) return QB_THRIFT_STOP;
    *id = (int)number;
    return (qb_thrift_type)type;
}

int64_t qb_thrift_int(qb_thrift *t, qb_thrift_type type) {
    if (type == QB_THRIFT_TRUE || type == QB_THRIFT_FALSE) return type == QB_THRIFT_TRUE;
    if (type == QB_THRIFT_BYTE) return (int8_t)take_byte(t);
    if (type == QB_THRIFT_I16 || type == QB_THRIFT_I32 || type == QB_THRIFT_I64)
        return unzigzag(take_varint(t));
    t->bad = true;
    return 0;
}

void qb_thrift_binary(qb_thrift *t, qb_thrift_type type, const char **text, size_t *n) {
    *text = "";
    *n = 0;
    if (type != QB_THRIFT_BINARY) t->bad = true;
    uint64_t length = t->bad ? 0 : take_varint(t);
    if (length > (uint64_t)(t->end - t->p)) t->bad = true;
    if (t->bad) return;
    *text = (const char *)t->p;
    *n = (size_t)length;
    t->p += length;
}

int64_t qb_thrift_list(qb_thrift *t, qb_thrift_type type, qb_thrift_type *element) {
    *element = QB_THRIFT_STOP;
    if (type != QB_THRIFT_LIST && type != QB_THRIFT_SET) t->bad = true;
    uint8_t head = t->bad ? 0 : take_byte(t);
    uint64_t n = head >> 4;
    if (n == 15) n = take_varint(t);
    /* Every element takes a byte at least. */
    if (n > (uint64_t)(t->end - t->p) || (head & 15) > QB_THRIFT_STRUCT || (n && !(head & 15))) t->bad = true;
    if (t->bad) return 0;
    *element = (qb_thrift_type)(head & 15);
    return (int64_t)n;
}

static void skip(qb_thrift *t, qb_thrift_type type, int depth, bool inside);

static void skip_struct(qb_thrift *t, int depth) {
    int id = 0;
    for (qb_thrift_type type; (type = qb_thrift_field(t, &id)) != QB_THRIFT_STOP;)
        skip(t, type, depth, false);
}

static void skip_map(qb_thrift *t, int depth) {
    uint64_t n = take_varint(t);
    if (!n || t->bad) return;
    uint8_t types = take_byte(t);
    int key = types >> 4, value = types & 15;
    if (!key || !value || key > QB_THRIFT_STRUCT || value > QB_THRIFT_STRUCT) t->bad = true;
    for (uint64_t i = 0; i < n && !t->bad; i++) {
        skip(t, (qb_thrift_type)key, depth, true);
        skip(t, (qb_thrift_type)value, depth, true);
    }
}

/* A boolean as an element takes a byte, as a field none. */
static void skip(qb_thrift *t, qb_thrift_type type, int depth, bool inside) {
    if (depth == DEEPEST) t->bad = true;
    if (t->bad) return;
    const char *text;
    size_t n;
    switch (type) {
    case QB_THRIFT_TRUE:
    case QB_THRIFT_FALSE:
        if (inside) take_byte(t);
        return;
    case QB_THRIFT_BYTE:
        take_byte(t);
        return;
    case QB_THRIFT_I16:
    case QB_THRIFT_I32:
    case QB_THRIFT_I64:
        take_varint(t);
        return;
    case QB_THRIFT_DOUBLE:
        for (int i = 0; i < 8; i++) take_byte(t);
        return;
    case QB_THRIFT_BINARY:
        qb_thrift_binary(t, type, &text, &n);
        return;
    case QB_THRIFT_LIST:
    case QB_THRIFT_SET: {
        qb_thrift_type element;
        int64_t count = qb_thrift_list(t, type, &element);
        for (int64_t i = 0; i < count && !t->bad; i++) skip(t, element, depth + 1, true);
        return;
    }
    case QB_THRIFT_MAP:
        skip_map(t, depth + 1);
        return;
    case QB_THRIFT_STRUCT:
        skip_struct(t, depth + 1);
        return;
    case QB_THRIFT_STOP:
        break;
    }
    t->bad = true;
}

void qb_thrift_skip(qb_thrift *t, qb_thrift_type type) {
    skip(t, type, 0, false);
}
