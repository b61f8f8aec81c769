#include "results/case.h"

#include "results/text.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { MAX_LABEL_COLUMNS = 44 };

static bool same_text(const qb_json *string, const char *wanted) {
    const char *text = qb_json_string(string);
    return text && !strcmp(text, wanted);
}

bool qb_case_is_ok(const qb_json *c) {
    return same_text(qb_json_get(c, "status"), "ok");
}

bool qb_metric_is_ok(const qb_json *m) {
    return same_text(qb_json_get(m, "status"), "ok") && qb_json_is_number(qb_json_get(m, "value"));
}

double qb_metric_spread(const qb_json *m) {
    double samples = qb_json_number(qb_json_get(m, "n"));
    if (!(samples > 1)) return (double)NAN; /* a comparison with NaN is false */
    return qb_json_number(qb_json_get(m, "sd")) / fabs(qb_json_number(qb_json_get(m, "value")));
}

bool qb_metric_is_noisy(const qb_json *m) {
    const qb_json *own = qb_json_get(m, "noisy");
    return qb_json_is_null(own) ? qb_metric_spread(m) > QB_NOISY : qb_json_true(own);
}

double qb_perplexity_part(const qb_json *metric) {
    const char *protocol = qb_json_string(qb_json_get(metric, "protocol"));
    if (qb_json_is_number(qb_json_get(metric, "text_part")))
        return qb_json_number(qb_json_get(metric, "text_part"));
    double length = qb_json_number(qb_json_get(metric, "window_tokens")),
           total = qb_json_number(qb_json_get(metric, "total_tokens"));
    double covered = length * qb_json_number(qb_json_get(metric, "windows"));
    /* Strided windows overlap, and score each token once. */
    if (protocol && !strncmp(protocol, "strided", 7))
        covered = qb_json_number(qb_json_get(metric, "scored_tokens"));
    return covered + length <= total ? covered / total
                                     : 1; /* NaN, where a figure is missing, compares false */
}

const char *qb_case_model(const qb_json *c) {
    const char *name = qb_json_string(qb_json_get(qb_json_get(c, "model"), "name"));
    return name ? name : "";
}

double qb_case_metric(const qb_json *c, const char *name, const char *protocol, const char *dataset) {
    const qb_json *m = qb_results_metric(c, name, protocol, dataset);
    return m && qb_metric_is_ok(m) ? qb_json_number(qb_json_get(m, "value")) : (double)NAN;
}

/* The measured row first, then what the quantizer reported, then what the model's files said. */
static double figure(const qb_json *c, const char *name) {
    double value = qb_case_metric(c, name, NULL, NULL);
    if (isnan(value)) value = qb_json_number(qb_json_get(qb_json_get(c, "quantization"), name));
    if (isnan(value)) value = qb_json_number(qb_json_get(qb_json_get(c, "model"), name));
    return value;
}
double qb_case_bits_per_weight(const qb_json *c) {
    return figure(c, "bits_per_weight");
}
double qb_case_checkpoint_bytes(const qb_json *c) {
    return figure(c, "checkpoint_bytes");
}
double qb_case_peak_rss_bytes(const qb_json *c) {
    return qb_case_metric(c, "peak_rss_bytes", NULL, NULL);
}

double qb_case_device_bytes(const qb_json *c) {
    return qb_case_metric(c, "device_memory_bytes", NULL, NULL);
}

bool qb_metric_is_projected(const qb_json *m) {
    return qb_json_true(qb_json_get(m, "projected"));
}

const char *qb_case_projected_device(const qb_json *c) {
    const qb_json *metrics = qb_json_get(c, "metrics");
    for (const qb_json *m = qb_json_first(metrics); m; m = qb_json_next(m))
        if (qb_metric_is_projected(m)) {
            const char *device = qb_json_string(qb_json_get(qb_json_get(c, "config"), "device"));
            return device ? device : "";
        }
    return NULL;
}

double qb_case_quantize_seconds(const qb_json *c) {
    double value = qb_case_metric(c, "quantize_seconds", NULL, NULL);
    return isnan(value) ? qb_json_number(qb_json_get(qb_json_get(c, "quantization"), "seconds")) : value;
}

