/* bench quantize: one model, one method, one checkpoint directory. */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/command.h"
#include "bench/machine/machine.h"
#include "bench/measure/record.h"
#include "bench/run/child.h"
#include "bench/run/identity.h"
#include "bench/run/plan.h"
#include "bench/run/probe.h"
#include "bench/session.h"
#include "datasets/datasets.h"
#include "quant/driver.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

enum { METHODS_MAX = 16 };

typedef struct {
    const char *method, *output, *data;
    const char *format;
    double shard_gb, save_every_s;
    bool force, dry_run, synthetic, resume;
} quantize_options;

static const qb_option rows[] = {
    {"method", 'm', QB_OPTION_TEXT, offsetof(quantize_options, method), NULL, 0, 0, NULL, "NAME",
     "how codes are chosen; `bench list methods` names the methods, and each has the options below"},
    {"output", 'o', QB_OPTION_TEXT, offsetof(quantize_options, output), NULL, 0, 0, NULL, "DIR",
     "checkpoint directory to write; it appears when it is complete"},
    {"force", 'f', QB_OPTION_BOOL, offsetof(quantize_options, force), NULL, 0, 0, NULL, NULL,
     "replace the output directory when it is there"},
    {"data", 'd', QB_OPTION_TEXT, offsetof(quantize_options, data), NULL, 0, 0, NULL, "DIR",
     "where the calibration dataset's files are looked for first"},
    {"format", 0, QB_OPTION_TEXT, offsetof(quantize_options, format), NULL, 0, 0, NULL, "NAME",
     "how the files lie: gptq (zero points minus one, which every reader takes) or gptq_v2 for groups; "
     "without "
     "it gptq for symmetric and gptq_v2 for asymmetric ones, and bitsandbytes' own for NF4 and FP4"},
    {"resume", 0, QB_OPTION_BOOL, offsetof(quantize_options, resume), "true", 0, 0, NULL, NULL,
     "go on after the last finished block of an interrupted run of the same command"},
    {"save-every", 0, QB_OPTION_REAL, offsetof(quantize_options, save_every_s), "120", 0, 1e6, NULL,
     "SECONDS",
     "store the calibration stream (4 bytes x tokens x width) at most this often, so that less is computed "
     "again "
     "after a kill"},
    {"shard-size", 0, QB_OPTION_REAL, offsetof(quantize_options, shard_gb), "5", 0.0001, 1e6, NULL, "GB",
     "largest safetensors file (1 GB = 1e9 bytes); more tensors make several files with an index"},
    {"synthetic", 0, QB_OPTION_BOOL, offsetof(quantize_options, synthetic), NULL, 0, 0, NULL, NULL,
     "random weights of the model's true shapes, calibrated on random tokens"},
    {"dry-run", 'n', QB_OPTION_BOOL, offsetof(quantize_options, dry_run), NULL, 0, 0, NULL, NULL,
     "check everything, print bytes, peak memory and estimated time, write nothing"},
    {0},
};

static const qb_page page = {
    .name = "quantize",
    .summary = "write a quantized copy of a model",
    .synopsis = "quantize MODEL --method NAME [method options] -o DIR [options]\n"
                "quantize MODEL --method NAME [method options] --dry-run",
    .description =
        "Quantizes the linear layers of the decoder blocks and copies the rest. At most two blocks of "
        "weights and\n"
        "the calibration activations are held in memory. The directory holds config.json with its\n"
        "quantization_config, safetensors in the layout that others read (--format), the tokenizer's files, "
        "a "
        "model\n"
        "card (README.md) that says how it was made, and quantize_report.json: error, damping, retries and "
        "seconds\n"
        "of each module.\n"
        "\n"
        "Work goes to DIR.partial, saved after each block. Killed at any point, the same command goes on "
        "after "
        "the\n"
        "last finished block and gives the same bytes; with another model, other options or other data it "
        "begins\n"
        "anew and says so. For GPTQ the calibration tokens are first brought behind the finished blocks.\n"
        "\n"
        "A Hessian that is not positive definite is damped more, then that module falls back to "
        "round-to-nearest;\n"
        "the report names it. NaN or infinity in a weight ends the work and names the place.",
    .examples = "bench quantize ./Llama-2-7b-hf --method gptq --bits 4 --group-size 128 --act-order --data "
                "./data -o w4\n"
                "bench quantize demo --method rtn --bits 8 -o demo-w8\n"
                "bench quantize ./Llama-2-7b-hf --method nf4 --double-quant --dry-run",
};

