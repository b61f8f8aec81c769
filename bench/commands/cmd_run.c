/* bench run: a suite from the first check to the last plot. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/command.h"
#include "bench/run/child.h"
#include "bench/run/runner.h"
#include "bench/settings.h"
#include "plots/plots.h"
#include "results/published.h"
#include "results/sink.h"

#include <string.h>

static const qb_option rows[] = {
    {"suite", 's', QB_OPTION_TEXT, offsetof(qb_run_options, suite), NULL, 0, 0, NULL, "NAME",
     "suite to run: a name of `bench list suites` or a JSON file"},
    {"model", 'm', QB_OPTION_TEXT, offsetof(qb_run_options, model), NULL, 0, 0, NULL, "MODEL",
     "measure these models instead of the suite's; several are separated by commas"},
    {"data", 'd', QB_OPTION_TEXT, offsetof(qb_run_options, data), NULL, 0, 0, NULL, "DIR",
     "where dataset files are looked for first"},
    {"output", 'o', QB_OPTION_TEXT, offsetof(qb_run_options, output), NULL, 0, 0, NULL, "FILE",
     "result document; rewritten after each case, so a run that is killed keeps what is finished. An earlier "
     "file of "
     "that name is kept as FILE.old"},
    QB_FORMAT_OPTION(qb_run_options, format),
    {"plots", 'p', QB_OPTION_TEXT, offsetof(qb_run_options, plots), NULL, 0, 0, NULL, "DIR",
     "draw the plots into this folder at the end"},
    {"resume", 'r', QB_OPTION_BOOL, offsetof(qb_run_options, resume), NULL, 0, 0, NULL, NULL,
     "go on with the document at --output: cases that are ok and whose settings and data are unchanged are "
     "kept"},
    {"only", 0, QB_OPTION_TEXT, offsetof(qb_run_options, only), NULL, 0, 0, NULL, "GLOB,GLOB",
     "only cases whose id, label or method matches, such as 'gptq-4b*' or 'none,nf4'"},
    {"set", 0, QB_OPTION_TEXT, offsetof(qb_run_options, set), NULL, 0, 0, NULL, "KEY=VALUE",
     "override a key of the suite, of its speed rows or of all its methods (samples=16, max_windows=4, "
     "repeat=3, "
     "datasets=wikitext2,ptb); may be given several times"},
    {"synthetic", 0, QB_OPTION_BOOL, offsetof(qb_run_options, synthetic), NULL, 0, 0, NULL, NULL,
     "random weights of the models' true shapes: speed, memory and quantization time without the download; "
     "perplexities are skipped"},
    {"print", 0, QB_OPTION_BOOL, offsetof(qb_run_options, print), NULL, 0, 0, NULL, NULL,
     "show the suite as it is resolved, every option spelt out, and end; it can be saved as a suite file"},
    {"dry-run", 'n', QB_OPTION_BOOL, offsetof(qb_run_options, dry_run), NULL, 0, 0, NULL, NULL,
     "check everything, print cases, bytes, peak memory and estimated time, run nothing"},
    {"fetch", 0, QB_OPTION_BOOL, offsetof(qb_run_options, fetch), NULL, 0, 0, NULL, NULL,
     "get models and datasets that are missing from the Hugging Face hub, as `bench fetch` does"},
    {"keep-going", 0, QB_OPTION_BOOL, offsetof(qb_run_options, keep_going), "true", 0, 0, NULL, NULL,
     "go on with the next case when one fails"},
    {"cache", 0, QB_OPTION_BOOL, offsetof(qb_run_options, cache), "true", 0, 0, NULL, NULL,
     "keep quantized checkpoints for later runs; without, each is removed once it is measured"},
    {"cache-gb", 0, QB_OPTION_REAL, offsetof(qb_run_options, cache_gb), "0", 0, 1e9, NULL, "GB",
     "after the run, remove the checkpoints unused for longest until the cache is at most this large; 0: no "
     "limit"},
    {"backend", 0, QB_OPTION_TEXT, offsetof(qb_run_options, backend), NULL, 0, 0, NULL, "NAME",
     "compute with this backend instead of the suite's"},
    {"device", 0, QB_OPTION_INT, offsetof(qb_run_options, device), "0", 0, 1023, NULL, "N",
     "which device of the backend; the cpu has only 0"},
    {"device-gb", 0, QB_OPTION_REAL, offsetof(qb_run_options, device_gb), "0", 0, 1e6, NULL, "GB",
     "use at most this much of the device's memory; 0: what there is"},
    {"offload", 0, QB_OPTION_BOOL, offsetof(qb_run_options, offload), NULL, 0, 0, NULL, NULL,
     "let blocks that do not fit the device lie in host memory, which it reads over its bus"},
    {"threads", 't', QB_OPTION_INT, offsetof(qb_run_options, threads), "0", 0, 1024, NULL, "N",
     "threads to compute with; 0 takes every core this process may use"},
    {"numa", 0, QB_OPTION_TEXT, offsetof(qb_run_options, numa), "auto", 0, 0, NULL, "MODE",
     "on machines of several memory nodes (sockets): auto divides threads, weights and the cache of keys "
     "and values among them, node:N uses that node alone, off leaves all to the system. Results do not "
     "depend on it"},
    {0},
};

static const qb_page page = {
    .name = "run",
    .summary = "measure every model and method of a suite, into one result document",
    .synopsis = "run --suite NAME [--model MODEL] [--data DIR] -o RESULT.json [--plots DIR] [options]\n"
                "run --suite NAME --dry-run [options]",
    .description =
        "Multiplies the suite out into cases (model x method x backend). Models, tokenizers, datasets, the\n"
        "output, the cache and gnuplot are all opened before the first case, so that mistakes show at once.\n"
        "Each case is quantized in one process and measured in another: the peak memory of each is exact, "
        "and\n"
        "a crash or a kill for lack of memory is one failed case with its reason.\n"
        "\n"
        "Quantized checkpoints are kept in the cache under a hash of the model, the method with its "
        "options,\n"
        "the calibration tokens and this program; a case that finds its checkpoint there says (cached).\n"
        "\n"
        "One line a case goes to standard error, the table of all cases to standard output (the whole "
        "document\n"
        "with --json). SIGINT and SIGTERM end the run between two cases or in the midst of one; finished "
        "cases\n"
        "are in the document, and --resume goes on.",
    .examples = "bench run --suite demo -o demo.json --plots plots\n"
                "bench run --suite llama2-7b --model ./Llama-2-7b-hf --data ./data -o 7b.json\n"
                "bench run --suite llama2-7b --synthetic --only 'gptq-4b*' --set samples=16 -o speed.json\n"
                "bench run --suite demo -o demo.json --resume",
    .exit_status = "0    every case is ok, or skipped because its method cannot serve its model\n"
                   "1    a case failed, or the run could not go on\n"
                   "2    the command line or the suite is wrong\n"
                   "130  interrupted; finished cases are kept",
};

/* ---- --dry-run ---- */

