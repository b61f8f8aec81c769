#include "base/ceilings.h"

#include <stdio.h>
#include <string.h>

static const qb_ceiling table[] = {
#define X(field, row_key, name, unit, scale)                                                                 \
    {offsetof(qb_ceilings, field), #field, row_key, name, unit, scale},
#include "base/ceilings.def"
#undef X
};

const qb_ceiling *qb_ceiling_at(size_t index) {
    return index < sizeof table / sizeof *table ? &table[index] : NULL;
}

double qb_ceiling_of(const qb_ceilings *c, const qb_ceiling *which) {
    double value;
    memcpy(&value, (const char *)c + which->offset, sizeof value);
    return value;
}

static const char *key_of(const char *name, const char *suffix, char key[64]) {
    snprintf(key, 64, "%s%s", name, suffix);
    return key;
}

static void write_one(double value, const char *name, const char *suffix, qb_json *to) {
    char key[64];
    if (value > 0) qb_json_put_real(to, key_of(name, suffix, key), value);
}

void qb_ceilings_write(const qb_ceilings *c, const char *suffix, qb_json *to) {
    for (const qb_ceiling *one = table; one < table + sizeof table / sizeof *table; one++)
        write_one(qb_ceiling_of(c, one), one->key, suffix, to);
    write_one(c->cpu_share, "cpu_share", suffix, to);
}

qb_ceilings qb_ceilings_read(const qb_json *from, const char *suffix) {
    qb_ceilings out = {0};
    char key[64];
    for (const qb_ceiling *one = table; one < table + sizeof table / sizeof *table; one++) {
        double value = qb_json_number(qb_json_get(from, key_of(one->key, suffix, key)));
        memcpy((char *)&out + one->offset, &value, sizeof value);
    }
    out.cpu_share = qb_json_number(qb_json_get(from, key_of("cpu_share", suffix, key)));
    return out;
}
