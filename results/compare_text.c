/* A comparison for people: the terminal's table, and Markdown for a comment on a change. */
#include "results/compare.h"

#include "results/sink.h"
#include "results/text.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { N_CELLS = 6, GAP = 2, MAX_REASONS = 20, MAX_LISTED = 200 };

static const char *const verdict_words[QB_N_VERDICTS] = {
    "pass", "improved", "REGRESSION", "MISSING", "changed", "INCONCLUSIVE", "noisy", "not compared"};

/* ---- parts ---- */

void qb_compare_put_case(const qb_compare_row *row, int max_columns, qb_str *out) {
    qb_text_clean(row->id, max_columns, out);
    if (!row->new_id) return;
    qb_str_text(out, ", ");
    qb_text_clean(row->new_id, max_columns, out);
}

void qb_compare_put_value(double value, const char *unit, qb_str *out) {
    char buffer[32];
    if (isnan(value))
        qb_str_text(out, "–");
    else if (!strcmp(unit, "B"))
        qb_str_text(out, qb_format_bytes(value, buffer));
    else if (!strcmp(unit, "1"))
        qb_text_figure(value, 5, out);
    else {
        qb_text_figure(value, 4, out);
        qb_str_printf(out, " %s", unit);
    }
}

void qb_compare_put_change(double pct, qb_str *out) {
    if (isnan(pct)) return;
    if (isinf(pct))
        qb_str_text(out, "from 0");
    else
        qb_str_printf(out, fabs(pct) >= 1000 ? "%+.0f %%" : fabs(pct) >= 1 ? "%+.1f %%" : "%+.3f %%", pct);
}

static void separate(size_t start, qb_str *out) {
    if (out->length > start) qb_str_text(out, "; ");
}

/* What a speed was set against, where that decided something. */
static void put_spread(const qb_compare_row *row, size_t start, qb_str *out) {
    bool decided = row->verdict == QB_REGRESSION || row->verdict == QB_INCONCLUSIVE;
    if (!decided || isnan(row->spread_pct) || (row->judged_by == QB_BY_ASSUMPTION && row->spread_pct == 0))
        return;
    separate(start, out);
    qb_str_printf(out,
                  row->judged_by == QB_BY_ASSUMPTION ? "runs are taken to differ by %.2g %%"
                                                     : "runs differ by %.2g %%",
                  row->spread_pct);
    if (row->judged_by == QB_BY_RUNS_AND_ASSUMPTION)
        qb_str_printf(out, ", %d against %d processes are too few to exclude a stray one", row->processes[0],
                      row->processes[1]);
}

void qb_compare_put_reason(const qb_compare_row *row, qb_str *out) {
    size_t start = out->length;
    if (row->paired.windows) qb_paired_put(&row->paired, out);
    if (isfinite(row->low_pct) && isfinite(row->high_pct)) {
        separate(start, out);
        qb_str_printf(out, "between %+.1f and %+.1f %%", row->low_pct, row->high_pct);
    }
    if (row->why.length) {
        separate(start, out);
        qb_str_text(out, row->why.text);
    }
    put_spread(row, start, out);
    if (row->needed && row->verdict == QB_INCONCLUSIVE) {
        separate(start, out);
        qb_str_printf(out, "about %" PRId64 " %s would tell", row->needed, row->needed_of);
    } else if (row->verdict == QB_INCONCLUSIVE) {
        separate(start, out);
        qb_str_text(out, "more repeats than are sensible would be needed");
    }
}

void qb_compare_put_counts(const qb_comparison *c, qb_str *out) {
    static const struct {
        qb_verdict verdict;
        const char *words;
        bool always;
    } parts[] = {{QB_PASS, "unchanged", true},
                 {QB_IMPROVEMENT, "better", true},
                 {QB_REGRESSION, "worse", true},
                 {QB_CHANGED, "changed or new", false},
                 {QB_INCONCLUSIVE, "inconclusive", false},
                 {QB_NOISY_ROW, "noisy", false},
                 {QB_MISSING, "missing", true},
                 {QB_INCOMPARABLE, "not compared", true}};
    size_t start = out->length;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t n = qb_comparison_count(c, parts[i].verdict);
        if (!n && !parts[i].always) continue;
        if (out->length > start) qb_str_text(out, ", ");
        qb_str_printf(out, "%zu %s", n, parts[i].words);
    }
}