/* ---- the method's rows are known once the method is: its word is looked up first ---- */

static const char *word_of(int argc, char **argv, const char *name, char letter) {
    size_t n = strlen(name);
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strncmp(argv[i], "--", 2) && !strncmp(argv[i] + 2, name, n)) {
            if (argv[i][2 + n] == '=') return argv[i] + 3 + n;
            if (!argv[i][2 + n]) return i + 1 < argc ? argv[i + 1] : NULL;
        }
        if (argv[i][0] == '-' && argv[i][1] == letter)
            return argv[i][2] ? argv[i] + 2 : i + 1 < argc ? argv[i + 1] : NULL;
    }
    return NULL;
}

static qb_status find_method(const char *word, const qb_quant_method **out) {
    *out = qb_quant_method_find(word);
    if (*out) return QB_OK;
    const char *names[METHODS_MAX];
    size_t n = 0;
    for (; n < METHODS_MAX && qb_quant_method_at(n); n++) names[n] = qb_quant_method_at(n)->name;
    char hint[QB_HINT_CHARS];
    return qb_fail(QB_ERR_USAGE, "no method '%s': `bench list methods` shows them%s", word,
                   qb_did_you_mean(word, names, n, hint));
}

typedef struct {
    quantize_options options;
    qb_quant_config configs[METHODS_MAX]; /* the first is the chosen method's, once it is known */
    qb_compute compute;
    qb_common common;
    const qb_quant_method *method;
    const char *model;
    qb_json *data;
} quantizing;

/* Without a method (for --help) every method's rows are shown. */
static size_t make_sets(quantizing *q, char titles[METHODS_MAX][64], qb_option_set sets[METHODS_MAX + 3]) {
    size_t n = 0;
    sets[n++] = (qb_option_set){"OPTIONS", rows, &q->options};
    for (size_t i = 0; i < METHODS_MAX && qb_quant_method_at(i); i++) {
        const qb_quant_method *m = qb_quant_method_at(i);
        if (q->method && q->method != m) continue;
        snprintf(titles[i], 64, "OPTIONS OF --method %s", m->name);
        sets[n] = (qb_option_set){titles[i], m->options, &q->configs[q->method ? 0 : n - 1]};
        n++;
    }
    sets[n++] = (qb_option_set){"COMPUTING", qb_compute_options, &q->compute};
    sets[n++] = (qb_option_set){"COMMON OPTIONS", qb_common_options, &q->common};
    return n;
}

static qb_status check_format(const char *word) {
    enum { FORMATS_MAX = 32 };
    const qb_layout *layout = qb_layout_find(word);
    if (layout) return qb_layout_need_writer(layout);
    const char *names[FORMATS_MAX];
    qb_str known = {0};
    size_t n = 0;
    for (size_t i = 0; n < FORMATS_MAX && qb_layout_at(i); i++)
        if (qb_layout_is_writable(qb_layout_at(i))) names[n++] = qb_layout_at(i)->name;
    for (size_t i = 0; i < n; i++) qb_str_printf(&known, "%s%s", i ? ", " : "", names[i]);
    char hint[QB_HINT_CHARS];
    qb_status st = qb_fail(QB_ERR_USAGE, "no checkpoint format '%s'; known: %s%s", word, qb_str_get(&known),
                           qb_did_you_mean(word, names, n, hint));
    qb_str_free(&known);
    return st;
}

static qb_status parse(quantizing *q, int argc, char **argv, bool *done) {
    char titles[METHODS_MAX][64];
    qb_option_set sets[METHODS_MAX + 3];
    const char *word = word_of(argc, argv, "method", 'm');
    size_t n_words;
    qb_status st;
    *done = false;
    if (word) QB_TRY(st, find_method(word, &q->method));
    size_t n_sets = make_sets(q, titles, sets);
    QB_TRY(st, qb_command_parse(&page, sets, n_sets, argc, argv, &q->model, 1, &n_words, done));
    if (*done) return QB_OK;
    if (!q->model) return qb_command_missing(&page, "MODEL");
    if (!q->method) return qb_command_missing(&page, "--method");
    if (!q->options.output && !q->options.dry_run) return qb_command_missing(&page, "--output");
    if (q->options.format) QB_TRY(st, check_format(q->options.format));
out:
    return st;
}

