/* A result document of any bytes is refused or read; what is read can be printed as a table and compared with
   itself, and then nothing has moved. */
#include "results/compare.h"
#include "results/sink.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const qb_compare_config config = {
        .perplexity_tolerance_pct = 0.1, .speed_effect_pct = 5, .alpha = 0.01, .memory_tolerance_pct = 1};
    qb_results r;
    if (qb_results_parse((const char *)data, size, "fuzz", &r) != QB_OK) return 0;
    for (size_t i = 0; qb_sink_at(i); i++) {
        qb_str out = {0};
        if (qb_results_print(&r, qb_sink_at(i)->name, &out) != QB_OK) abort();
        qb_str_free(&out);
    }
    qb_rows rows;
    qb_comparison c;
    if (qb_rows_read((const qb_results *[]){&r}, 1, &rows) != QB_OK ||
        qb_compare(&rows, &rows, &config, &c) != QB_OK)
        abort();
    if (qb_comparison_count(&c, QB_REGRESSION) + qb_comparison_count(&c, QB_IMPROVEMENT) +
            qb_comparison_count(&c, QB_MISSING) + qb_comparison_count(&c, QB_CHANGED) >
        0)
        abort();
    for (size_t i = 0; qb_compare_format_at(i); i++) {
        qb_str text = {0};
        if (qb_compare_format_at(i)->write(&c, &text) != QB_OK) abort();
        qb_str_free(&text);
    }
    qb_comparison_free(&c);
    qb_rows_free(&rows);
    qb_results_close(&r);
    return 0;
}
