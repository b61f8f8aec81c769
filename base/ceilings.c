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

static const char *key_of(const qb_ceiling *c, const char *suffix, char key[64]) {
    snprintf(key, 64, "%s%s", c->key, suffix);
    return key;
}

void qb_ceilings_write(const qb_ceilings *c, const char *suffix, qb_json *to) {
    char key[64];
    for (const qb_ceiling *one = table; one < table + sizeof table / sizeof *table; one++)
        if (qb_ceiling_of(c, one) > 0) qb_json_put_real(to, key_of(one, suffix, key), qb_ceiling_of(c, one));
}

qb_ceilings qb_ceilings_read(const qb_json *from, const char *suffix) {
    qb_ceilings out;
    char key[64];
    for (const qb_ceiling *one = table; one < table + sizeof table / sizeof *table; one++) {
        double value = qb_json_number(qb_json_get(from, key_of(one, suffix, key)));
        memcpy((char *)&out + one->offset, &value, sizeof value);
    }
    return out;
}
