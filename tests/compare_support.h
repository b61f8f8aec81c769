/* Two documents to compare, as a text whose parts the tests edit. */
#pragma once

#include "results/compare.h"
#include "tests/support.h"

static const qb_compare_config usual = {
    .perplexity_tolerance_pct = 0.1, .speed_effect_pct = 5, .alpha = 0.01, .memory_tolerance_pct = 1};

#define DECODE  "[30.0,30.2,29.9,30.1,29.8,30.05,29.95,30.15,29.85]"
#define LATENCY "[2.0,2.01,1.99,2.02,1.98,2.005,1.995,2.015]"
/* Two cases on one machine, every kind of row; the text is edited by the tests. */
static const char base_text[] =
    "{\"schema\":\"qb.results/1\",\"context\":{\"program\":{\"name\":\"q\",\"version\":\"1\"},"
    "\"created\":\"2026-11-22T06:10:00Z\",\"machine\":{\"cpu\":\"CPU-A\",\"cores\":2,\"threads\":2,\"gpu\":[]"
    "}},"
    "\"cases\":[{\"id\":\"m/"
    "gptq\",\"status\":\"ok\",\"error\":null,\"config\":{\"method\":\"gptq\",\"bits\":4,\"threads\":2},"
    "\"model\":{\"name\":\"m\"},\"quantization\":{\"method\":\"gptq\"},\"metrics\":["
    "{\"name\":\"perplexity\",\"value\":10.0,\"unit\":\"1\",\"better\":\"lower\",\"protocol\":\"gptq-512\","
    "\"dataset\":\"w\","
    "\"stderr\":0.5,\"status\":\"ok\",\"windows\":4,\"data_sha256\":"
    "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},"
    "{\"name\":\"decode\",\"value\":30,\"unit\":\"tok/"
    "s\",\"better\":\"higher\",\"protocol\":\"tg128\",\"status\":\"ok\","
    "\"samples\":" DECODE "},"
    "{\"name\":\"latency\",\"value\":2,\"unit\":\"s\",\"better\":\"lower\",\"status\":\"ok\","
    "\"samples\":" LATENCY "},"
    "{\"name\":\"checkpoint_bytes\",\"value\":1000000,\"unit\":\"B\",\"better\":\"lower\",\"status\":\"ok\"},"
    "{\"name\":\"logits_sha256\",\"value\":null,\"unit\":\"1\",\"better\":\"lower\",\"status\":\"ok\","
    "\"sha256\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"}]},"
    "{\"id\":\"m/nf4\",\"status\":\"failed\",\"error\":\"out of "
    "memory\",\"config\":{},\"model\":null,\"metrics\":[]}]}";

static inline void parse(const char *text, qb_results *out) {
    assert_ok(qb_results_parse(text, strlen(text), "doc.json", out));
}

static inline void read_rows(const qb_results *r, qb_rows *out) {
    assert_ok(qb_rows_read(&r, 1, out));
}

/* base_text with the one occurrence of `from` replaced. */
static inline char *edited(const char *from, const char *to) {
    const char *at = strstr(base_text, from);
    if (!at) fail_msg("no \"%s\" in the document", from);
    qb_str s = {0};
    qb_str_append(&s, base_text, (size_t)(at - base_text));
    qb_str_text(&s, to);
    qb_str_text(&s, at + strlen(from));
    return s.text;
}

typedef struct outcome {
    qb_verdict verdict;
    int exit_code;
    qb_str text, json;
    size_t counts[QB_N_VERDICTS];
} outcome;

static inline outcome compare_several(const qb_results *const *olds, int n_olds,
                                      const qb_results *const *news, int n_news,
                                      const qb_compare_config *config) {
    outcome o = {0};
    qb_rows a, b;
    qb_comparison c;
    assert_ok(qb_rows_read(olds, n_olds, &a));
    assert_ok(qb_rows_read(news, n_news, &b));
    assert_ok(qb_compare(&a, &b, config, &c));
    o.verdict = qb_comparison_verdict(&c);
    o.exit_code = qb_comparison_exit_code(&c);
    for (int v = 0; v < QB_N_VERDICTS; v++) o.counts[v] = qb_comparison_count(&c, (qb_verdict)v);
    assert_ok(qb_compare_write_text(&c, &o.text));
    assert_ok(qb_compare_write_json(&c, &o.json));
    qb_comparison_free(&c);
    qb_rows_free(&a);
    qb_rows_free(&b);
    return o;
}
static inline outcome compare_sets(const qb_results *const *olds, int n_olds, const qb_results *after,
                                   const qb_compare_config *config) {
    return compare_several(olds, n_olds, &after, 1, config);
}

static inline void outcome_free(outcome *o) {
    qb_str_free(&o->text);
    qb_str_free(&o->json);
}

static inline outcome compare_texts(const char *before, const char *after, const qb_compare_config *config) {
    qb_results a, b;
    parse(before, &a);
    parse(after, &b);
    outcome o = compare_sets((const qb_results *[]){&a}, 1, &b, config);
    qb_results_close(&a);
    qb_results_close(&b);
    return o;
}

static inline outcome compare_edit(const char *from, const char *to, const qb_compare_config *config) {
    char *text = from ? edited(from, to) : qb_strdup(base_text);
    outcome o = compare_texts(base_text, text, config);
    qb_free(text);
    return o;
}

/* In the base document five rows compare, and a case fails on both sides. */
static inline void expect(const char *from, const char *to, qb_verdict verdict, const char *words) {
    outcome o = compare_edit(from, to, &usual);
    int exit_code = verdict == QB_REGRESSION || verdict == QB_MISSING ? 1 : 0;
    size_t others = 0;
    for (int v = 0; v < QB_N_VERDICTS; v++)
        if (v != QB_PASS && v != QB_INCOMPARABLE) others += o.counts[v];
    bool one = verdict == QB_PASS           ? others == 0 && o.counts[QB_INCOMPARABLE] == 1
               : verdict == QB_INCOMPARABLE ? others == 0 && o.counts[verdict] == 2
                                            : o.counts[verdict] == 1 && others == 1;
    if (verdict == QB_INCONCLUSIVE) exit_code = 3;
    if (!one || o.exit_code != exit_code || !strstr(o.text.text, words))
        fail_msg("%s -> %s: exit code %d\n%s", from, to, o.exit_code, o.text.text);
    outcome_free(&o);
}
