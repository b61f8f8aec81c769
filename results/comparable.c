#include "results/comparable.h"

#include "base/memory.h"
#include "results/device.h"
#include "results/text.h"

#include <string.h>

static const char *text_of(const qb_json *object, const char *key) {
    const char *text = qb_json_string(qb_json_get(object, key));
    return text ? text : "";
}

/* ---- the lists ---- */

typedef struct listed {
    const char *key;
    unsigned matters; /* to these kinds; a key that is not listed matters to all */
} listed;

/* Of a case's config. Texts and lengths stand in each row, which is compared by what it says. */
static const listed config_keys[] = {
    {"path", 0},
    {"threads", QB_COMPARE_SPEED | QB_COMPARE_MEMORY | QB_COMPARE_WHOLE},
    {"texts", QB_COMPARE_WHOLE},
    {"metrics", QB_COMPARE_WHOLE},
    {"speed", 0}, /* member by member, below */
    {NULL, 0},
};
/* Of config.speed. */
static const listed speed_keys[] = {
    {"prefill", QB_COMPARE_WHOLE},   {"decode", QB_COMPARE_WHOLE},      {"depth", QB_COMPARE_WHOLE},
    {"batch", QB_COMPARE_WHOLE},     {"repeat", QB_COMPARE_WHOLE},      {"warmup", QB_COMPARE_WHOLE},
    {"precision", QB_COMPARE_WHOLE}, {"budget_s", QB_COMPARE_WHOLE},    {"sample_ms", QB_COMPARE_WHOLE},
    {"rounds", QB_COMPARE_WHOLE},    {"activations", QB_COMPARE_WHOLE}, {NULL, 0},
};
/* Of a row. What one of two rows does not state, because an earlier version of the program did not write it,
   tells nothing, but where absence has a meaning. */
static const struct {
    const char *key, *words;
    bool absent_differs;
} row_facts[] = {
    {"unit", "units differ", true},
    {"better", "directions differ", true},
    {"windows", "windows differ", false},
    {"window_tokens", "window lengths differ", false},
    {"scored_tokens", "scored tokens differ", false},
    {"special_tokens", "rules for special tokens differ", false},
    {"reduction", "reductions differ", false},
    {"data_sha256", "token ids differ", true},
    {"prompts", "prompts differ", false},
    {"prompt_tokens_total", "prompts differ", false},
    {"host_blocks", "blocks in host memory differ", true},
    {"base_sha256", "bases differ", false},
    {"activations", "activations differ", true}, /* absent: float32 */
};

/* ---- cases ---- */

static bool matters(const listed *keys, const char *key, qb_comparison_kind kind) {
    for (; keys->key; keys++)
        if (!strcmp(keys->key, key)) return (keys->matters & (unsigned)kind) != 0;
    return true;
}

/* The first key whose value differs and matters; NULL when there is none. */
static const char *first_difference(const qb_json *a, const qb_json *b, const listed *keys,
                                    qb_comparison_kind kind) {
    for (const qb_json *x = qb_json_first(a); x; x = qb_json_next(x))
        if (matters(keys, qb_json_key(x), kind) && !qb_json_equal(x, qb_json_get(b, qb_json_key(x))))
            return qb_json_key(x);
    for (const qb_json *y = qb_json_first(b); y; y = qb_json_next(y))
        if (matters(keys, qb_json_key(y), kind) && !qb_json_is_null(y) &&
            qb_json_is_null(qb_json_get(a, qb_json_key(y))))
            return qb_json_key(y);
    return NULL;
}

static void put_json(const qb_json *v, qb_str *out) {
    char *text = NULL;
    qb_str clean = {0};
    if (v && qb_json_print(v, false, &text) == QB_OK) qb_text_clean(text, 60, &clean);
    qb_str_text(out, v && clean.length ? qb_str_get(&clean) : "nothing");
    qb_str_free(&clean);
    qb_free(text);
}

static void put_difference(const char *what, const char *key, const qb_json *a, const qb_json *b,
                           qb_str *out) {
    qb_str_printf(out, "%s differs: ", what);
    qb_text_clean(key, 40, out);
    qb_str_text(out, " ");
    put_json(qb_json_get(a, key), out);
    qb_str_text(out, " against ");
    put_json(qb_json_get(b, key), out);
}

