#include "bench/run/runner.h"
#include "bench/run/get.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/machine/machine.h"
#include "bench/measure/best_ceilings.h"
#include "bench/run/cache.h"
#include "bench/run/casework.h"
#include "bench/run/ceilings.h"
#include "bench/run/child.h"
#include "bench/run/origin.h"
#include "bench/run/probe.h"
#include "bench/run/rounds.h"
#include "plots/plots.h"
#include "results/comparable.h"
#include "results/device.h"
#include "results/rows.h"
#include "results/text.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- opening ---- */

static qb_status load_suite(const qb_run_options *o, const char *const *sets, size_t n_sets, qb_run *run) {
    qb_status st;
    if (!o->suite) return qb_fail(QB_ERR_USAGE, "--suite is missing; `bench list suites` shows the suites");
    QB_TRY(st, qb_suite_load(o->suite, &run->suite));
    if (o->model) QB_TRY(st, qb_suite_set_list(&run->suite, "models", o->model));
    if (o->backend) QB_TRY(st, qb_suite_set_list(&run->suite, "backends", o->backend));
    for (size_t i = 0; i < n_sets; i++) QB_TRY(st, qb_suite_set(&run->suite, sets[i]));
    st = qb_suite_expand(&run->suite, o->only, &run->cases);
out:
    return st;
}

/* The places that are written to, tried before anything is computed. */
static qb_status check_outputs(const qb_run_options *o) {
    qb_status st = QB_OK;
    char *folder = NULL;
    if (o->output) {
        folder = qb_path_dir(o->output);
        if ((st = qb_file_replaceable(o->output)) != QB_OK) st = qb_fail_prefix(st, "--output");
        if (st == QB_OK) st = folder ? qb_dir_writable(folder) : qb_fail(QB_ERR_MEMORY, "out of memory");
        if (st != QB_OK) goto out;
    }
    if (o->resume && !o->output) {
        st = qb_fail(QB_ERR_USAGE, "--resume needs --output, the result to go on with");
        goto out;
    }
    if (o->plots) {
        char version[64];
        if (!qb_gnuplot_find(version)) {
            st = qb_fail(QB_ERR_NOT_FOUND,
                         "--plots needs gnuplot; apt-get install gnuplot-nox, or leave --plots out");
            goto out;
        }
        QB_TRY(st, qb_make_dirs(o->plots));
        QB_TRY(st, qb_dir_writable(o->plots));
    }
    QB_TRY(st, qb_cache_writable());
out:
    qb_free(folder);
    return st;
}

/* A run in which no case can be measured is a mistake of who asked for it. */
static qb_status check_some_run(const qb_run *run) {
    for (size_t i = 0; i < run->cases.count; i++)
        if (!run->cases.items[i].skipped[0]) return QB_OK;
    return qb_fail(QB_ERR_USAGE, "%s%s", run->cases.items[0].skipped,
                   run->cases.count > 1 ? "; no other case can be measured either" : "");
}

static qb_status open_subjects(qb_run *run) {
    qb_subject_request request = {.suite = &run->suite,
                                  .cases = &run->cases,
                                  .data_dir = run->options->data,
                                  .synthetic = run->options->synthetic,
                                  .cache = run->options->cache,
                                  .threads = run->options->threads,
                                  .data = run->data};
    qb_status st = qb_alloc_zero((size_t)run->suite.models.n, sizeof *run->subjects, &run->subjects);
    for (size_t i = 0; st == QB_OK && i < run->cases.count; i++) {
        const char *word = run->cases.items[i].model;
        bool known = false;
        for (size_t k = 0; k < run->n_subjects; k++) known = known || !strcmp(run->subjects[k].word, word);
        if (known) continue;
        st = qb_subject_open(&request, word, &run->subjects[run->n_subjects]);
        if (st == QB_OK) run->n_subjects++;
    }
    if (st == QB_OK) qb_run_open_origins(run, &request);
    for (size_t i = 0; st == QB_OK && i < run->cases.count; i++) {
        char label[96];
        qb_record_found_label(qb_case_subject(run, &run->cases.items[i])->model, label);
        qb_case_name(&run->cases.items[i], label);
    }
    for (size_t i = 0; st == QB_OK && i < run->n_subjects; i++) st = qb_subject_identify(&run->subjects[i]);
    return st == QB_OK ? check_some_run(run) : st;
}

