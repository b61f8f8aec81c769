/* bench inspect: what a checkpoint is. */
#include "base/log.h"
#include "base/memory.h"
#include "bench/command.h"
#include "bench/session.h"
#include "model/inspect.h"
#include "results/sheet.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *format;
} inspect_options;

static const qb_option rows[] = {QB_FORMAT_OPTION(inspect_options, format), {0}};

static const qb_page page = {
    .name = "inspect",
    .summary = "show what a checkpoint is, and what is odd about it",
    .synopsis = "inspect MODEL [--format FORMAT]",
    .description =
        "Reads every tensor and prints family, layout, bits a weight, groups, act-order, sizes by module and "
        "in\n"
        "all, and oddities: zero points against their label, missing and unread tensors, NaN and infinity,\n"
        "constant tensors, scales of 0, group indices of nothing but 0. Modules of one kind share a line; "
        "--json\n"
        "lists each. The other formats give a table of the modules, and oddities as warnings.",
    .examples = "bench inspect ./Llama-2-7B-GPTQ\n"
                "bench inspect ./Llama-2-7B-GPTQ --json | jq '.oddities'",
    .exit_status =
        "0  nothing is damaged (oddities may be there)\n"
        "1  something is damaged or missing, or the checkpoint cannot be opened; what can be read is "
        "reported\n"
        "2  wrong usage",
};

/* "model.layers.3.mlp.up_proj" -> "model.layers.*.mlp.up_proj" */
static void kind_of(const char *name, char out[128]) {
    size_t n = 0;
    for (const char *p = name; *p && n + 2 < 128; p++) {
        bool number = p > name && p[-1] == '.' && *p >= '0' && *p <= '9';
        out[n++] = number ? '*' : *p;
        while (number && p[1] >= '0' && p[1] <= '9') p++;
    }
    out[n] = 0;
}

static const char *format_of(const qb_json *module) {
    const char *format = qb_json_string(qb_json_get(module, "format"));
    return format ? format : "unreadable";
}

static bool same_kind(const qb_json *a, const qb_json *b) {
    char x[128], y[128];
    kind_of(qb_json_string(qb_json_get(a, "name")), x);
    kind_of(qb_json_string(qb_json_get(b, "name")), y);
    return !strcmp(x, y) && !strcmp(format_of(a), format_of(b));
}

static void print_kind(const qb_json *first) {
    char kind[128], bytes[32], bits[32];
    int64_t n = 0;
    double total = 0, per_weight = qb_json_number(qb_json_get(first, "bits_per_weight"));
    for (const qb_json *m = first; m; m = qb_json_next(m)) {
        if (!same_kind(first, m)) continue;
        n++;
        total += qb_json_number(qb_json_get(m, "bytes"));
    }
    kind_of(qb_json_string(qb_json_get(first, "name")), kind);
    snprintf(bits, sizeof bits, "%.4f", per_weight);
    qb_output("%4" PRId64 "  %-40s  %6.0f x %-6.0f  %-24s  %8s  %10s\n", n, kind,
              qb_json_number(qb_json_get(first, "rows")), qb_json_number(qb_json_get(first, "cols")),
              format_of(first), isfinite(per_weight) ? bits : "-", qb_format_bytes(total, bytes));
}

static void print_modules(const qb_json *modules) {
    if (qb_json_count(modules) > 0)
        qb_output("\n   n  %-40s  %6s   %-6s  %-24s  %8s  %10s\n", "module", "out", "in", "format", "bits",
                  "bytes");
    for (const qb_json *m = qb_json_first(modules); m; m = qb_json_next(m)) {
        bool seen = false;
        for (const qb_json *e = qb_json_first(modules); e != m && !seen; e = qb_json_next(e))
            seen = same_kind(e, m);
        if (!seen) print_kind(m);
    }
}

static void print_line(const qb_json *r, const char *label, const char *key) {
    const qb_json *value = qb_json_get(r, key);
    if (qb_json_is_null(value)) return;
    if (qb_json_is_string(value))
        qb_output("%-16s %s\n", label, qb_json_string(value));
    else if (qb_json_is_number(value))
        qb_output("%-16s %.10g\n", label, qb_json_number(value));
    else
        qb_output("%-16s %s\n", label, qb_json_true(value) ? "yes" : "no");
}