static qb_json *plan_json(const qb_run *run, const qb_case_plan *plans) {
    qb_json *top = qb_json_object(), *array = qb_json_array();
    double seconds = 0;
    for (size_t i = 0; i < run->cases.count; i++) {
        const qb_case_plan *p = &plans[i];
        qb_json *j = qb_json_object();
        qb_json_put_text(j, "id", run->cases.items[i].id);
        qb_json_put_text(j, "skipped", run->cases.items[i].skipped[0] ? run->cases.items[i].skipped : NULL);
        qb_json_put_bool(j, "cached", p->cached);
        qb_json_put_bool(j, "layer_major", p->layer_major);
        qb_json_put_int(j, "checkpoint_bytes", p->checkpoint_bytes);
        qb_json_put_int(j, "written_bytes", p->written_bytes);
        qb_json_put_int(j, "quantize_peak_bytes", p->quantize_peak_bytes);
        qb_json_put_int(j, "measure_peak_bytes", p->measure_peak_bytes);
        qb_json_put_real(j, "estimated_quantize_s", p->quantize_s);
        qb_json_put_real(j, "estimated_measure_s", p->measure_s);
        qb_json_push(array, j);
        seconds += p->quantize_s + p->measure_s;
    }
    qb_json_put_text(top, "suite", run->suite.name);
    qb_json_put_real(top, "estimated_s", seconds);
    qb_json_put(top, "cases", array);
    return top;
}

static void plan_table(const qb_run *run, const qb_case_plan *plans) {
    char a[32], b[32], c[32], d[32];
    double seconds = 0, written = 0;
    qb_output("%-44s %12s %14s %14s %12s\n", "", "", "planned peak", "planned peak", "");
    qb_output("%-44s %12s %14s %14s %12s\n", "case", "checkpoint", "quantizing", "measuring", "time, about");
    for (size_t i = 0; i < run->cases.count; i++) {
        const qb_case_plan *p = &plans[i];
        if (run->cases.items[i].skipped[0]) {
            qb_output("%-44s skipped: %s\n", run->cases.items[i].id, run->cases.items[i].skipped);
            continue;
        }
        qb_output("%-44s %12s %14s %14s %12s%s%s\n", run->cases.items[i].id,
                  qb_format_bytes((double)p->checkpoint_bytes, a),
                  p->quantize_peak_bytes ? qb_format_bytes((double)p->quantize_peak_bytes, b) : "-",
                  qb_format_bytes((double)p->measure_peak_bytes, c),
                  qb_format_seconds(p->quantize_s + p->measure_s, d), p->cached ? "  cached" : "",
                  p->layer_major ? "  layer by layer" : "");
        seconds += p->quantize_s + p->measure_s;
        written += (double)p->written_bytes;
    }
    qb_output("%zu cases, %s to write, about %s\n", run->cases.count, qb_format_bytes(written, a),
              qb_format_seconds(seconds, b));
}