bool qb_case_is_unquantized(const qb_json *c) {
    if (qb_json_is_object(qb_json_get(c, "quantization"))) return false;
    const char *method = qb_json_string(qb_json_get(qb_json_get(c, "config"), "method"));
    if (method) {
        static const char *const plain[] = {"none", "f16", "f32", "bf16", "fp16", "fp32"};
        for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
            if (!strcmp(method, plain[i])) return true;
        return false;
    }
    return qb_case_bits_per_weight(c) >= 16;
}

const char *qb_results_protocol(const qb_results *r, const char *name, const char *preferred) {
    const char *first = NULL;
    const qb_json *cases = qb_json_get(r->doc, "cases");
    for (const qb_json *c = qb_json_first(cases); c; c = qb_json_next(c))
        for (const qb_json *m = qb_json_first(qb_json_get(c, "metrics")); m; m = qb_json_next(m)) {
            if (!same_text(qb_json_get(m, "name"), name) || !qb_metric_is_ok(m)) continue;
            const char *protocol = qb_json_string(qb_json_get(m, "protocol"));
            if (!protocol) protocol = "";
            if (preferred && !strcmp(protocol, preferred)) return protocol;
            if (!first) first = protocol;
        }
    return first;
}

const char *qb_results_headline(const qb_results *r, const char *name) {
    return qb_results_protocol(r, name, !strcmp(name, "decode") ? "tg128@d0 b1" : "pp512 b1");
}

/* The words of a label: method, and after the bits whatever of the configuration is not each method's usual
 * form. */
static void put_method(const qb_json *c, qb_str *out) {
    const char *method = qb_json_string(qb_json_get(qb_json_get(c, "config"), "method"));
    if (qb_case_is_unquantized(c)) {
        double bits = qb_case_bits_per_weight(c);
        const char *dtype = qb_json_string(qb_json_get(qb_json_get(c, "model"), "dtype"));
        if (dtype && (!method || !strcmp(method, "none"))) method = dtype;
        if (method && strcmp(method, "none")) {
            for (const char *p = method; *p; p++) qb_str_printf(out, "%c", toupper((unsigned char)*p));
        } else if (bits >= 1 && bits <= 64) {
            qb_str_printf(out, "%.0f bit", bits);
        } else {
            qb_str_text(out, "unquantized");
        }
        return;
    }
    if (!method || !*method) {
        qb_text_clean(qb_json_string(qb_json_get(c, "id")), MAX_LABEL_COLUMNS, out);
        return;
    }
    /* Methods are known by short acronyms; a long name is a word and stays as it is. */
    if (strlen(method) <= 6)
        for (const char *p = method; *p; p++) {
            char upper[2] = {(char)toupper((unsigned char)*p), 0};
            qb_str_append(out, upper, 1);
        }
    else
        qb_text_clean(method, MAX_LABEL_COLUMNS, out);
}

static void put_bits(const qb_json *c, qb_str *out) {
    double bits = qb_json_number(qb_json_get(qb_json_get(c, "config"), "bits"));
    const char *method = qb_json_string(qb_json_get(qb_json_get(c, "config"), "method"));
    /* "NF4" says its width already. */
    if (!(bits > 0) || qb_case_is_unquantized(c) || (method && strpbrk(method, "0123456789"))) return;
    qb_str_printf(out, " %gb", bits);
}

static void put_variant(const qb_json *c, qb_str *out) {
    if (qb_case_is_unquantized(c)) return;
    const qb_json *config = qb_json_get(c, "config");
    double group = qb_json_number(qb_json_get(config, "group_size"));
    double block = qb_json_number(qb_json_get(config, "block_size"));
    if (group > 0) qb_str_printf(out, " g%.0f", group);
    if (block > 0 && block != 64) qb_str_printf(out, " b%.0f", block);
    if (qb_json_true(qb_json_get(config, "double_quant"))) qb_str_text(out, " DQ");
    if (qb_json_true(qb_json_get(config, "act_order"))) qb_str_text(out, " act");
    if (qb_json_true(qb_json_get(config, "static_groups"))) qb_str_text(out, " static");
    if (qb_json_true(qb_json_get(config, "mse"))) qb_str_text(out, " mse");
}

static void put_projected(const qb_json *c, qb_str *out) {
    const char *device = qb_case_projected_device(c);
    if (device) qb_str_printf(out, "%s%s projected", *device ? " " : "", device);
}