/* ---- the work ---- */

static qb_status open_calibration(quantizing *q, const qb_model *m, qb_windows *out) {
    const qb_quant_config *c = &q->configs[0];
    if (!q->method->needs) return QB_OK;
    if (c->seqlen > m->config.max_positions)
        return qb_fail(QB_ERR_USAGE,
                       "--seqlen %" PRId64 " exceeds the %" PRId64 " positions of %s; try --seqlen %" PRId64,
                       c->seqlen, m->config.max_positions, m->name, m->config.max_positions);
    if (qb_checkpoint_is_synthetic(m->checkpoint))
        return qb_random_windows(m->config.vocab, c->samples, c->seqlen, (uint64_t)c->seed, out);
    qb_tokenizer *t;
    qb_data_files files = {0};
    qb_status st = qb_session_tokenizer(m, &t);
    if (st != QB_OK) return st;
    qb_source source = {c->calibration, q->options.data, t, QB_SPECIAL_FILE};
    st = qb_special_tokens_parse(c->special_tokens ? c->special_tokens : "file", &source.special);
    if (st == QB_OK)
        st = qb_dataset_calibration(&source, c->samples, c->seqlen, (uint64_t)c->seed, out, &files, NULL,
                                    NULL);
    if (st == QB_OK && out->special_found)
        qb_info("calibration: the text spells %" PRId64 " special tokens, read as %s", out->special_found,
                out->special_tokens);
    qb_tokenizer_close(t);
    for (int i = 0; st == QB_OK && i < files.n; i++)
        if (files.files[i].note[0]) qb_warn("calibration: %s: %s", files.files[i].path, files.files[i].note);
    qb_data_files_add(q->data, c->calibration, &files);
    return st;
}

static qb_status check_output(const quantizing *q, const qb_model *m) {
    const char *dir = q->options.output;
    if (!dir) return QB_OK;
    qb_status st = qb_session_check_output(m, dir, q->options.force);
    if (st != QB_OK) return st;
    char *parent = qb_path_dir(dir);
    st = parent ? qb_make_dirs(parent) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK) st = qb_dir_writable(parent);
    qb_free(parent);
    return st;
}

static qb_json *plan_json(const qb_quant_plan *p, double seconds, int64_t disk_bytes) {
    qb_json *j = qb_json_object();
    qb_json_put_int(j, "params", p->params);
    qb_json_put_real(j, "bits_per_weight", p->bits_per_weight);
    qb_json_put_int(j, "checkpoint_bytes", p->checkpoint_bytes);
    qb_json_put_int(j, "peak_bytes", qb_resident_bytes() + p->peak_bytes);
    qb_json_put_int(j, "base_bytes", qb_resident_bytes());
    qb_json_put_int(j, "activation_bytes", p->activation_bytes);
    qb_json_put_int(j, "hessian_bytes", p->hessian_bytes);
    qb_json_put_int(j, "hessian_passes", p->hessian_passes);
    qb_json_put_int(j, "block_bytes", p->block_bytes);
    qb_json_put_int(j, "workspace_bytes", p->workspace_bytes);
    qb_json_put_int(j, "calibration_tokens", p->calibration_tokens);
    qb_json_put_real(j, "flops", p->flops);
    qb_json_put_real(j, "estimated_s", seconds);
    qb_json_put_int(j, "disk_free_bytes", disk_bytes);
    return j;
}

