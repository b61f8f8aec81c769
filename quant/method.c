#include "quant/method.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
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

static void put_word(const char *word, size_t n, bool upper, qb_str *out) {
    for (size_t i = 0; i < n; i++) {
        char c = upper ? (char)toupper((unsigned char)word[i]) : word[i];
        qb_str_append(out, &c, 1);
    }
}

/* The words of the label, of which "row", no group at all, goes without saying. */
void qb_quant_title(const qb_quant_method *method, const qb_quant_config *config, bool with_bits,
                    qb_str *out) {
    qb_str label = {0};
    char bits[32];
    snprintf(bits, sizeof bits, "%" PRId64 "b", config->bits);
    /* Methods are known by short acronyms; a longer name is a word and stays as it is. */
    put_word(method->name, strlen(method->name), strlen(method->name) <= 6, out);
    if (method->label) method->label(config, &label);
    for (const char *p = qb_str_get(&label); *p;) {
        p += *p == '-';
        size_t n = strcspn(p, "-");
        bool is_bits = n == strlen(bits) && !strncmp(p, bits, n), is_row = n == 3 && !strncmp(p, "row", 3);
        if (n && !is_row && (with_bits || !is_bits)) {
            qb_str_text(out, " ");
            put_word(p, n, n == 2 && !strncmp(p, "dq", 2), out);
        }
        p += n;
    }
    out->failed |= label.failed;
    qb_str_free(&label);
}
