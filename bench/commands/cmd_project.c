/* bench project: what the measured cases would do on devices that are not here. */
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/command.h"
#include "bench/machine/machine.h"
#include "bench/project/project.h"
#include "results/sink.h"

#include <string.h>

enum { MAX_TARGETS = 16 };

typedef struct {
    const char *device, *out, *format;
    int64_t context, sequences;
    double overhead_gb;
    bool keep;
} project_options;

static const qb_option rows[] = {
    {"device", 0, QB_OPTION_TEXT, offsetof(project_options, device), NULL, 0, 0, NULL, "NAME,NAME",
     "devices: t4, a100-40, a100-80, a6000, h200, l4, rtx4090"},
    {"out", 'o', QB_OPTION_TEXT, offsetof(project_options, out), NULL, 0, 0, NULL, "FILE",
     "write the result document here; without it the table is printed only"},
    {"context", 0, QB_OPTION_INT, offsetof(project_options, context), "2048", 0, 1e7, NULL, "TOKENS",
     "keys and values that must fit beside the weights"},
    {"sequences", 0, QB_OPTION_INT, offsetof(project_options, sequences), "1", 1, 1e4, NULL, "N",
     "sequences of that length"},
    {"overhead-gb", 0, QB_OPTION_REAL, offsetof(project_options, overhead_gb), "0.7", 0, 1e3, NULL, "GB",
     "device memory that driver, libraries and workspaces take"},
    {"keep", 0, QB_OPTION_BOOL, offsetof(project_options, keep), NULL, 0, 0, NULL, NULL,
     "keep the measured cases beside the projected ones"},
    QB_FORMAT_OPTION(project_options, format),
    {0},
};

static const qb_page page = {
    .name = "project",
    .summary = "compute a result's speeds for devices that are not here",
    .synopsis = "project RESULT.json --device NAME,NAME [-o FILE] [--keep] [--format FORMAT]",
    .description =
        "Takes each measured case and computes decode and prefill speed, memory fit and GPTQ time for other\n"
        "devices: datasheet bandwidth and rates, times the share of its ceiling that the measured row "
        "reached.\n"
        "Decode is bytes a token over bandwidth, prefill operations a token over the tensor cores' rate. "
        "Every\n"
        "row is marked as projected: the table puts ~ before it, plots draw it hollow and dotted, and bench\n"
        "compare does not compare it with a measured one. Efficiencies of another kind of machine carry "
        "over\n"
        "badly; a projection from a GPU's result is worth more than one from a CPU's.",
    .examples = "bench project 7b.json --device t4,a100-80,h200 -o 7b-projected.json\n"
                "bench project 7b.json --device h200 --context 4096 --keep -o both.json",
};

static qb_status choose_targets(const char *list, const qb_target **out, size_t *n) {
    *n = 0;
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        const char *names[MAX_TARGETS];
        char word[32] = {0};
        size_t length = strcspn(p, ","), count = 0;
        if (length < sizeof word) memcpy(word, p, length);
        const qb_target *t = qb_target_find(word);
        if (!t) {
            while (count < MAX_TARGETS && qb_target_at(count)) {
                names[count] = qb_target_at(count)->name;
                count++;
            }
            char hint[QB_HINT_CHARS];
            return qb_fail(QB_ERR_USAGE, "--device \"%.*s\" is not in the table of `bench project --help`%s",
                           (int)(length < 40 ? length : 40), p, qb_did_you_mean(word, names, count, hint));
        }
        for (size_t i = 0; i < *n; i++)
            if (out[i] == t) return qb_fail(QB_ERR_USAGE, "--device names %s twice", t->name);
        if (*n == MAX_TARGETS)
            return qb_fail(QB_ERR_USAGE, "--device names more than %d devices", MAX_TARGETS);
        out[(*n)++] = t;
    }
    return QB_OK;
}

/* The measured document's context with the projection beside; its machine stays the one that measured. */
static qb_json *context_of(const qb_results *measured, qb_json *projection) {
    qb_json *context = qb_json_copy(qb_json_get(measured->doc, "context"));
    char now[32];
    qb_now_rfc3339(now);
    qb_json_put(context, "program", qb_program_json());
    qb_json_put_text(context, "created", now);
    qb_json_put(context, "projection", projection);
    return context;
}

static bool is_projection(const qb_results *r) {
    return !qb_json_is_null(qb_json_get(qb_json_get(r->doc, "context"), "projection"));
}

/* The whole document at once: putting case by case would copy it as often as it has cases. */
static qb_status fill(const qb_results *measured, const qb_target *const *chosen, size_t n,
                      const qb_project_config *config, bool keep, qb_json *context, qb_results *out) {
    qb_json *doc = qb_json_object(), *cases = qb_json_array();
    char *text = NULL;
    qb_rows all = {0};
    qb_status st;
    qb_json_put_text(doc, "schema", QB_RESULTS_SCHEMA);
    qb_json_put(doc, "context", context);
    qb_json_put(doc, "cases", cases);
    QB_TRY(st, qb_rows_read(&measured, 1, &all));
    for (int k = 0; k < all.n_cases; k++) {
        if (keep) qb_json_push(cases, qb_json_copy(all.cases[k].json));
        for (size_t i = 0; i < n; i++) {
            qb_json *projected;
            QB_TRY(st, qb_project_case(&all, &all.cases[k], chosen[i], config, &projected));
            qb_json_push(cases, projected);
        }
    }
    QB_TRY(st, qb_json_print(doc, false, &text));
    QB_TRY(st, qb_results_parse(text, strlen(text), "projection", out));
out:
    qb_rows_free(&all);
    qb_free(text);
    qb_json_free(doc);
    return st;
}

static qb_status project_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    project_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *path = NULL;
    const qb_target *chosen[MAX_TARGETS];
    size_t n_words, n;
    bool done;
    char sha256[QB_SHA256_HEX];
    qb_results measured = {0}, projected = {0};
    qb_str text = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 2, argc, argv, &path, 1, &n_words, &done));
    if (done) goto out;
    if (!path) return qb_command_missing(&page, "RESULT.json");
    if (!options.device) return qb_command_missing(&page, "--device");
    QB_TRY(st, choose_targets(options.device, chosen, &n));
    QB_TRY(st, qb_results_open(path, &measured));
    if (is_projection(&measured))
        QB_TRY(st, qb_fail(QB_ERR_USAGE, "%s is a projection already; give the measured document", path));
    QB_TRY(st, qb_hash_file(path, sha256));
    const qb_project_config config = {options.context, options.sequences, options.overhead_gb * 1e9};
    qb_json *projection = qb_projection_json(path, sha256, &measured, chosen, n, &config);
    QB_TRY(st,
           fill(&measured, chosen, n, &config, options.keep, context_of(&measured, projection), &projected));
    if (options.out) {
        QB_TRY(st, qb_json_write_atomic(projected.doc, options.out));
        qb_info("written %s", options.out);
    }
    if (common.json) {
        QB_TRY(st, qb_output_json(projected.doc));
    } else {
        QB_TRY(st, qb_results_print(&projected, options.format, &text));
        qb_output_bytes(qb_str_get(&text), text.length);
    }
out:
    qb_str_free(&text);
    qb_results_close(&measured);
    qb_results_close(&projected);
    return st;
}

const qb_command qb_command_project = {"project", "compute a result's speeds for devices that are not here",
                                       project_main};
