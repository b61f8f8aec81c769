#include "bench/measure/display.h"

#include "bench/measure/record.h"

#include <ctype.h>
#include <string.h>

static void put_upper(const char *text, qb_str *out) {
    for (const char *p = text; *p; p++) {
        char c = (char)toupper((unsigned char)*p);
        qb_str_append(out, &c, 1);
    }
}

/* A checkpoint that came quantized: its own name for the codes, and their bits and groups where that does not
   say them. */
static void put_published(const qb_quantization *q, bool with_bits, qb_str *out) {
    const char *name = q->codebook[0] ? q->codebook : q->method;
    bool says_bits = strpbrk(name, "0123456789") != NULL;
    if (strlen(name) <= 8)
        put_upper(name, out);
    else
        qb_str_text(out, name); /* a word, no acronym */
    if (with_bits && !says_bits && q->bits > 0) qb_str_printf(out, " %db", q->bits);
    if (!says_bits && q->group_size > 0) qb_str_printf(out, " g%lld", (long long)q->group_size);
    if (q->codebook[0] && q->double_quant) qb_str_text(out, " DQ");
    if (qb_quant_method_find(name)) qb_str_text(out, " published");
}

static void put_found(const qb_model *m, bool with_bits, qb_str *out) {
    const qb_quantization *q = qb_checkpoint_quantization(m->checkpoint);
    char type[96];
    if (q && q->method[0]) {
        put_published(q, with_bits, out);
        return;
    }
    qb_record_found_label(m, type);
    put_upper(type, out);
}

qb_json *qb_display_json(const qb_display *d) {
    qb_json *j = qb_json_object();
    for (int with_bits = 1; with_bits >= 0; with_bits--) {
        qb_str text = {0};
        if (d->whose) qb_str_printf(&text, "%s ", d->whose);
        if (with_bits && d->own)
            qb_str_text(&text, d->own);
        else if (d->method)
            qb_quant_title(d->method, d->config, with_bits, &text);
        else
            put_found(d->found, with_bits, &text);
        qb_json_put_text(j, with_bits ? "label" : "series", qb_str_get(&text));
        qb_str_free(&text);
    }
    qb_json_put_text(j, "of", d->of);
    return j;
}
