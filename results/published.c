#include "results/published.h"

#include "base/text.h"

#include <math.h>
#include <string.h>
#include <strings.h>

enum { MOST_VALUES = 9, SAMPLES = 128, WINDOW = 2048 };
typedef enum { NO, YES, UNSAID } said;

typedef struct {
    const char *source, *models, *dataset, *protocol, *method;
    int bits, group_size; /* -1: whole rows */
    said act_order, symmetric;
    double values[MOST_VALUES]; /* of the models in order; 0: none */
} figures;

typedef struct {
    const char *model, *dataset, *protocol, *method;
    int bits, group_size;
    said act_order;
    double low, high;
} band;

static const figures published[] = {
#define FIGURES(source, models, dataset, protocol, method, bits, group, act_order, symmetric, ...)           \
    {source, models, dataset, protocol, method, bits, group, act_order, symmetric, __VA_ARGS__},
#define BAND(...)
#include "results/published.def"
#undef FIGURES
#undef BAND
};

static const band bands[] = {
#define FIGURES(...)
#define BAND(...) {__VA_ARGS__},
#include "results/published.def"
#undef FIGURES
#undef BAND
};

/* ---- which figure is of this row ---- */

/* Place of the name among the words of `models`; -1. Directories keep the repository's name, in whatever
 * case. */
static int place_of(const char *models, const char *name) {
    size_t n = strlen(name);
    int place = 0;
    for (const char *p = models; *p; place++) {
        size_t length = strcspn(p, " ");
        if (length == n && !strncasecmp(p, name, n)) return place;
        p += length + (p[length] == ' ');
    }
    return -1;
}

static bool flag(const qb_row_case *c, const char *key) {
    return qb_json_true(qb_json_get(qb_json_get(c->json, "config"), key));
}

static bool same_method(const qb_row_case *c, const char *method, int bits, int group_size, said act_order) {
    if (!strcmp(method, "none")) return c->unquantized;
    return !c->unquantized && !strcmp(c->method, method) && c->bits == bits && c->group_size == group_size &&
           flag(c, "act_order") == (act_order == YES);
}

/* ---- what makes the two incomparable ---- */

static void add_reason(qb_str *out, const char *text) {
    qb_str_printf(out, "%s%s", out->length ? ", " : "", text);
}

/* Files that stand in for the canonical ones, as the document's context says. */
static bool is_substitute(const qb_row_case *c, const char *dataset, const char *role) {
    const qb_json *data = qb_json_get(qb_json_get(c->document->results->doc, "context"), "data");
    for (const qb_json *f = qb_json_first(data); f; f = qb_json_next(f)) {
        const char *name = qb_json_string(qb_json_get(f, "dataset")),
                   *of = qb_json_string(qb_json_get(f, "role"));
        const qb_json *canonical = qb_json_get(f, "canonical");
        if (name && of && !strcmp(name, dataset) && !strcmp(of, "train") == !strcmp(role, "train") &&
            !qb_json_is_null(canonical) && !qb_json_true(canonical))
            return true;
    }
    return false;
}

static void find_reasons(const qb_row *row, const figures *f, qb_str *out) {
    const qb_row_case *c = row->of;
    const char *calibration = qb_json_string(qb_json_get(qb_json_get(c->json, "config"), "calibration"));
    if (row->part < 1) qb_str_printf(out, "only the first %.2g %% of the text", 100 * row->part);
    if (is_substitute(c, f->dataset, "test")) add_reason(out, "another text than the canonical one");
    if (c->unquantized) return;
    if (f->symmetric != UNSAID && flag(c, "sym") != (f->symmetric == YES))
        add_reason(out, f->symmetric == YES ? "published with symmetric steps"
                                            : "published with asymmetric steps");
    if (!calibration) return;
    if (c->samples != SAMPLES || c->seqlen != WINDOW || strcmp(calibration, "c4") != 0)
        add_reason(out, "published with 128 windows of 2048 tokens of c4");
    else if (is_substitute(c, calibration, "train"))
        add_reason(out, "calibrated on a substitute for c4");
}

/* ---- bands ---- */

/* Figures have two digits behind the point: what would be printed like a bound is within it. */
static bool find_band(const qb_row *row, const figures *f, double value, double *low, double *high) {
    const double least = 0.005, half = 0.01,
                 seven_billion = 6.6e9; /* of what is called so the least has 6.66 */
    const qb_row_case *c = row->of;
    for (size_t i = 0; i < sizeof bands / sizeof bands[0]; i++) {
        const band *b = &bands[i];
        if (place_of(b->model, c->of) < 0 || strcmp(b->dataset, f->dataset) != 0 ||
            strcmp(b->protocol, f->protocol) != 0 ||
            !same_method(c, b->method, b->bits, b->group_size, b->act_order))
            continue;
        *low = b->low - (b->low == b->high ? half : least);
        *high = b->high + (b->low == b->high ? half : least);
        return true;
    }
    if (!c->unquantized || strcmp(f->protocol, "gptq-2048") != 0 || !(c->n_params >= seven_billion))
        return false;
    *low = value - half;
    *high = value + half;
    return true;
}

/* ---- lines ---- */

static void put_line(const qb_row *row, const figures *f, double value, const char *prefix, bool only_outside,
                     qb_str *out) {
    qb_str reasons = {0};
    double low = 0, high = 0;
    find_reasons(row, f, &reasons);
    bool has_band = !reasons.length && find_band(row, f, value, &low, &high);
    bool outside = has_band && (row->value < low || row->value > high);
    if (!only_outside || outside) {
        qb_str_text(out, prefix);
        qb_text_clean(row->of->model, 60, out);
        qb_str_printf(out, " %s, %s, %s: measured %.4f, published %.6g (%+.2f %%; %s)", row->of->label,
                      f->dataset, f->protocol, row->value, value, 100 * (row->value / value - 1), f->source);
        if (reasons.length)
            qb_str_printf(out, ", not comparable: %s", qb_str_get(&reasons));
        else if (has_band)
            qb_str_printf(out, ", %s the band %.6g to %.6g", outside ? "OUTSIDE" : "within", low, high);
        qb_str_text(out, "\n");
    }
    qb_str_free(&reasons);
}

static void put_row(const qb_row *row, const char *prefix, bool outside, qb_str *out) {
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
        const figures *f = &published[i];
        int place = place_of(f->models, row->of->of);
        if (place < 0 || place >= MOST_VALUES || f->values[place] == 0) continue;
        if (strcmp(f->dataset, row->dataset) != 0 || strcmp(f->protocol, row->protocol) != 0) continue;
        if (same_method(row->of, f->method, f->bits, f->group_size, f->act_order))
            put_line(row, f, f->values[place], prefix, outside, out);
    }
}

void qb_published_notes(const qb_rows *rows, const char *prefix, bool outside, qb_str *out) {
    for (int i = 0; i < rows->n_rows; i++) {
        const qb_row *row = &rows->rows[i];
        bool fits = row->status == QB_ROW_OK && !row->projected && !strcmp(row->name, "perplexity") &&
                    row->of->status == QB_ROW_OK && !row->of->published &&
                    !strcmp(row->of->of, row->of->model); /* what a model was tuned to is no figure of its */
        if (fits && isfinite(row->value)) put_row(row, prefix, outside, out);
    }
}