static qb_status print_plan(const quantizing *q, const qb_model *m) {
    qb_quant_plan p;
    qb_device_facts facts;
    qb_status st = qb_quant_plan_make(m, q->method, &q->configs[0], &p);
    if (st == QB_OK) st = qb_device_probe(&q->compute, true, &facts);
    if (st != QB_OK) return st;
    int64_t dense = qb_checkpoint_tensor_bytes(m->checkpoint);
    double seconds = qb_plan_seconds(p.flops, (double)(dense + p.checkpoint_bytes), &facts.ceilings);
    double gemm = facts.ceilings.gemm_flop_per_s;
    qb_device_facts_free(&facts);
    int64_t disk = qb_disk_free_bytes(q->options.output ? q->options.output : ".");
    if (q->common.json) {
        qb_json *j = plan_json(&p, seconds, disk);
        st = qb_output_json(j);
        qb_json_free(j);
        return st;
    }
    char a[32], b[32], c[32], d[32], e[32], f[32];
    qb_output("%s by %s: %" PRId64 " parameters to quantize, %.3f bits a weight\n", m->name, q->method->name,
              p.params, p.bits_per_weight);
    qb_output("checkpoint  %12s  (now %s; %s free on the disk)\n",
              qb_format_bytes((double)p.checkpoint_bytes, a), qb_format_bytes((double)dense, b),
              disk < 0 ? "unknown" : qb_format_bytes((double)disk, c));
    qb_output("planned peak memory %s  (the process itself %s, activations %s, Hessians %s, blocks %s, "
              "workspace %s)\n",
              qb_format_bytes((double)(qb_resident_bytes() + p.peak_bytes), a),
              qb_format_bytes((double)qb_resident_bytes(), f), qb_format_bytes((double)p.activation_bytes, b),
              qb_format_bytes((double)p.hessian_bytes, c), qb_format_bytes((double)p.block_bytes, d),
              qb_format_bytes((double)p.workspace_bytes, e));
    if (p.hessian_passes > 0)
        qb_output("calibration  %11" PRId64 "  passes over %" PRId64 " tokens a block, at most%s\n",
                  p.hessian_passes, p.calibration_tokens,
                  p.hessian_passes > p.stages ? ": its Hessians find room in parts" : "");
    qb_output("time, about %12s  (%.3g operations at %.3g a second)\n", qb_format_seconds(seconds, a),
              p.flops, gemm);
    return QB_OK;
}

static void print_line(const quantizing *q, const qb_json *quantization) {
    char a[32], b[32], c[32];
    qb_output(
        "%s: %s, %.3f bits a weight, %" PRId64 " modules in %s (%.3g parameters a second), measured peak "
        "memory %s\n",
        q->options.output, qb_format_bytes(qb_json_number(qb_json_get(quantization, "checkpoint_bytes")), a),
        qb_json_number(qb_json_get(quantization, "bits_per_weight")),
        qb_json_count(qb_json_get(quantization, "modules")),
        qb_format_seconds(qb_json_number(qb_json_get(quantization, "seconds")), b),
        qb_json_number(qb_json_get(quantization, "params_per_s")),
        qb_format_bytes(qb_json_number(qb_json_get(quantization, "peak_rss_bytes")), c));
}

static void warn_fallbacks(const qb_json *modules) {
    int64_t fallbacks = 0;
    for (const qb_json *m = qb_json_first(modules); m; m = qb_json_next(m))
        fallbacks += !qb_json_is_null(qb_json_get(m, "fallback"));
    if (fallbacks)
        qb_warn("%" PRId64 " of %" PRId64 " modules fell back to rtn; quantize_report.json names them",
                fallbacks, qb_json_count(modules));
}

/* Takes the quantization object. */
static qb_status print_report(const quantizing *q, const qb_model *m, qb_json *quantization,
                              const char *started) {
    warn_fallbacks(qb_json_get(quantization, "modules"));
    if (!q->common.json) {
        print_line(q, quantization);
        qb_json_free(quantization);
        return QB_OK;
    }
    qb_json *j = qb_json_object(), *options = qb_json_object();
    qb_options_to_json(q->method->options, &q->configs[0], options);
    qb_json_put_text(j, "model", m->name);
    qb_json_put_text(j, "output", q->options.output);
    qb_json_put_text(j, "started", started);
    qb_json_put(j, "config", options);
    qb_json_put(j, "data", qb_json_copy(q->data));
    qb_json_put(j, "quantization", quantization);
    qb_status st = qb_output_json(j);
    qb_json_free(j);
    return st;
}

typedef struct {
    const quantizing *q;
    qb_model *m;
    const qb_windows *calibration;
    const char *sha256; /* of the source's weights */
    const qb_tokenizer_files *tokenizer;
} child_work;

