/* bench list: the registries, as text or JSON. */
#include "base/log.h"
#include "base/memory.h"
#include "bench/command.h"
#include "bench/suite/suite.h"
#include "checkpoint/layout.h"
#include "hub/cache.h"
#include "model/model.h"
#include "plots/plots.h"
#include "results/sheet.h"

#include <string.h>

typedef struct {
    const char *format;
} list_options;

static const qb_option rows[] = {QB_FORMAT_OPTION(list_options, format), {0}};

static const qb_page page = {
    .name = "list",
    .summary = "show the suites, models, families, methods, layouts, datasets, protocols, metrics, backends "
               "or plots",
    .synopsis = "list suites|models|families|methods|layouts|datasets|protocols|metrics|backends|plots "
                "[--format FORMAT]",
    .description =
        "Prints what the program knows by name, one a line: the name and what it is; of models also every\n"
        "snapshot that lies in the Hugging Face cache. Without a word it\n"
        "prints all of them. --json gives arrays of objects with name, summary and, where there is one,\n"
        "the source that defines it; other formats give a table of what is no list within.",
    .examples = "bench list suites\n"
                "bench list methods --json",
    .words = "suites|models|families|methods|layouts|datasets|protocols|metrics|backends|plots",
};

static qb_json *item(const char *name, const char *summary) {
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "name", name);
    qb_json_put_text(j, "summary", summary);
    return j;
}

static qb_json *list_suites(void) {
    qb_json *array = qb_json_array();
    char **names;
    size_t n;
    if (qb_suite_names(&names, &n) != QB_OK) n = 0;
    for (size_t i = 0; i < n; i++) {
        qb_suite suite;
        /* A broken file is listed with what is wrong with it: nobody else would tell. */
        if (qb_suite_load(names[i], &suite) == QB_OK) {
            qb_json *j = item(names[i], suite.summary);
            qb_json_put_int(j, "cases", (int64_t)suite.n_variants * suite.models.n * suite.backends.n);
            qb_json_push(array, j);
            qb_suite_free(&suite);
        } else {
            qb_json_push(array, item(names[i], qb_error_text()));
        }
        qb_free(names[i]);
    }
    qb_free(names);
    return array;
}

/* Every snapshot in the hub's cache, under its id; where a repository has several, each. */
static qb_status add_snapshot(void *user, const qb_hub_entry *e) {
    char size[32];
    qb_str summary = {0};
    qb_str_printf(&summary, "in the hub's cache, revision %.12s", e->commit);
    if (e->refs[0]) qb_str_printf(&summary, " (%s)", e->refs);
    qb_str_printf(&summary, ", %s", qb_format_bytes((double)e->bytes, size));
    if (e->lost) qb_str_printf(&summary, ", %lld files lead nowhere", (long long)e->lost);
    qb_json *j = item(e->id, qb_str_get(&summary));
    qb_json_put_text(j, "hub_id", e->id);
    qb_json_put_text(j, "path", e->path);
    qb_json_put_text(j, "revision", e->commit);
    qb_json_put_text(j, "refs", e->refs);
    qb_json_put_int(j, "files", e->files);
    qb_json_put_int(j, "bytes", e->bytes);
    qb_json_put_int(j, "lost", e->lost);
    qb_json_push(user, j);
    qb_str_free(&summary);
    return QB_OK;
}

static void add_snapshots(qb_json *array) {
    char *cache = qb_hub_cache_dir();
    if (!cache || qb_hub_walk(cache, QB_HUB_MODEL, add_snapshot, array) != QB_OK)
        qb_warn("the hub's cache is not listed: %s", cache ? qb_error_text() : "out of memory");
    qb_free(cache);
}

static qb_json *list_models(void) {
    qb_json *array = qb_json_array();
    qb_json_push(array, item("demo", "the little model that comes with the program"));
    for (size_t i = 0; qb_known_model_at(i); i++) {
        const qb_known_model *m = qb_known_model_at(i);
        qb_json *j = item(m->name, m->summary);
        char *dir = NULL;
        bool here = qb_model_resolve(m->name, &dir) == QB_OK;
        qb_json_put_text(j, "hub_id", m->hub_id);
        qb_json_put_text(j, "path", here ? dir : NULL);
        qb_json_push(array, j);
        qb_free(dir);
    }
    add_snapshots(array);
    return array;
}

