#include "quant/method.h"

#include <string.h>

#define X(name) extern const qb_quant_method qb_method_##name;
#include "quant/methods.def"
#undef X

static const qb_quant_method *const methods[] = {
#define X(name) &qb_method_##name,
#include "quant/methods.def"
#undef X
};

enum {
    N_METHODS = 0
#define X(name) +1
#include "quant/methods.def"
#undef X
};

const qb_quant_method *qb_quant_method_at(size_t index) {
    return index < N_METHODS ? methods[index] : NULL;
}

const qb_quant_method *qb_quant_method_find(const char *name) {
    for (size_t i = 0; i < N_METHODS; i++)
        if (name && strcmp(methods[i]->name, name) == 0) return methods[i];
    return NULL;
}

void qb_quant_label(const qb_quant_method *method, const qb_quant_config *config, qb_str *out) {
    qb_str_text(out, method->name);
    if (method->label) method->label(config, out);
}