/* A figure on a sample of a dataset must not be taken for one on the whole. */
static void warn_substitutes(const qb_json *data) {
    for (const qb_json *f = qb_json_first(data); f; f = qb_json_next(f)) {
        const char *note = qb_json_string(qb_json_get(f, "note"));
        if (note)
            qb_warn("%s (%s, %s): %s", qb_json_string(qb_json_get(f, "file")),
                    qb_json_string(qb_json_get(f, "dataset")), qb_json_string(qb_json_get(f, "role")), note);
    }
}

const qb_run_device *qb_run_device_of(const qb_run *run, const qb_case *c) {
    for (size_t i = 0; i < run->n_devices; i++)
        if (!strcmp(run->devices[i].backend, c->backend)) return &run->devices[i];
    return NULL;
}

/* Every backend has ceilings of its own, which its cases are measured against. */
static qb_status probe_devices(qb_run *run) {
    bool ceilings = run->options->dry_run || qb_suite_measures(&run->suite, "speed");
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < run->cases.count; i++) {
        const char *backend = run->cases.items[i].backend;
        if (qb_run_device_of(run, &run->cases.items[i])) continue;
        qb_compute compute = {run->options->threads, backend,
                              run->options->device,  run->options->device_gb,
                              run->options->offload, run->options->numa};
        qb_run_device *d = &run->devices[run->n_devices++];
        d->backend = backend;
        snprintf(d->id, sizeof d->id, "%s", backend);
        st = qb_device_probe(&compute, ceilings, &d->facts);
    }
    return st;
}

qb_status qb_run_load(const qb_run_options *options, const char *const *sets, size_t n_sets, qb_run *run) {
    *run = (qb_run){.options = options};
    return load_suite(options, sets, n_sets, run);
}

qb_status qb_run_open(const qb_run_options *options, const char *const *sets, size_t n_sets, qb_run *run) {
    *run = (qb_run){.options = options};
    qb_status st;
    if (!(run->data = qb_json_array())) return qb_fail(QB_ERR_MEMORY, "out of memory");
    QB_TRY(st, load_suite(options, sets, n_sets, run));
    QB_TRY(st, check_outputs(options));
    if (options->fetch) QB_TRY(st, qb_run_fetch(run));
    QB_TRY(st, open_subjects(run));
    /* Tokenizers and texts are gone; their memory must not stand in the children's peaks. */
    malloc_trim(0);
    warn_substitutes(run->data);
    QB_TRY(st, probe_devices(run));
out:
    return st;
}

void qb_run_close(qb_run *run) {
    for (size_t i = 0; i < run->n_subjects; i++) qb_subject_free(&run->subjects[i]);
    qb_free(run->subjects);
    qb_free(run->cases.items);
    qb_json_free(run->data);
    for (size_t i = 0; i < run->n_devices; i++) qb_device_facts_free(&run->devices[i].facts);
    if (run->began) qb_results_close(&run->results);
    qb_file_unlock(&run->output_lock);
    qb_suite_free(&run->suite);
    *run = (qb_run){0};
}

/* ---- plans ---- */

qb_status qb_run_plan(qb_run *run, qb_case_plan **plans) {
    qb_status st = qb_alloc_zero(run->cases.count, sizeof **plans, plans);
    for (size_t i = 0; st == QB_OK && i < run->cases.count; i++) {
        const qb_case *c = &run->cases.items[i];
        if (c->skipped[0]) continue;
        bool cached = false;
        st = qb_case_is_cached(run, c, &cached);
        if (st == QB_OK)
            st = qb_case_plan_make(qb_case_subject(run, c), c->variant, &run->suite, cached,
                                   qb_backend_find(qb_run_device_of(run, c)->backend),
                                   &qb_run_device_of(run, c)->facts.ceilings, &(*plans)[i]);
    }
    return st;
}

