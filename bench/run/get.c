#include "bench/run/get.h"

#include "base/log.h"
#include "base/memory.h"
#include "bench/fetch.h"
#include "datasets/locate.h"
#include "model/model.h"

#include <string.h>

static const qb_fetch_request usual = {.jobs = 4};

/* A word that is not found and can be no id stays missing: opening it says so better. */
static qb_status get_model(const char *word) {
    char *spec = NULL;
    qb_json *report = NULL;
    qb_status st = qb_model_resolve(word, &spec);
    qb_free(spec);
    if (st != QB_ERR_NOT_FOUND) return st;
    if (!qb_known_model_find(word) && !(strchr(word, '/') && qb_hub_is_id(word))) return QB_OK;
    qb_info("model %s is not here: fetching it", word);
    st = qb_fetch_model(word, &usual, &report);
    qb_json_free(report);
    return st;
}

/* What the divergences of a checkpoint that came quantized are measured from, though --only left it out. */
static qb_status get_base(const qb_suite *suite, const qb_case *c) {
    int own = qb_suite_model_find(suite, c->model);
    const char *base = own >= 0 ? suite->model_entries[own].base : NULL;
    int at = base ? qb_suite_model_find(suite, base) : -1;
    if (at < 0 || c->variant->method || !qb_suite_measures(suite, "divergence")) return QB_OK;
    const qb_suite_model *adapted = qb_suite_adapted(suite, suite->models.items[at]);
    qb_status st = get_model(adapted ? adapted->path : suite->models.items[at]);
    return st == QB_OK && adapted ? get_model(adapted->adapter_path) : st;
}

static qb_status get_split(const char *name, bool calibration, const char *data_dir) {
    const qb_dataset *d = name ? qb_dataset_find(name) : NULL;
    qb_located found;
    qb_json *report = NULL;
    if (!d || !d->hub_repo) return QB_OK;
    qb_status st = qb_dataset_locate(d, calibration, data_dir, &found);
    if (st == QB_OK) qb_located_free(&found);
    if (st != QB_ERR_NOT_FOUND) return st;
    qb_info("the %s file of dataset %s is not here: fetching it",
            calibration ? d->calibration_role : d->evaluation_role, d->name);
    st = qb_fetch_dataset(d, calibration ? QB_SPLIT_CALIBRATION : QB_SPLIT_EVALUATION, &usual, &report);
    qb_json_free(report);
    return st;
}

qb_status qb_run_fetch(const qb_run *run) {
    const qb_suite *suite = &run->suite;
    const char *data = run->options->data;
    qb_status st = QB_OK;
    if (run->options->dry_run)
        return qb_fail(QB_ERR_USAGE, "--fetch downloads and --dry-run does nothing: choose one");
    if (run->options->synthetic)
        return qb_fail(QB_ERR_USAGE, "--synthetic needs no files: leave --fetch out");
    for (size_t i = 0; st == QB_OK && i < run->cases.count;
         i++) { /* a second case finds what the first got */
        const qb_case *c = &run->cases.items[i];
        const qb_suite_model *adapted = qb_suite_adapted(suite, c->model);
        st = get_model(adapted ? adapted->path : c->model);
        if (st == QB_OK && adapted) st = get_model(adapted->adapter_path);
        if (st == QB_OK) st = get_base(suite, c);
        if (st == QB_OK && c->variant->method) st = get_split(c->variant->config.calibration, true, data);
    }
    if (qb_suite_needs(suite) & QB_METRIC_WINDOWS)
        for (int i = 0; st == QB_OK && i < suite->datasets.n; i++)
            st = get_split(suite->datasets.items[i], false, data);
    return st;
}