static qb_status quantize_child(void *ctx, qb_json **result) {
    const child_work *w = ctx;
    const quantize_options *o = &w->q->options;
    qb_device *dev;
    qb_quant_report report = {0};
    const qb_windows *calibration = w->calibration->count ? w->calibration : NULL;
    char fingerprint[QB_SHA256_HEX];
    qb_str command = {0};
    qb_status st = qb_session_device(&w->q->compute, &dev);
    if (st != QB_OK) return st;
    qb_record_command_text(&command);
    qb_quant_target target = {.dir = o->output,
                              .replace = o->force,
                              .shard_bytes = (int64_t)(o->shard_gb * 1e9),
                              .format = o->format,
                              .fingerprint = fingerprint,
                              .resume = o->resume,
                              .stream_every_s = o->save_every_s,
                              .source_sha256 = w->sha256,
                              .command = qb_str_get(&command),
                              .program = qb_program_version(),
                              .files = w->tokenizer->files,
                              .n_files = w->tokenizer->n};
    st = qb_identity_of_run(w->sha256, w->q->method, &w->q->configs[0], calibration, o->format, dev,
                            fingerprint);
    if (st == QB_OK)
        st = qb_quantize_model(w->m, dev, w->q->method, &w->q->configs[0], calibration, &target, &report);
    qb_str_free(&command);
    if (st == QB_OK) *result = qb_quant_report_json(&report);
    qb_quant_report_free(&report);
    qb_session_close(dev);
    return st;
}

/* "DIR/" and "DIR" leave the same directory behind. */
static bool is_partial(const char *output) {
    qb_str path = {0};
    size_t n = strlen(output);
    while (n > 1 && output[n - 1] == '/') n--;
    qb_str_append(&path, output, n);
    qb_str_text(&path, ".partial/progress.json");
    bool found = qb_path_exists(qb_str_get(&path));
    qb_str_free(&path);
    return found;
}

/* In a process of its own, so that the peak memory is that of the quantization. */
static qb_status quantize_apart(const quantizing *q, qb_model *m, const qb_windows *calibration,
                                qb_json **out) {
    char sha256[QB_SHA256_HEX];
    qb_tokenizer_files tokenizer = {0};
    child_work w = {q, m, calibration, sha256, &tokenizer};
    qb_child_end end = {0};
    malloc_trim(0);
    qb_interrupt_watch();
    qb_status st = qb_identity_of(m, sha256);
    if (st != QB_OK) return st;
    st = qb_session_tokenizer_files(m, &tokenizer);
    if (st == QB_OK) st = qb_child_run("the quantizing process", quantize_child, &w, &end);
    qb_tokenizer_files_free(&tokenizer);
    if (st == QB_OK) {
        *out = qb_record_quantization(q->method->name, end.result, false);
        qb_json_put_int(*out, "peak_rss_bytes", end.peak_rss_bytes);
    } else if (is_partial(q->options.output)) {
        qb_info("%s.partial holds the blocks that are finished: the same command goes on from there",
                q->options.output);
    }
    qb_json_free(end.result);
    return st;
}

static qb_status quantize_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    quantizing q = {0};
    bool done;
    qb_model *m = NULL;
    qb_windows calibration = {0};
    qb_json *quantization = NULL;
    const qb_backend *backend;
    char started[32];
    qb_status st;
    QB_TRY(st, parse(&q, argc, argv, &done));
    if (done) goto out;
    q.data = qb_json_array();
    qb_now_rfc3339(started);
    QB_TRY(st, qb_session_backend(q.compute.backend, &backend));
    QB_TRY(st, qb_session_model(q.model, q.options.synthetic, &m));
    QB_TRY(st, check_output(&q, m));
    QB_TRY(st, open_calibration(&q, m, &calibration));
    if (q.options.dry_run) {
        st = print_plan(&q, m);
        goto out;
    }
    QB_TRY(st, quantize_apart(&q, m, &calibration, &quantization));
    st = print_report(&q, m, quantization, started);
out:
    qb_windows_free(&calibration);
    qb_model_close(m);
    qb_json_free(q.data);
    return st;
}

const qb_command qb_command_quantize = {"quantize", "write a quantized copy of a model", quantize_main};