static bool nothing_decided(const qb_comparison *c) {
    return !qb_comparison_vouched(c) &&
           qb_comparison_count(c, QB_REGRESSION) + qb_comparison_count(c, QB_MISSING) == 0;
}

/* "; speeds set against 10 old and 1 new runs, which differ by 0.4 to 1.2 %": every verdict names the
   variance that it rests on. */
static void put_variance(const qb_comparison *c, qb_str *out) {
    size_t counts[QB_BY_PAIRS + 1] = {0};
    const qb_compare_row *any[QB_BY_PAIRS + 1] = {NULL};
    double least = INFINITY, most = 0;
    for (size_t i = 0; i < c->count; i++) {
        const qb_compare_row *row = &c->rows[i];
        counts[row->judged_by]++;
        if (!any[row->judged_by]) any[row->judged_by] = row;
        if (row->judged_by != QB_BY_RUNS && row->judged_by != QB_BY_RUNS_AND_ASSUMPTION) continue;
        least = fmin(least, row->spread_pct);
        most = fmax(most, row->spread_pct);
    }
    const qb_compare_row *runs = any[QB_BY_RUNS] ? any[QB_BY_RUNS] : any[QB_BY_RUNS_AND_ASSUMPTION];
    if (runs)
        qb_str_printf(out, "; speeds set against what runs differ by, %.2g to %.2g %% (%d old, %d new)",
                      least, most, runs->runs[0], runs->runs[1]);
    if (counts[QB_BY_RUNS_AND_ASSUMPTION])
        qb_str_printf(
            out,
            "; %zu of them also against an assumed %g %%, since only more runs or rounds exclude a stray one",
            counts[QB_BY_RUNS_AND_ASSUMPTION], c->config.run_spread_pct);
    if (any[QB_BY_ASSUMPTION] && c->config.run_spread_pct > 0)
        qb_str_printf(
            out, "; %zu speed%s set against an assumed %g %% between runs (%d old and %d new do not tell it)",
            counts[QB_BY_ASSUMPTION], counts[QB_BY_ASSUMPTION] > 1 ? "s" : "", c->config.run_spread_pct,
            any[QB_BY_ASSUMPTION]->runs[0], any[QB_BY_ASSUMPTION]->runs[1]);
    else if (any[QB_BY_ASSUMPTION])
        qb_str_text(out, "; speeds set against what is within a run alone");
    if (any[QB_BY_PAIRS]) qb_str_printf(out, "; speeds judged by %d pairs", any[QB_BY_PAIRS]->pairs);
}

void qb_compare_put_verdict(const qb_comparison *c, qb_str *out) {
    size_t bad = qb_comparison_count(c, QB_REGRESSION) + qb_comparison_count(c, QB_MISSING),
           open = qb_comparison_count(c, QB_INCONCLUSIVE);
    for (int side = 0; side < 2; side++)
        if (c->unmeasured[side])
            qb_str_printf(out, "INCOMPLETE: the %s run ended before %" PRId64 " of its cases. ",
                          side ? "new" : "old", c->unmeasured[side]);
    if (bad)
        qb_str_printf(out, "REGRESSION: %zu row%s worse or missing", bad, bad > 1 ? "s" : "");
    else if (nothing_decided(c) && !open && !qb_comparison_count(c, QB_NOISY_ROW))
        qb_str_text(out, "REGRESSION: nothing could be compared");
    else if (c->unmeasured[0] + c->unmeasured[1] > 0)
        qb_str_text(out, "no regression in what was compared");
    else if (open)
        qb_str_printf(out, "INCONCLUSIVE: %zu row%s cannot be told yet", open, open > 1 ? "s" : "");
    else if (nothing_decided(c))
        qb_str_text(out, "INCONCLUSIVE: every row is noisy");
    else
        qb_str_text(out, "no regression");
    put_variance(c, out);
}

static bool is_aside(const qb_compare_row *row) {
    return row->verdict == QB_INCOMPARABLE || row->verdict == QB_NOISY_ROW;
}

/* Equal but for their numbers: "193 of 193 samples were disturbed", "rounds differ by 20 %". */
static bool alike(const char *a, const char *b) {
    static const char number[] = "0123456789.";
    while (*a && *b) {
        size_t n = strspn(a, number), m = strspn(b, number);
        if (!n != !m || (!n && *a != *b)) return false;
        a += n ? n : 1;
        b += m ? m : 1;
    }
    return *a == *b;
}

