#include "bench/judging.h"

#include "base/file.h"
#include "base/memory.h"
#include "bench/command.h"

#include <string.h>

#define FIELD(field) offsetof(qb_compare_config, field)
const qb_option qb_judging_options[] = {
    {"perplexity-tolerance-pct", 0, QB_OPTION_REAL, FIELD(perplexity_tolerance_pct), "0.1", 0, 100, NULL,
     "PCT", "relative change of a perplexity that counts as moved"},
    {"speed-effect-pct", 0, QB_OPTION_REAL, FIELD(speed_effect_pct), "5", 0, 100, NULL, "PCT",
     "least relative change of a speed or time that matters"},
    {"run-spread-pct", 0, QB_OPTION_REAL, FIELD(run_spread_pct), "5", 0, 100, NULL, "PCT",
     "what runs of unchanged code are taken to differ by (standard deviation) where there are too few to "
     "say"},
    {"alpha", 0, QB_OPTION_REAL, FIELD(alpha), "0.01", 1e-12, 1, NULL, "P",
     "chance of one false alarm among all rows that are tested (Holm)"},
    {"memory-tolerance-pct", 0, QB_OPTION_REAL, FIELD(memory_tolerance_pct), "2", 0, 100, NULL, "PCT",
     "relative change of a size or of memory that counts as moved"},
    {"memory-floor-mb", 0, QB_OPTION_REAL, FIELD(memory_floor_mb), "4", 0, 1e6, NULL, "MB",
     "least change of a process's or device's memory that counts"},
    {"force", 'f', QB_OPTION_BOOL, FIELD(force), NULL, 0, 0, NULL, NULL,
     "compare speeds and memory although the devices differ"},
    {0},
};

qb_status qb_judging_rows(const qb_results *all, int n, qb_rows *out) {
    const qb_results **documents = NULL;
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)n, sizeof *documents, &documents));
    for (int i = 0; i < n; i++) documents[i] = &all[i];
    st = qb_rows_read(documents, n, out);
out:
    qb_free(documents);
    return st;
}

static const qb_painted_word verdicts[] = {
    {"REGRESSION", QB_RED},      {"MISSING", QB_RED},  {"INCOMPLETE", QB_RED}, {"improved", QB_GREEN},
    {"INCONCLUSIVE", QB_YELLOW}, {"noisy", QB_YELLOW}, {NULL, QB_BOLD}};

qb_status qb_judging_write(const qb_comparison *c, const char *format, const char *output) {
    qb_str text = {0};
    qb_status st = qb_compare_format_find(format)->write(c, &text);
    if (st == QB_OK && output)
        st = qb_file_write_atomic(output, text.text, text.length);
    else if (st == QB_OK && !strcmp(format, "text"))
        qb_output_painted(qb_str_get(&text), text.length, verdicts, false);
    else if (st == QB_OK)
        qb_output_bytes(qb_str_get(&text), text.length);
    qb_str_free(&text);
    return st;
}