void qb_case_series(const qb_json *c, qb_str *out) {
    qb_str raw = {0};
    put_method(c, &raw);
    put_variant(c, &raw);
    put_projected(c, &raw);
    qb_text_clean(qb_str_get(&raw), MAX_LABEL_COLUMNS, out);
    out->failed |= raw.failed;
    qb_str_free(&raw);
}

static void put_label(const qb_json *c, qb_str *out) {
    put_method(c, out);
    put_bits(c, out);
    put_variant(c, out);
    put_projected(c, out);
}

static void put_scalar(const qb_json *value, qb_str *out) {
    const char *text = qb_json_string(value);
    if (text)
        qb_str_text(out, text);
    else if (qb_json_is_number(value))
        qb_str_printf(out, "%g", qb_json_number(value));
    else
        qb_str_text(out, qb_json_true(value) ? "yes" : "no");
}

static bool same_scalar(const qb_json *a, const qb_json *b) {
    if (qb_json_is_null(a) || qb_json_is_null(b)) return qb_json_is_null(a) == qb_json_is_null(b);
    qb_str ta = {0}, tb = {0};
    put_scalar(a, &ta);
    put_scalar(b, &tb);
    bool same = !strcmp(qb_str_get(&ta), qb_str_get(&tb));
    qb_str_free(&ta);
    qb_str_free(&tb);
    return same;
}

typedef struct labelled {
    const qb_json *c;
    const char *base, *model;
} labelled;

static bool twins(const labelled *a, const labelled *b) {
    return !strcmp(a->base, b->base) && !strcmp(a->model, b->model);
}

/* Appends the scalar config values of item i that differ from a twin's, then the id if nothing does. */
static void tell_apart(const labelled *items, int64_t n, int64_t i, qb_str *out) {
    qb_str_text(out, items[i].base);
    bool told = false;
    const qb_json *config = qb_json_get(items[i].c, "config");
    for (const qb_json *v = qb_json_first(config); v; v = qb_json_next(v)) {
        if (qb_json_is_object(v) || qb_json_is_array(v) || !strcmp(qb_json_key(v), "model")) continue;
        bool differs = false;
        for (int64_t j = 0; j < n && !differs; j++)
            differs = j != i && twins(&items[i], &items[j]) &&
                      !same_scalar(v, qb_json_get(qb_json_get(items[j].c, "config"), qb_json_key(v)));
        if (!differs) continue;
        qb_str_printf(out, " %s=", qb_json_key(v));
        put_scalar(v, out);
        told = true;
    }
    if (!told) qb_str_printf(out, " (%s)", qb_json_string(qb_json_get(items[i].c, "id")));
}

qb_status qb_case_labels(const qb_results *r, qb_arena *arena, const char ***labels, int64_t *count) {
    const qb_json *cases = qb_json_get(r->doc, "cases");
    int64_t n = qb_json_count(cases), i = 0;
    labelled *items;
    qb_str text = {0};
    qb_status st;
    *labels = NULL;
    *count = n;
    QB_TRY(st, qb_arena_alloc(arena, (size_t)n, sizeof **labels, labels));
    QB_TRY(st, qb_arena_alloc(arena, (size_t)n, sizeof *items, &items));
    for (const qb_json *c = qb_json_first(cases); c; c = qb_json_next(c), i++) {
        qb_str_free(&text);
        put_label(c, &text);
        QB_TRY(st, qb_str_status(&text));
        items[i] = (labelled){.c = c, .model = qb_case_model(c)};
        QB_TRY(st, qb_arena_strdup(arena, qb_str_get(&text), &items[i].base));
    }
    for (i = 0; i < n; i++) {
        bool alone = true;
        for (int64_t j = 0; j < n && alone; j++) alone = j == i || !twins(&items[i], &items[j]);
        qb_str raw = {0};
        if (alone)
            qb_str_text(&raw, items[i].base);
        else
            tell_apart(items, n, i, &raw);
        qb_str_free(&text);
        qb_text_clean(qb_str_get(&raw), MAX_LABEL_COLUMNS, &text);
        text.failed |= raw.failed;
        qb_str_free(&raw);
        QB_TRY(st, qb_str_status(&text));
        QB_TRY(st, qb_arena_strdup(arena, qb_str_get(&text), &(*labels)[i]));
    }
out:
    qb_str_free(&text);
    return st;
}
