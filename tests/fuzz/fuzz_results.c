/* A result document of any bytes is refused or read; what is read can be printed as a table and compared with
   itself, and then nothing has moved. */
#include "results/results.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const qb_compare_config config = {
        .perplexity_tolerance_pct = 0.1, .speed_effect_pct = 5, .alpha = 0.01, .memory_tolerance_pct = 1};
    qb_results r;
    if (qb_results_parse((const char *)data, size, "fuzz", &r) != QB_OK) return 0;
    for (int markdown = 0; markdown < 2; markdown++) {
        qb_str out = {0};
        if (qb_results_table(&r, markdown, &out) != QB_OK) abort();
        qb_str_free(&out);
    }
    qb_str text = {0};
    qb_json *json = NULL;
    bool regressed = true;
    if (qb_results_compare(&r, &r, &config, &text, &json, &regressed) != QB_OK) abort();
    const qb_json *counts = qb_json_get(json, "counts");
    if (qb_json_number(qb_json_get(counts, "worse")) > 0 ||
        qb_json_number(qb_json_get(counts, "better")) > 0 ||
        qb_json_number(qb_json_get(counts, "missing")) > 0)
        abort();
    qb_json_free(json);
    qb_str_free(&text);
    qb_results_close(&r);
    return 0;
}