qb_status qb_run_check_disk(const qb_run *run, const qb_case_plan *plans) {
    int64_t sum = 0, most = 0, have = qb_cache_free_bytes();
    for (size_t i = 0; i < run->cases.count; i++) {
        sum += plans[i].written_bytes;
        if (plans[i].written_bytes > most) most = plans[i].written_bytes;
    }
    int64_t need = run->options->cache ? sum : most;
    if (have < 0 || need <= have) return QB_OK;
    char a[32], b[32], *dir = qb_cache_dir();
    qb_status st = qb_fail(QB_ERR_IO, "the quantized checkpoints take %s, but the cache %s has %s free; %s",
                           qb_format_bytes((double)need, a), dir ? dir : "", qb_format_bytes((double)have, b),
                           run->options->cache && most <= have
                               ? "--no-cache keeps one at a time, or set BENCH_CACHE to a larger disk"
                               : "set BENCH_CACHE to a folder on a larger disk");
    qb_free(dir);
    return st;
}

/* ---- the document ---- */

/* The devices of a resumed document: those of this run, and before them what earlier cases were measured on.
   One backend on two devices would put unequal cases beside each other as if they were equals. */
static qb_status join_devices(const qb_results *old_results, qb_json *context) {
    const qb_json *then = qb_json_get(qb_json_get(old_results->doc, "context"), "devices");
    const qb_json *now = qb_json_get(context, "devices");
    qb_json *all = qb_json_array();
    for (const qb_json *d = qb_json_first(then); d; d = qb_json_next(d)) {
        const qb_json *same = qb_json_first(now);
        while (same && !qb_json_equal(qb_json_get(same, "id"), qb_json_get(d, "id")))
            same = qb_json_next(same);
        const char *fact = same ? qb_device_difference(d, same) : NULL;
        if (!same) qb_json_push(all, qb_json_copy(d));
        if (!fact) continue;
        qb_json_free(all);
        return qb_fail(QB_ERR_USAGE,
                       "%s was measured with another %s; a result holds one device a backend: use another "
                       "--output, or leave --resume out",
                       old_results->path, fact);
    }
    for (const qb_json *d = qb_json_first(now); d; d = qb_json_next(d)) qb_json_push(all, qb_json_copy(d));
    qb_json_put(context, "devices", all);
    return QB_OK;
}

/* What the earlier runs planned is still owed. */
static void join_planned(const qb_json *old_context, qb_json *context) {
    const qb_json *now = qb_json_get(context, "planned");
    qb_json *all = qb_json_copy(now);
    for (const qb_json *p = qb_json_first(qb_json_get(old_context, "planned")); p; p = qb_json_next(p)) {
        const qb_json *same = qb_json_first(now);
        while (same && !qb_json_equal(same, p)) same = qb_json_next(same);
        if (!same) qb_json_push(all, qb_json_copy(p));
    }
    qb_json_put(context, "planned", all);
}

/* What earlier runs of a resumed document were made by. */
static void note_earlier(const qb_json *old_context, qb_json *context) {
    qb_json *list = qb_json_copy(qb_json_get(old_context, "resumed"));
    if (!list) list = qb_json_array();
    qb_json *entry = qb_json_object();
    static const char *const keys[] = {"created", "program", "command"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const qb_json *value = qb_json_get(old_context, keys[i]);
        if (value) qb_json_put(entry, keys[i], qb_json_copy(value));
    }
    qb_json_push(list, entry);
    qb_json_put(context, "resumed", list);
}

static qb_status resume(qb_run *run, qb_json *context) {
    const qb_run_options *o = run->options;
    qb_status st = qb_results_open(o->output, &run->results);
    if (st != QB_OK) goto out;
    run->began = true;
    QB_TRY(st, join_devices(&run->results, context));
    const qb_json *old_context = qb_json_get(run->results.doc, "context");
    const char *suite = qb_json_string(qb_json_get(old_context, "suite"));
    if (suite && strcmp(suite, run->suite.name) != 0)
        qb_warn("%s was begun with suite %s, now it is %s", o->output, suite, run->suite.name);
    if (!qb_json_equal(qb_json_get(old_context, "program"), qb_json_get(context, "program")))
        qb_warn("%s was begun by another build of the program; its finished cases are kept", o->output);
    note_earlier(old_context, context);
    join_planned(old_context, context);
    qb_json_put(run->results.doc, "context", context);
    return qb_results_write(&run->results);
out:
    qb_json_free(context);
    return st;
}