void qb_cases_comparable(const qb_json *a, const qb_json *b, qb_comparison_kind kind, qb_str *why) {
    const qb_json *ca = qb_json_get(a, "config"), *cb = qb_json_get(b, "config");
    const char *key = first_difference(ca, cb, config_keys, kind);
    if (!key && kind & (QB_COMPARE_SPEED | QB_COMPARE_WHOLE)) {
        ca = qb_json_get(ca, "speed");
        cb = qb_json_get(cb, "speed");
        key = first_difference(ca, cb, speed_keys, kind);
    }
    if (key) {
        put_difference("config", key, ca, cb, why);
        return;
    }
    const qb_json *ma = qb_json_get(a, "model"), *mb = qb_json_get(b, "model");
    if (!qb_json_is_object(ma) || !qb_json_is_object(mb)) return; /* a planned case has none yet */
    const char *sa = text_of(ma, "sha256"), *sb = text_of(mb, "sha256");
    /* A quantized model's files may differ where the quantizer changed: that is what is to be compared. */
    bool made_here = qb_json_is_object(qb_json_get(a, "quantization"));
    if (strcmp(text_of(ma, "name"), text_of(mb, "name")) != 0)
        put_difference("model", "name", ma, mb, why);
    else if (!made_here && *sa && *sb && strcmp(sa, sb) != 0)
        put_difference("model", "sha256", ma, mb, why);
}

void qb_devices_comparable(const qb_json *a, const qb_json *b, qb_str *why) {
    if (!a || !b) {
        qb_str_printf(why, "the %s document does not say on which device", a ? "new" : "old");
        return;
    }
    const char *key = qb_device_difference(a, b);
    if (key) put_difference("device", key, a, b, why);
}

/* ---- rows ---- */

void qb_rows_comparable(const qb_row *a, const qb_row *b, qb_str *why) {
    if (a->projected != b->projected) {
        qb_str_text(why, "a projected figure is no measurement: it stands against none");
        return;
    }
    for (size_t i = 0; i < sizeof row_facts / sizeof row_facts[0]; i++) {
        const qb_json *x = qb_json_get(a->json, row_facts[i].key),
                      *y = qb_json_get(b->json, row_facts[i].key);
        bool unknown = qb_json_is_null(x) || qb_json_is_null(y);
        if (qb_json_equal(x, y) || (unknown && !row_facts[i].absent_differs)) continue;
        qb_str_printf(why, "%s: ", row_facts[i].words);
        const qb_json *sides[] = {x, y};
        for (int k = 0; k < 2; k++) {
            if (k) qb_str_text(why, " against ");
            if (qb_json_is_string(sides[k]))
                qb_text_clean(qb_json_string(sides[k]), 24, why);
            else
                put_json(qb_json_is_null(sides[k]) ? NULL : sides[k], why);
        }
        return;
    }
}

static void put_fact(const char *where, const char *key, const qb_json *value, qb_str *out) {
    char *text = NULL;
    if (qb_json_is_null(value) || qb_json_print(value, false, &text) != QB_OK) return;
    qb_str_printf(out, "%s %s %s\n", where, key, text);
    qb_free(text);
}

static void put_listed(const char *where, const qb_json *object, const listed *keys, qb_comparison_kind kind,
                       qb_str *out) {
    for (const qb_json *x = qb_json_first(object); x; x = qb_json_next(x))
        if (matters(keys, qb_json_key(x), kind)) put_fact(where, qb_json_key(x), x, out);
}

void qb_row_facts(const qb_row *row, qb_str *out) {
    qb_comparison_kind kind = qb_row_comparison(row);
    const qb_json *config = qb_json_get(row->of->json, "config"),
                  *model = qb_json_get(row->of->json, "model");
    qb_str_printf(out, "case %s\nrow %s, %s, %s%s\n", row->of->id, row->name, row->dataset, row->protocol,
                  row->projected ? ", projected" : "");
    put_listed("config", config, config_keys, kind, out);
    if (kind == QB_COMPARE_SPEED)
        put_listed("config speed", qb_json_get(config, "speed"), speed_keys, kind, out);
    put_fact("model", "name", qb_json_get(model, "name"), out);
    if (!qb_json_is_object(qb_json_get(row->of->json, "quantization")))
        put_fact("model", "sha256", qb_json_get(model, "sha256"), out);
    for (size_t i = 0; i < sizeof row_facts / sizeof row_facts[0]; i++)
        put_fact("row", row_facts[i].key, qb_json_get(row->json, row_facts[i].key), out);
    if (kind != QB_COMPARE_QUALITY && row->of->device) qb_device_identity(row->of->device->json, out);
}

qb_comparison_kind qb_row_comparison(const qb_row *row) {
    switch (qb_row_judge(row)) {
    case QB_JUDGE_TIME:
        return QB_COMPARE_SPEED;
    case QB_JUDGE_MEMORY:
        return QB_COMPARE_MEMORY;
    default:
        return QB_COMPARE_QUALITY;
    }
}
