#include "tokenizer/protobuf.h"

#include <string.h>

static size_t offset(const qb_proto *m) {
    return (size_t)(m->p - m->begin);
}

static qb_status varint(qb_proto *m, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (m->p == m->end) return qb_fail(QB_ERR_FORMAT, "%s: cut short at byte %zu", m->name, offset(m));
        uint8_t byte = *m->p++;
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return QB_OK;
    }
    return qb_fail(QB_ERR_FORMAT, "%s: a number of more than 64 bits at byte %zu", m->name, offset(m));
}

static qb_status fixed(qb_proto *m, size_t n, uint64_t *out) {
    if ((size_t)(m->end - m->p) < n)
        return qb_fail(QB_ERR_FORMAT, "%s: cut short at byte %zu", m->name, offset(m));
    *out = 0;
    for (size_t i = 0; i < n; i++) *out |= (uint64_t)m->p[i] << (8 * i);
    m->p += n;
    return QB_OK;
}

qb_status qb_proto_next(qb_proto *m, qb_proto_field *field, bool *more) {
    *more = m->p < m->end;
    if (!*more) return QB_OK;
    uint64_t tag;
    qb_status st = varint(m, &tag);
    if (st != QB_OK) return st;
    *field = (qb_proto_field){.number = (uint32_t)(tag >> 3), .wire = tag & 7};
    if (tag >> 3 == 0 || tag >> 32)
        return qb_fail(QB_ERR_FORMAT, "%s: no field has the number at byte %zu: not a SentencePiece model?",
                       m->name, offset(m));
    if (field->wire == 0) return varint(m, &field->value);
    if (field->wire == 1) return fixed(m, 8, &field->value);
    if (field->wire == 5) return fixed(m, 4, &field->value);
    if (field->wire != 2)
        return qb_fail(QB_ERR_FORMAT, "%s: wire type %d at byte %zu: not a SentencePiece model?", m->name,
                       field->wire, offset(m));
    uint64_t length;
    if ((st = varint(m, &length)) != QB_OK) return st;
    if (length > (size_t)(m->end - m->p))
        return qb_fail(QB_ERR_FORMAT, "%s: a field at byte %zu claims %llu bytes, %zu are left", m->name,
                       offset(m), (unsigned long long)length, (size_t)(m->end - m->p));
    field->bytes = m->p;
    field->length = (size_t)length;
    m->p += field->length;
    return QB_OK;
}

qb_proto qb_proto_inside(const qb_proto *m, const qb_proto_field *field) {
    return (qb_proto){
        .p = field->bytes, .end = field->bytes + field->length, .name = m->name, .begin = m->begin};
}

qb_status qb_proto_expect(const qb_proto *m, const qb_proto_field *field, uint8_t wire, const char *what) {
    if (field->wire == wire) return QB_OK;
    return qb_fail(QB_ERR_FORMAT, "%s: %s must have wire type %d, found %d before byte %zu", m->name, what,
                   wire, field->wire, offset(m));
}

float qb_proto_float(const qb_proto_field *field) {
    uint32_t bits = (uint32_t)field->value;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