/* Finished cases cost hours: a new run to the same file puts the old document aside. */
static qb_status put_aside(const char *path) {
    qb_str kept = {0};
    qb_str_printf(&kept, "%s.old", path);
    qb_status st = qb_str_status(&kept);
    if (st == QB_OK && rename(path, qb_str_get(&kept)) != 0)
        st = qb_fail(QB_ERR_IO, "cannot rename %s to %s: %s", path, qb_str_get(&kept), strerror(errno));
    if (st == QB_OK)
        qb_info("the earlier %s is now %s (--resume would have gone on with it)", path, qb_str_get(&kept));
    qb_str_free(&kept);
    return st;
}

static qb_json *devices_json(const qb_run *run) {
    qb_json *devices = qb_json_array();
    for (size_t i = 0; i < run->n_devices; i++) {
        const qb_run_device *d = &run->devices[i];
        qb_json *device = qb_record_device(d->id, d->backend, &d->facts);
        qb_ceilings_remember(device);
        qb_json_push(devices, device);
    }
    return devices;
}

static qb_status begin_document(qb_run *run) {
    const qb_run_options *o = run->options;
    qb_json *context = qb_record_context(run->suite.name, devices_json(run), run->data);
    qb_json *planned = qb_json_array();
    for (size_t i = 0; i < run->cases.count; i++) qb_json_push_text(planned, run->cases.items[i].id);
    qb_json_put(context, "planned", planned);
    run->data = NULL;
    bool there = false;
    qb_status st = o->output ? qb_path_look(o->output, &there) : QB_OK;
    if (st == QB_OK && o->resume && there) return resume(run, context);
    if (st == QB_OK && there) st = put_aside(o->output);
    if (st != QB_OK) {
        qb_json_free(context);
        return st;
    }
    st = qb_results_create(o->output, context, &run->results);
    run->began = st == QB_OK;
    return st;
}

/* ---- the cases ---- */

static bool is_kept(const qb_run *run, const qb_case *c) {
    const qb_json *old = run->options->resume ? qb_results_case(&run->results, c->id) : NULL;
    const char *status = qb_json_string(qb_json_get(old, "status"));
    if (!status || strcmp(status, "ok") != 0) return false;
    qb_json *planned = qb_json_object();
    qb_str why = {0};
    qb_json_put(planned, "config", qb_case_config(run, c));
    qb_cases_comparable(old, planned, QB_COMPARE_WHOLE, &why);
    bool same = !why.length && !why.failed;
    qb_json_free(planned);
    if (!same) qb_info("%s: %s; it is run again", c->id, qb_str_get(&why));
    qb_str_free(&why);
    return same;
}

static void put_figure(qb_str *line, double figure) {
    qb_text_figure(figure, 4, line);
}

/* A row of the case by name, with the words that say which one it is: "decode tg128@d0 b1 605.5 tok/s". */
static void put_row(qb_str *line, const qb_row_case *c, const char *name, const char *protocol,
                    const char *unit) {
    const qb_row *row = qb_rows_find_ok(c, name, protocol, NULL);
    if (!row) return;
    qb_str_printf(line, "  %s", name);
    const char *words[] = {row->dataset, row->protocol};
    for (int i = 0; i < 2; i++)
        if (*words[i]) {
            qb_str_text(line, " ");
            qb_text_clean(words[i], 40, line);
        }
    qb_str_text(line, " ");
    put_figure(line, row->value);
    qb_str_text(line, unit);
}

/* The label, with the model and the backend where the run has several. */
static void put_case_name(const qb_run *run, const qb_case *c, qb_str *out) {
    if (run->suite.models.n > 1) qb_str_printf(out, "%s/", c->model_label);
    qb_str_text(out, c->label);
    if (run->suite.backends.n > 1) qb_str_printf(out, "/%s", c->backend);
}