/* What makes rows incomparable stands there word for word, "gptq-256 against gptq-2048"; noise is one kind.
 */
static bool same_reason(const qb_compare_row *a, const qb_compare_row *b) {
    const char *one = qb_str_get(&a->why), *other = qb_str_get(&b->why);
    return a->verdict == b->verdict && (a->verdict == QB_NOISY_ROW ? alike(one, other) : !strcmp(one, other));
}

bool qb_compare_next_reason(const qb_comparison *c, size_t *at, const qb_compare_row **row, size_t *rows) {
    for (; *at < c->count; (*at)++) {
        const qb_compare_row *r = &c->rows[*at];
        size_t first = 0;
        if (!is_aside(r)) continue;
        while (!is_aside(&c->rows[first]) || !same_reason(&c->rows[first], r)) first++;
        if (first < *at) continue; /* said already */
        *row = r;
        *rows = 0;
        for (size_t i = *at; i < c->count; i++) *rows += is_aside(&c->rows[i]) && same_reason(&c->rows[i], r);
        (*at)++;
        return true;
    }
    return false;
}

/* ---- the terminal ---- */

static void put_p(const qb_compare_row *row, qb_str *out) {
    if (isnan(row->p_adjusted)) return;
    qb_str_printf(out, row->p_adjusted < 0.0001 ? "  p < 0.0001" : "  p = %.4f", row->p_adjusted);
}

static void put_cell(const qb_compare_row *row, int column, qb_str *out) {
    switch (column) {
    case 0:
        qb_compare_put_case(row, 60, out);
        break;
    case 1:
        qb_str_text(out, qb_str_get(&row->metric));
        break;
    case 2:
        qb_compare_put_value(row->old_value, qb_str_get(&row->unit), out);
        break;
    case 3:
        qb_compare_put_value(row->new_value, qb_str_get(&row->unit), out);
        break;
    case 4:
        qb_compare_put_change(row->change_pct, out);
        break;
    default:
        qb_str_text(out, verdict_words[row->verdict]);
        put_p(row, out);
    }
}

static const char *const headers[N_CELLS] = {"case", "metric", "old", "new", "change", "verdict"};

static bool is_shown(const qb_compare_row *row) {
    return row->verdict != QB_PASS && !is_aside(row);
}

static void put_padded(const char *text, int column, const int *widths, qb_str *out) {
    if (column) qb_text_pad("", GAP, false, out);
    qb_text_pad(text, column + 1 < N_CELLS ? widths[column] : 0, column >= 2 && column <= 4, out);
}

static void print_table(const qb_comparison *c, qb_str *out) {
    int widths[N_CELLS];
    for (int k = 0; k < N_CELLS; k++) widths[k] = qb_text_columns(headers[k]);
    /* First pass measures, second prints; the first line is the header. */
    for (int pass = 0; pass < 2; pass++) {
        for (int k = 0; pass && k < N_CELLS; k++) put_padded(headers[k], k, widths, out);
        if (pass) qb_str_text(out, "\n");
        for (size_t i = 0; i < c->count; i++) {
            const qb_compare_row *row = &c->rows[i];
            if (!is_shown(row)) continue;
            for (int k = 0; k < N_CELLS; k++) {
                qb_str cell = {0};
                put_cell(row, k, &cell);
                int n = qb_text_columns(qb_str_get(&cell));
                if (!pass && n > widths[k]) widths[k] = n;
                if (pass) put_padded(qb_str_get(&cell), k, widths, out);
                qb_str_free(&cell);
            }
            qb_str why = {0};
            qb_compare_put_reason(row, &why);
            if (pass && why.length) qb_str_printf(out, "  %s", why.text);
            if (pass) qb_str_text(out, "\n");
            qb_str_free(&why);
        }
    }
}

/* "not compared, 14 rows: device differs: ...": each reason once, with how many rows it covers. */
static void put_reasons(const qb_comparison *c, const char *prefix, qb_str *out) {
    const qb_compare_row *row;
    size_t at = 0, rows;
    for (int n = 0; qb_compare_next_reason(c, &at, &row, &rows); n++) {
        if (n == MAX_REASONS) {
            size_t left = rows;
            while (qb_compare_next_reason(c, &at, &row, &rows)) left += rows;
            qb_str_printf(out, "%s%zu further row%s, for reasons that stand in the JSON form\n", prefix, left,
                          left == 1 ? "" : "s");
            return;
        }
        qb_str_printf(out, "%s%s, ", prefix, verdict_words[row->verdict]);
        if (rows > 1) {
            qb_str_printf(out, "%zu rows%s: %s\n", rows, row->verdict == QB_NOISY_ROW ? ", such as" : "",
                          qb_str_get(&row->why));
        } else {
            qb_compare_put_case(row, 60, out);
            qb_str_printf(out, " %s: %s\n", qb_str_get(&row->metric), qb_str_get(&row->why));
        }
    }
}