static qb_json *list_methods(void) {
    qb_json *array = qb_json_array();
    qb_json_push(array, item("none", "the model as it is"));
    for (size_t i = 0; qb_quant_method_at(i); i++) {
        const qb_quant_method *m = qb_quant_method_at(i);
        qb_json *j = item(m->name, m->summary), *options = qb_json_array();
        qb_json_put_text(j, "source", m->source);
        qb_json_put_bool(j, "needs_calibration", m->needs != 0);
        for (const qb_option *row = m->options; row->name; row++) {
            qb_json *o = item(row->name, row->help);
            qb_json_put_text(o, "default", row->initial);
            qb_json_push(options, o);
        }
        qb_json_put(j, "options", options);
        qb_json_push(array, j);
    }
    return array;
}

static qb_json *list_layouts(void) {
    qb_json *array = qb_json_array();
    for (size_t i = 0; qb_layout_at(i); i++) {
        const qb_layout *l = qb_layout_at(i);
        qb_json *j = item(l->name, l->summary);
        qb_json_put_text(j, "source", l->source);
        qb_json_put_bool(j, "written", qb_layout_is_writable(l));
        qb_json_push(array, j);
    }
    return array;
}

static qb_json *list_datasets(void) {
    qb_json *array = qb_json_array();
    for (size_t i = 0; qb_dataset_at(i); i++) {
        const qb_dataset *d = qb_dataset_at(i);
        qb_json *j = item(d->name, d->summary);
        qb_json_put_text(j, "source", d->source);
        qb_json_put_text(j, "evaluation_files", d->evaluation_files);
        qb_json_put_text(j, "calibration_files", d->calibration_files);
        qb_json_put_text(j, "hub_repo", d->hub_repo);
        qb_json_put_text(j, "hub_revision", d->hub_repo && !d->hub_revision ? "main" : d->hub_revision);
        qb_json_put_text(j, "hub_evaluation", d->hub_evaluation);
        qb_json_put_text(j, "hub_calibration", d->hub_calibration);
        qb_json_put_text(j, "how_to_get", d->how_to_get);
        qb_json_push(array, j);
    }
    return array;
}

static qb_json *list_protocols(void) {
    static const struct {
        const char *name;
        qb_protocol_kind kind;
    } kinds[] = {{"gptq-<n>", QB_PROTOCOL_GPTQ},
                 {"llamacpp-<n>", QB_PROTOCOL_LLAMACPP},
                 {"strided-<n>-<stride>", QB_PROTOCOL_STRIDED}};
    qb_json *array = qb_json_array();
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        qb_json_push(array, item(kinds[i].name, qb_protocol_summary(kinds[i].kind)));
    return array;
}

static qb_json *list_metrics(void) {
    qb_json *array = qb_json_array();
    for (size_t i = 0; qb_metric_at(i); i++) {
        const qb_metric *m = qb_metric_at(i);
        qb_json *j = item(m->name, m->summary);
        qb_json_put_text(j, "unit", m->unit);
        qb_json_put_text(j, "better", m->higher_is_better ? "higher" : "lower");
        qb_json_put_text(j, "source", m->source);
        qb_json_push(array, j);
    }
    return array;
}

static qb_json *list_families(void) {
    qb_json *array = qb_json_array();
    for (size_t i = 0; qb_family_at(i); i++) {
        const qb_family *f = qb_family_at(i);
        qb_json *j = item(f->name, f->summary);
        qb_json_put_text(j, "architectures", f->architectures);
        qb_json_push(array, j);
    }
    return array;
}

static qb_json *list_backends(void) {
    qb_json *array = qb_json_array();
    for (size_t i = 0; qb_backend_at(i); i++)
        qb_json_push(array, item(qb_backend_at(i)->name, qb_backend_at(i)->summary));
    return array;
}

static qb_json *list_plots(void) {
    qb_json *array = qb_json_array();
    for (size_t i = 0; qb_plot_at(i); i++)
        qb_json_push(array, item(qb_plot_at(i)->name, qb_plot_at(i)->summary));
    return array;
}

static const struct {
    const char *name;
    qb_json *(*list)(void);
} registries[] = {
    {"suites", list_suites},       {"models", list_models},   {"families", list_families},
    {"methods", list_methods},     {"layouts", list_layouts}, {"datasets", list_datasets},
    {"protocols", list_protocols}, {"metrics", list_metrics}, {"backends", list_backends},
    {"plots", list_plots},
};
enum { N_REGISTRIES = sizeof registries / sizeof registries[0] };