/* ---- the end ---- */

static qb_status show_result(qb_run *run, bool json) {
    if (json) return qb_output_json(run->results.doc);
    qb_str table = {0};
    qb_status st = qb_results_print(&run->results, run->options->format, &table);
    if (st == QB_OK) qb_output_bytes(qb_str_get(&table), table.length);
    qb_str_free(&table);
    return st;
}

/* A figure outside of the band that others stated is no failure, but nobody may overlook it. */
static qb_status warn_outside(const qb_results *results) {
    qb_rows set;
    qb_str lines = {0};
    qb_status st = qb_rows_read(&results, 1, &set);
    if (st == QB_OK) qb_published_notes(&set, "", true, &lines);
    for (const char *p = qb_str_get(&lines); *p; p += strcspn(p, "\n") + 1)
        qb_warn("%.*s", (int)strcspn(p, "\n"), p);
    qb_str_free(&lines);
    qb_rows_free(&set);
    return st;
}

static qb_status finish(qb_run *run, bool json, int *exit_code) {
    qb_status st = show_result(run, json);
    if (st == QB_OK) st = warn_outside(&run->results);
    const char *plots = run->options->plots;
    if (st == QB_OK && plots) {
        int n_files = 0;
        const qb_results *document = &run->results;
        qb_rows measured;
        st = qb_rows_read(&document, 1, &measured);
        if (st == QB_OK) st = qb_plots_draw(&measured, &(qb_plots_request){.dir = plots}, &n_files);
        qb_rows_free(&measured);
        if (st == QB_OK && !n_files) qb_warn("no plot is drawn: the result has no data for any");
        if (st == QB_OK && n_files) qb_info("%d plot files in %s", n_files, plots);
    }
    if (st == QB_OK && run->options->output && !run->results.unwritten)
        qb_info("the result is in %s", run->options->output);
    if (run->n_skipped)
        qb_warn("%zu of %zu cases were skipped: their method cannot serve their model", run->n_skipped,
                run->cases.count);
    if (run->n_failed) {
        qb_warn("%zu of %zu cases failed", run->n_failed, run->cases.count);
        *exit_code = 1;
    }
    return st;
}

/* A document that found no room in its file goes to standard output: what took hours is not lost. */
static qb_status hand_over(const qb_run *run, bool printed, qb_status st) {
    qb_status shown = printed ? QB_OK : qb_output_json(run->results.doc);
    if (shown != QB_OK || st != QB_OK) return st != QB_OK ? st : shown;
    return qb_fail(QB_ERR_IO, "%s could not be written; the whole document was printed to standard output",
                   run->options->output);
}

static qb_status print_suite(const qb_suite *suite) {
    qb_json *json = qb_suite_json(suite);
    qb_status st = qb_output_json(json);
    qb_json_free(json);
    return st;
}

static qb_status run_main(int argc, char **argv, int *exit_code) {
    qb_run_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    qb_run run = {0};
    qb_case_plan *plans = NULL;
    static const char *const names[] = {"--set"};
    qb_settings set;
    qb_settings *const lists[] = {&set};
    char **words;
    int n_given;
    size_t n_words;
    bool done;
    qb_status st;
    QB_TRY(st, qb_settings_take(names, lists, 1, argc, argv, &n_given, &words));
    QB_TRY(st, qb_command_parse(&page, sets, 2, n_given, words, NULL, 0, &n_words, &done));
    if (done) goto out;
    if (options.print) {
        QB_TRY(st, qb_run_load(&options, set.values, set.n, &run));
        st = print_suite(&run.suite);
        goto out;
    }
    qb_interrupt_watch();
    QB_TRY(st, qb_run_open(&options, set.values, set.n, &run));
    QB_TRY(st, qb_run_plan(&run, &plans));
    if (options.dry_run) {
        if (common.json) {
            qb_json *plan = plan_json(&run, plans);
            st = qb_output_json(plan);
            qb_json_free(plan);
        } else {
            plan_table(&run, plans);
        }
        goto out;
    }
    QB_TRY(st, qb_run_check_disk(&run, plans));
    if (!options.output)
        qb_info("no --output: the result is only printed, and a run that is killed keeps nothing");
    st = qb_run_cases(&run);
    bool ran = st == QB_OK;
    if (ran) st = finish(&run, common.json, exit_code);
    if (run.results.unwritten) st = hand_over(&run, ran && common.json, st);
out:
    qb_free(plans);
    qb_run_close(&run);
    qb_free(words);
    qb_settings_free(&set);
    return st;
}

const qb_command qb_command_run = {
    "run", "measure every model and method of a suite, into one result document", run_main};