static void put_measured(qb_str *line, const qb_rows *rows, const qb_row_case *c) {
    char spent[32];
    double bytes = qb_rows_value(c, "checkpoint_bytes");
    put_row(line, c, "perplexity", NULL, "");
    put_row(line, c, "kl_divergence", NULL, " nat");
    put_row(line, c, "decode", qb_rows_headline(rows, "decode"), " tok/s");
    if (bytes > 0) {
        qb_str_text(line, "  size ");
        put_figure(line, bytes * 1e-6);
        qb_str_text(line, " MB");
    }
    qb_str_printf(line, "  %s", qb_format_seconds(c->seconds, spent));
    if (c->cached) qb_str_text(line, " (cached)");
}

/* The line of a finished case. Only its own record is read: reading the whole document after each case would
   take the square of their number. Which speed it shows is the table's choice. */
static qb_status tell(const qb_run *run, size_t index, const qb_case *c, const qb_json *record) {
    static const char *const words[] = {"ok", "skipped", "failed"};
    qb_json *doc = qb_json_object(), *cases = qb_json_array();
    qb_json_push(cases, qb_json_copy(record));
    qb_json_put(doc, "cases", cases);
    const qb_results one = {.doc = doc}, *results = &one;
    qb_rows rows;
    qb_str line = {0}, name = {0};
    qb_status st = qb_rows_read(&results, 1, &rows);
    const qb_row_case *measured = st == QB_OK ? qb_rows_case(&rows, rows.documents, c->id) : NULL;
    if (measured) {
        put_case_name(run, c, &name);
        qb_str_printf(&line, "[%*zu/%zu] %-28s %-6s", run->cases.count >= 100 ? 3 : 2, index + 1,
                      run->cases.count, qb_str_get(&name), words[measured->status]);
        if (measured->status == QB_ROW_OK)
            put_measured(&line, &rows, measured);
        else
            qb_str_printf(&line, " %s", measured->error);
        qb_info("%s", qb_str_get(&line));
    }
    qb_str_free(&line);
    qb_str_free(&name);
    qb_rows_free(&rows);
    qb_json_free(doc);
    return st;
}

/* The record of a case whose method cannot serve its model. */
static qb_json *skipped_record(const qb_run *run, const qb_case *c) {
    const qb_subject *s = qb_case_subject(run, c);
    qb_json *model = qb_json_object();
    qb_json_put_text(model, "name", qb_run_model_name(run, s));
    qb_json_put_text(model, "path", s->model->path);
    qb_json_put_text(model, "sha256", s->sha256[0] ? s->sha256 : NULL);
    return qb_record_case(&(qb_case_record){.id = c->id,
                                            .status = "skipped",
                                            .device = qb_run_device_of(run, c)->id,
                                            .error = c->skipped,
                                            .seconds = 0,
                                            .display = qb_case_display(run, c),
                                            .config = qb_case_config(run, c),
                                            .model = model});
}

/* The case stands in memory whatever becomes of the file; a full disk may have room again after the next. */
static qb_status keep_record(qb_run *run, const qb_case *c, qb_json *record) {
    qb_status st = qb_results_put_case(&run->results, record);
    if (st == QB_OK || !run->results.unwritten) return st;
    qb_warn("%s; %s is kept in memory, and writing is tried again after the next case", qb_error_text(),
            c->id);
    return QB_OK;
}

/* Puts the record of a part into the document and shows it when it was the last one. */
static qb_status take_record(qb_run *run, size_t index, qb_json *record, qb_status status) {
    const qb_case *c = &run->cases.items[index];
    bool ok = status == QB_OK;
    int done, of;
    if (!ok) run->n_failed++;
    run->worked = run->worked || !c->skipped[0];
    qb_status st = keep_record(run, c, record);
    const qb_json *kept = qb_results_case(&run->results, c->id);
    bool going_on = ok && kept && qb_results_rounds(kept, &done, &of) && done < of && done > 0;
    if (st == QB_OK && kept && !going_on) st = tell(run, index, c, kept);
    if (st == QB_OK && !ok && !run->options->keep_going)
        return qb_fail(QB_ERR_INTERNAL, "%s failed, and --no-keep-going ends the run", c->id);
    return st;
}