/* A pass is no proof: what it could hide is said once for all rows. */
static void put_resolution(const qb_comparison *c, const char *prefix, qb_str *out) {
    const qb_compare_row *widest = NULL;
    int n = 0;
    for (size_t i = 0; i < c->count; i++) {
        const qb_compare_row *row = &c->rows[i];
        if (row->verdict != QB_PASS || !row->needed_of) continue;
        n++;
        if (!widest || row->needed > widest->needed) widest = row;
    }
    if (!widest) return;
    qb_str_printf(out, "%s%d unchanged row%s not exclude a change of %g %%", prefix, n,
                  n > 1 ? "s do" : " does", c->config.speed_effect_pct);
    if (widest->needed) qb_str_printf(out, ": about %" PRId64 " %s would", widest->needed, widest->needed_of);
    qb_str_text(out, "\n");
}

static size_t shown(const qb_comparison *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++) n += is_shown(&c->rows[i]);
    return n;
}

qb_status qb_compare_write_text(const qb_comparison *c, qb_str *out) {
    qb_str_printf(out, "old  %s\nnew  %s\n\n", qb_str_get(&c->origin[0]), qb_str_get(&c->origin[1]));
    if (shown(c)) {
        print_table(c, out);
        qb_str_text(out, "\n");
    }
    put_reasons(c, "", out);
    put_resolution(c, "", out);
    qb_compare_put_counts(c, out);
    qb_str_text(out, "\n");
    qb_compare_put_verdict(c, out);
    qb_str_text(out, "\n");
    return qb_str_status(out);
}

/* ---- Markdown ---- */

static void put_markdown_row(const qb_compare_row *row, qb_str *out) {
    qb_str_text(out, "|");
    for (int k = 0; k < N_CELLS; k++) {
        qb_str cell = {0};
        put_cell(row, k, &cell);
        bool strong = k == 5 && (row->verdict == QB_REGRESSION || row->verdict == QB_MISSING);
        qb_str_text(out, strong ? " **" : " ");
        qb_markdown_text(qb_str_get(&cell), out);
        qb_str_text(out, strong ? "** |" : " |");
        qb_str_free(&cell);
    }
    qb_str why = {0};
    qb_compare_put_reason(row, &why);
    qb_str_text(out, " ");
    qb_markdown_text(qb_str_get(&why), out);
    qb_str_text(out, " |\n");
    qb_str_free(&why);
}

qb_status qb_compare_write_markdown(const qb_comparison *c, qb_str *out) {
    qb_str verdict = {0};
    qb_compare_put_verdict(c, &verdict);
    qb_str_printf(out, "### Benchmarks: %s\n\n", qb_str_get(&verdict));
    qb_str_free(&verdict);
    qb_compare_put_counts(c, out);
    qb_str_text(out, "\n\n");
    if (shown(c)) {
        qb_str_text(out,
                    "| case | metric | old | new | change | verdict | |\n|---|---|--:|--:|--:|---|---|\n");
        size_t n = 0;
        for (size_t i = 0; i < c->count; i++)
            if (is_shown(&c->rows[i]) && n++ < MAX_LISTED) put_markdown_row(&c->rows[i], out);
        if (n > MAX_LISTED) qb_str_printf(out, "\n%zu further rows stand in the JSON form\n", n - MAX_LISTED);
        qb_str_text(out, "\n");
    }
    qb_str reasons = {0};
    put_reasons(c, "- ", &reasons);
    put_resolution(c, "- ", &reasons);
    if (reasons.length)
        qb_str_printf(out,
                      "<details><summary>What was not compared, and what a pass does not "
                      "exclude</summary>\n\n%s\n</details>\n\n",
                      reasons.text);
    qb_str_free(&reasons);
    qb_str_printf(out, "old: %s  \nnew: %s\n", qb_str_get(&c->origin[0]), qb_str_get(&c->origin[1]));
    return qb_str_status(out);
}