static void print_sizes(const qb_json *r) {
    char size[32];
    if (qb_json_is_null(qb_json_get(r, "tensor_bytes"))) return;
    qb_output("%-16s %s in %.0f tensors:", "size",
              qb_format_bytes(qb_json_number(qb_json_get(r, "tensor_bytes")), size),
              qb_json_number(qb_json_get(r, "tensors")));
    for (const qb_json *d = qb_json_first(qb_json_get(r, "dtypes")); d; d = qb_json_next(d))
        qb_output(" %s %s", qb_json_string(qb_json_get(d, "name")),
                  qb_format_bytes(qb_json_number(qb_json_get(d, "bytes")), size));
    qb_output("\n");
    for (const qb_json *f = qb_json_first(qb_json_get(r, "files")); f; f = qb_json_next(f))
        qb_output("%-16s %s, %s\n", "file", qb_json_string(qb_json_get(f, "name")),
                  qb_format_bytes(qb_json_number(qb_json_get(f, "bytes")), size));
}

static void print_oddities(const qb_json *r) {
    const qb_json *oddities = qb_json_get(r, "oddities");
    if (qb_json_count(oddities) > 0) qb_output("\n");
    for (const qb_json *o = qb_json_first(oddities); o; o = qb_json_next(o)) {
        const char *where = qb_json_string(qb_json_get(o, "where"));
        bool damage = qb_json_true(qb_json_get(o, "damage"));
        qb_output("%s: %s%s%s\n", damage ? "damaged" : "odd", where ? where : "", where ? ": " : "",
                  qb_json_string(qb_json_get(o, "text")));
    }
}

static void print_report(const qb_json *r) {
    static const struct {
        const char *label, *key;
    } lines[] = {{"path", "path"},
                 {"architecture", "architecture"},
                 {"parameters", "parameters"},
                 {"layout", "layout"},
                 {"bits", "bits"},
                 {"group size", "group_size"},
                 {"symmetric", "symmetric"},
                 {"act-order", "act_order"},
                 {"values", "codebook"},
                 {"double quant", "double_quant"},
                 {"zero points", "zero_points"},
                 {"bits per weight", "bits_per_weight"}};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) print_line(r, lines[i].label, lines[i].key);
    print_sizes(r);
    print_modules(qb_json_get(r, "modules"));
    print_oddities(r);
}

/* The modules, one a row; what is odd goes to standard error, since a table has no place for it. */
static qb_status print_sheet(const qb_json *r, const char *format) {
    qb_str text = {0};
    for (const qb_json *o = qb_json_first(qb_json_get(r, "oddities")); o; o = qb_json_next(o)) {
        const char *where = qb_json_string(qb_json_get(o, "where"));
        qb_warn("%s: %s%s%s", qb_json_true(qb_json_get(o, "damage")) ? "damaged" : "odd", where ? where : "",
                where ? ": " : "", qb_json_string(qb_json_get(o, "text")));
    }
    qb_status st = qb_sheet_print(qb_json_get(r, "modules"), format, &text);
    if (st == QB_OK) qb_output_bytes(qb_str_get(&text), text.length);
    qb_str_free(&text);
    return st;
}

static qb_status inspect_main(int argc, char **argv, int *exit_code) {
    inspect_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *word = NULL;
    char *spec = NULL;
    qb_json *report = NULL;
    size_t n_words;
    bool done;
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 2, argc, argv, &word, 1, &n_words, &done));
    if (done) goto out;
    if (!word) return qb_command_missing(&page, "MODEL");
    QB_TRY(st, qb_session_spec(word, false, &spec));
    report = qb_inspect(spec);
    const char *error = qb_json_string(qb_json_get(report, "error"));
    if (common.json || !strcmp(options.format, "json"))
        st = qb_output_json(report);
    else if (error)
        st = qb_fail(QB_ERR_FORMAT, "%s", error);
    else if (strcmp(options.format, "text") != 0)
        st = print_sheet(report, options.format);
    else
        print_report(report);
    if (!qb_json_true(qb_json_get(report, "sound"))) *exit_code = 1;
out:
    qb_json_free(report);
    qb_free(spec);
    return st;
}

const qb_command qb_command_inspect = {"inspect", "show what a checkpoint is, and what is odd about it",
                                       inspect_main};
