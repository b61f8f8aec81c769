/* bench diff: two checkpoints of one model, number by number. */
#include "base/memory.h"
#include "bench/command.h"
#include "bench/session.h"
#include "model/difference.h"
#include "results/sheet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *format;
} diff_options;

static const qb_option rows[] = {QB_FORMAT_OPTION(diff_options, format), {0}};

static const qb_page page = {
    .name = "diff",
    .summary = "compare the weights of two checkpoints",
    .synopsis = "diff A B [--format FORMAT]",
    .description =
        "Compares two checkpoints of one model module by module, in whatever layouts they are: the share of "
        "equal\n"
        "codes and the largest relative difference of scales where both use the same grid, zero points that\n"
        "differ, and the dequantized weights: relative Frobenius norm of the difference and its largest "
        "element.\n"
        "Other tensors are compared too, and those that only one has are named. Only what differs is "
        "printed;\n"
        "--json lists everything, and the other formats a table of it.",
    .examples = "bench diff ./w4 ./w4-v2\n"
                "bench diff ./Llama-2-7b-hf ./w4 --json | jq '.modules[] | {name, relative_error}'",
    .exit_status = "0  every weight is the same number in both\n"
                   "1  something differs, or one cannot be read\n"
                   "2  wrong usage, or different models",
};

static void print_share(const qb_json *m) {
    double codes = qb_json_number(qb_json_get(m, "codes_equal"));
    double scales = qb_json_number(qb_json_get(m, "scale_difference"));
    double zeros = qb_json_number(qb_json_get(m, "zeros_different"));
    if (isfinite(codes))
        qb_output(", %.4g %% of the codes equal", 100 * codes / qb_json_number(qb_json_get(m, "weights")));
    if (isfinite(scales)) qb_output(", scales differ by %.3g at most", scales);
    if (isfinite(zeros) && zeros > 0) qb_output(", %.0f zero points differ", zeros);
}

static void print_row(const qb_json *m) {
    const char *a = qb_json_string(qb_json_get(m, "a")), *b = qb_json_string(qb_json_get(m, "b"));
    if (qb_json_true(qb_json_get(m, "equal"))) return;
    qb_output("%s: %s", qb_json_string(qb_json_get(m, "name")), a);
    if (strcmp(a, b) != 0) qb_output(" and %s", b);
    qb_output(": relative error %.4g, at most %.4g", qb_json_number(qb_json_get(m, "relative_error")),
              qb_json_number(qb_json_get(m, "max_error")));
    print_share(m);
    qb_output("\n");
}

static void print_names(const qb_json *names, const char *word) {
    for (const qb_json *n = qb_json_first(names); n; n = qb_json_next(n))
        qb_output("%s: only in %s\n", qb_json_string(n), word);
}

static void print_summary(const qb_json *d) {
    double same = qb_json_number(qb_json_get(d, "modules_equal")),
           other = qb_json_number(qb_json_get(d, "modules_different")),
           tensors = qb_json_number(qb_json_get(d, "tensors_equal")),
           changed = qb_json_number(qb_json_get(d, "tensors_different"));
    int64_t missing = qb_json_count(qb_json_get(d, "only_a")) + qb_json_count(qb_json_get(d, "only_b"));
    if (qb_json_true(qb_json_get(d, "equal")))
        qb_output("equal: %.0f modules and %.0f other tensors hold the same numbers\n", same, tensors);
    else
        qb_output("different: %.0f of %.0f modules, %.0f of %.0f other tensors, %d that only one has\n",
                  other, same + other, changed, tensors + changed, (int)missing);
}

static void print_difference(const qb_json *d, const char *const words[2]) {
    for (const qb_json *m = qb_json_first(qb_json_get(d, "modules")); m; m = qb_json_next(m)) print_row(m);
    for (const qb_json *m = qb_json_first(qb_json_get(d, "tensors")); m; m = qb_json_next(m)) print_row(m);
    print_names(qb_json_get(d, "only_a"), words[0]);
    print_names(qb_json_get(d, "only_b"), words[1]);
    print_summary(d);
}

static void push_rows(const qb_json *from, const char *kind, qb_json *to) {
    for (const qb_json *m = qb_json_first(from); m; m = qb_json_next(m)) {
        qb_json *row = qb_json_object();
        qb_json_put_text(row, "kind", kind);
        if (qb_json_is_string(m)) qb_json_put_text(row, "name", qb_json_string(m));
        for (const qb_json *cell = qb_json_first(m); cell; cell = qb_json_next(cell))
            qb_json_put(row, qb_json_key(cell), qb_json_copy(cell));
        qb_json_push(to, row);
    }
}

/* Every module and tensor, and those that only one has. */
static qb_status print_sheet(const qb_json *d, const char *format) {
    qb_json *all = qb_json_array();
    qb_str text = {0};
    push_rows(qb_json_get(d, "modules"), "module", all);
    push_rows(qb_json_get(d, "tensors"), "tensor", all);
    push_rows(qb_json_get(d, "only_a"), "only in a", all);
    push_rows(qb_json_get(d, "only_b"), "only in b", all);
    qb_status st = qb_sheet_print(all, format, &text);
    if (st == QB_OK) qb_output_bytes(qb_str_get(&text), text.length);
    qb_str_free(&text);
    qb_json_free(all);
    return st;
}

static qb_status diff_main(int argc, char **argv, int *exit_code) {
    diff_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *words[2] = {NULL, NULL};
    qb_model *a = NULL, *b = NULL;
    qb_json *d = NULL;
    size_t n_words;
    bool done;
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 2, argc, argv, words, 2, &n_words, &done));
    if (done) goto out;
    if (n_words < 2) return qb_command_missing(&page, n_words ? "B" : "A");
    QB_TRY(st, qb_session_model(words[0], false, &a));
    QB_TRY(st, qb_session_model(words[1], false, &b));
    QB_TRY(st, qb_difference(a, b, &d));
    if (common.json || !strcmp(options.format, "json"))
        st = qb_output_json(d);
    else if (strcmp(options.format, "text") != 0)
        st = print_sheet(d, options.format);
    else
        print_difference(d, words);
    if (!qb_json_true(qb_json_get(d, "equal"))) *exit_code = 1;
out:
    qb_json_free(d);
    qb_model_close(a);
    qb_model_close(b);
    return st;
}

const qb_command qb_command_diff = {"diff", "compare the weights of two checkpoints", diff_main};