/* All of a case, or all but what is measured in rounds. */
static qb_status run_case(qb_run *run, size_t index) {
    const qb_case *c = &run->cases.items[index];
    if (is_kept(run, c)) {
        qb_str name = {0};
        put_case_name(run, c, &name);
        qb_info("[%2zu/%zu] %-28s kept", index + 1, run->cases.count, qb_str_get(&name));
        qb_str_free(&name);
        run->n_kept++;
        return QB_OK;
    }
    qb_status st = QB_OK;
    const qb_case_part part = {.quality = true, .speed = run->rounds == 1, .round = {0, run->rounds, NULL}};
    qb_json *record = c->skipped[0] ? skipped_record(run, c) : qb_case_run(run, c, &part, &st);
    if (!record) return st;
    run->n_skipped += c->skipped[0] != 0;
    return take_record(run, index, record, st);
}

/* The rounds that a case still needs: of one that was resumed, what is left of the earlier run's. */
static bool needs_round(const qb_run *run, const qb_case *c, const qb_json **record, qb_speed_round *round) {
    *record = qb_results_case(&run->results, c->id);
    const char *status = qb_json_string(qb_json_get(*record, "status"));
    *round = (qb_speed_round){0};
    if (!status || strcmp(status, "ok") != 0) return false;
    round->earlier = qb_json_get(*record, "metrics");
    return qb_results_rounds(*record, &round->index, &round->count) && round->index < round->count;
}

static qb_status run_round(qb_run *run, bool *any) {
    qb_status st = QB_OK;
    *any = false;
    for (size_t i = 0; st == QB_OK && i < run->cases.count; i++) {
        const qb_case *c = &run->cases.items[i];
        const qb_json *record;
        qb_case_part part = {.speed = true};
        if (!needs_round(run, c, &record, &part.round)) continue;
        if (!*any) qb_info("speed: round %d of %d", part.round.index + 1, part.round.count);
        *any = true;
        part.before = record;
        if (qb_interrupted()) return QB_ERR_INTERRUPTED;
        qb_json *fresh = qb_case_run(run, c, &part, &st);
        if (fresh) st = take_record(run, i, fresh, st);
    }
    return st;
}

static qb_status interrupted(const qb_run *run, size_t done) {
    const char *path = run->results.unwritten ? NULL : run->options->output;
    return qb_fail(QB_ERR_INTERRUPTED, "interrupted after %zu of %zu cases%s%s%s", done, run->cases.count,
                   path ? "; they are in " : "", path ? path : "",
                   path ? ", and --resume goes on from there" : "");
}

/* The last tries, some seconds apart: what filled the disk may be a file of another program that goes away.
 */
static void write_at_last(qb_run *run) {
    enum { TRIES = 3 };
    for (int i = 0; run->began && run->results.unwritten && i < TRIES; i++) {
        if (i && !qb_interrupted()) sleep(1);
        if (qb_results_write(&run->results) == QB_OK) qb_info("%s is written now", run->options->output);
    }
}

qb_status qb_run_cases(qb_run *run) {
    qb_status st = run->options->output ? qb_file_lock_take(run->options->output, &run->output_lock) : QB_OK;
    if (st != QB_OK) return qb_fail_prefix(st, "--output");
    st = begin_document(run);
    run->rounds = qb_rounds_of(run);
    for (size_t i = 0; st == QB_OK && i < run->cases.count; i++) {
        st = qb_interrupted() ? interrupted(run, i) : run_case(run, i);
        if (st == QB_ERR_INTERRUPTED) st = interrupted(run, i);
    }
    for (bool any = true; any && st == QB_OK;) {
        st = run_round(run, &any);
        if (st == QB_ERR_INTERRUPTED)
            st = interrupted(run, run->cases.count - (size_t)qb_results_unmeasured(&run->results));
    }
    if (st == QB_OK) st = qb_run_ceilings_again(run);
    write_at_last(run);
    if (st == QB_OK && run->options->cache && run->options->cache_gb > 0) {
        int64_t removed;
        st = qb_cache_shrink((int64_t)(run->options->cache_gb * 1e9), &removed);
        if (st == QB_OK && removed)
            qb_info("%" PRId64 " old checkpoints were removed from the cache", removed);
    }
    return st;
}