static void print_items(const qb_json *array, const char *indent) {
    int width = 12;
    for (const qb_json *j = qb_json_first(array); j; j = qb_json_next(j)) {
        int n = (int)strlen(qb_json_string(qb_json_get(j, "name")));
        if (n > width) width = n;
    }
    for (const qb_json *j = qb_json_first(array); j; j = qb_json_next(j)) {
        const char *path = qb_json_string(qb_json_get(j, "path")),
                   *hub = qb_json_string(qb_json_get(j, "hub_id"));
        const char *summary = qb_json_string(qb_json_get(j, "summary"));
        qb_output("%s%-*s  %s", indent, width, qb_json_string(qb_json_get(j, "name")),
                  summary ? summary : "");
        if (hub && strcmp(hub, qb_json_string(qb_json_get(j, "name"))) != 0) qb_output(" (%s)", hub);
        if (path) qb_output(", at %s", path);
        qb_output("\n");
    }
}

static qb_status unknown_registry(const char *word) {
    const char *names[N_REGISTRIES];
    for (size_t i = 0; i < N_REGISTRIES; i++) names[i] = registries[i].name;
    char hint[QB_HINT_CHARS];
    return qb_fail(QB_ERR_USAGE, "cannot list '%s': `bench list --help` names what can be listed%s", word,
                   qb_did_you_mean(word, names, N_REGISTRIES, hint));
}

static qb_status print_sheet(const qb_json *array, const char *format) {
    qb_str text = {0};
    qb_status st = qb_sheet_print(array, format, &text);
    if (st == QB_OK) qb_output_bytes(qb_str_get(&text), text.length);
    qb_str_free(&text);
    return st;
}

static qb_status list_one(size_t index, const char *format) {
    qb_json *array = registries[index].list();
    qb_status st = QB_OK;
    if (strcmp(format, "text") != 0)
        st = print_sheet(array, format);
    else
        print_items(array, "");
    qb_json_free(array);
    return st;
}

static qb_status list_all_text(void) {
    for (size_t i = 0; i < N_REGISTRIES; i++) {
        qb_json *array = registries[i].list();
        qb_output("%s%s\n", i ? "\n" : "", registries[i].name);
        print_items(array, "    ");
        qb_json_free(array);
    }
    return QB_OK;
}

static qb_status list_all_json(void) {
    qb_json *top = qb_json_object();
    for (size_t i = 0; i < N_REGISTRIES; i++) qb_json_put(top, registries[i].name, registries[i].list());
    qb_status st = qb_output_json(top);
    qb_json_free(top);
    return st;
}

/* One table of all: what every registry has. */
static qb_status list_all_sheet(const char *format) {
    qb_json *all = qb_json_array();
    for (size_t i = 0; i < N_REGISTRIES; i++) {
        qb_json *array = registries[i].list();
        for (const qb_json *j = qb_json_first(array); j; j = qb_json_next(j)) {
            qb_json *row = qb_json_object();
            qb_json_put_text(row, "list", registries[i].name);
            qb_json_put_text(row, "name", qb_json_string(qb_json_get(j, "name")));
            qb_json_put_text(row, "summary", qb_json_string(qb_json_get(j, "summary")));
            qb_json_push(all, row);
        }
        qb_json_free(array);
    }
    qb_status st = print_sheet(all, format);
    qb_json_free(all);
    return st;
}

static qb_status list_all(const char *format) {
    return !strcmp(format, "text")   ? list_all_text()
           : !strcmp(format, "json") ? list_all_json()
                                     : list_all_sheet(format);
}

static qb_status list_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    list_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *word = NULL;
    size_t n_words;
    bool done;
    qb_status st = qb_command_parse(&page, sets, 2, argc, argv, &word, 1, &n_words, &done);
    if (st != QB_OK || done) return st;
    const char *format = common.json ? "json" : options.format;
    if (!n_words) return list_all(format);
    for (size_t i = 0; i < N_REGISTRIES; i++)
        if (!strcmp(registries[i].name, word)) return list_one(i, format);
    return unknown_registry(word);
}

const qb_command qb_command_list = {
    "list", "show the suites, models, families, methods, layouts, datasets, metrics, backends, plots",
    list_main};
