#include "quant/target.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "quant/stacks.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* ---- what is taken over ---- */

static bool is_float(qb_dtype dtype) {
    return dtype == QB_DTYPE_F32 || dtype == QB_DTYPE_F16 || dtype == QB_DTYPE_BF16;
}

static qb_dtype stored_as(const qb_tensor *t, qb_dtype as) {
    return as != QB_DTYPE_COUNT && is_float(t->dtype) ? as : t->dtype;
}

/* Written as a module, or dense as a part of a stack. */
static bool is_written_otherwise(const qb_model *m, const qb_modules *modules, const char *tensor,
                                 qb_dtype as) {
    return qb_modules_own(modules, tensor) || (as != QB_DTYPE_COUNT && qb_stacks_own_tensor(m, tensor));
}

qb_status qb_target_plan_others(const qb_model *m, const qb_modules *modules, qb_dtype as, qb_writer *w) {
    qb_checkpoint *ck = m->checkpoint;
    qb_status checked = qb_modules_check_others(m, modules, NULL, NULL);
    if (checked != QB_OK) return checked;
    for (size_t i = 0; i < qb_checkpoint_count(ck); i++) {
        const qb_tensor *t = qb_checkpoint_at(ck, i);
        if (is_written_otherwise(m, modules, t->name, as)) continue;
        if (t->dtype >= QB_DTYPE_COUNT)
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %s has a dtype that cannot be copied",
                           qb_checkpoint_dir(ck), t->name);
        qb_status st = qb_writer_plan(w, t->name, stored_as(t, as), t->n_dims, t->shape);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

/* The first value of a chunk that did not survive, or the number of those. */
static qb_status count_inexact(const char *name, const float *values, const float *back, int64_t n,
                               int64_t first, qb_dtype as, int64_t *inexact) {
    int64_t changed = 0;
    for (int64_t i = 0; i < n; i++) changed += values[i] != back[i];
    if (changed == 0) return QB_OK;
    int64_t i = 0;
    while (i < n && (values[i] == back[i] || (inexact && isfinite(back[i])))) i++;
    if (i == n) {
        *inexact += changed;
        return QB_OK;
    }
    return qb_fail(QB_ERR_UNSUPPORTED,
                   "%.200s: element %" PRId64 ", %.9g, is no %s: information would be lost; --to f32 keeps "
                   "everything",
                   name, first + i, (double)values[i], qb_dtype_torch_name(as));
}

qb_status qb_target_put_as(qb_writer *w, const char *name, const float *values, int64_t n, qb_dtype as,
                           int64_t *inexact) {
    enum { CHUNK = 4096 };
    float back[CHUNK];
    uint16_t *halves;
    if (as == QB_DTYPE_F32) return qb_writer_put(w, name, values, n * 4);
    qb_status st = qb_alloc((size_t)n, sizeof *halves, &halves);
    for (int64_t at = 0; st == QB_OK && at < n; at += CHUNK) {
        int64_t part = n - at < CHUNK ? n - at : CHUNK;
        st = qb_from_f32(as, values + at, part, halves + at);
        if (st == QB_OK) st = qb_to_f32(as, halves + at, part, back);
        if (st == QB_OK) st = count_inexact(name, values + at, back, part, at, as, inexact);
    }
    if (st == QB_OK) st = qb_writer_put(w, name, halves, n * 2);
    qb_free(halves);
    return st;
}

static qb_status copy_as(const qb_tensor *t, const void *bytes, qb_dtype as, qb_writer *w) {
    int64_t n = t->bytes / (int64_t)qb_dtype_bytes(t->dtype);
    float *values;
    qb_status st = qb_alloc((size_t)n, sizeof *values, &values);
    if (st == QB_OK) st = qb_to_f32(t->dtype, bytes, n, values);
    if (st == QB_OK) st = qb_target_put_as(w, t->name, values, n, as, NULL);
    qb_free(values);
    return st;
}

typedef struct {
    qb_checkpoint *ck;
    const qb_tensor *t;
} source;

static void pass(void *user, int64_t at, int64_t n) {
    const source *from = user;
    qb_checkpoint_pass(from->ck, from->t, at, n);
}

/* An embedding may be larger than several blocks: it is walked over, not held. */
static qb_status copy_other(qb_checkpoint *ck, const qb_tensor *t, qb_dtype as, qb_writer *w) {
    source from = {ck, t};
    const void *bytes;
    qb_status st = qb_checkpoint_check_finite(ck, t);
    if (st == QB_OK) st = qb_checkpoint_acquire(ck, t, &bytes);
    if (st != QB_OK) return st;
    st = stored_as(t, as) == t->dtype ? qb_writer_put_passing(w, t->name, bytes, t->bytes, pass, &from)
                                      : copy_as(t, bytes, as, w);
    qb_checkpoint_release(ck, t);
    return st;
}

qb_status qb_target_copy_others(const qb_model *m, const qb_modules *modules, qb_dtype as, qb_writer *w) {
    qb_checkpoint *ck = m->checkpoint;
    for (size_t i = 0; i < qb_checkpoint_count(ck); i++) {
        const qb_tensor *t = qb_checkpoint_at(ck, i);
        qb_status st = is_written_otherwise(m, modules, t->name, as) ? QB_OK : copy_other(ck, t, as, w);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

static const char *const tokenizer_files[] = {
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tekken.json",
    "qwen.tiktoken",
    "tiktoken.model",
    "chat_template.jinja",
    "chat_template.json",
};
static const char *const other_files[] = {"generation_config.json", "preprocessor_config.json", "LICENSE",
                                          "NOTICE", "USE_POLICY.md"};

static qb_status copy_files(const char *dir, const char *const *names, size_t n, qb_writer *w) {
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < n; i++) st = qb_writer_copy_file(w, dir, names[i]);
    return st;
}

qb_status qb_target_has_tokenizer(const char *dir, bool *found) {
    qb_status st = QB_OK;
    *found = false;
    for (size_t i = 0; st == QB_OK && i < sizeof tokenizer_files / sizeof *tokenizer_files && !*found; i++) {
        char *path = qb_path_join(dir, tokenizer_files[i]);
        st = path ? qb_path_look(path, found) : qb_fail(QB_ERR_MEMORY, "out of memory");
        qb_free(path);
    }
    return st;
}

qb_status qb_target_copy_companions(const qb_model *m, const qb_quant_target *target, qb_writer *w) {
    if (qb_checkpoint_is_synthetic(m->checkpoint)) return QB_OK;
    const char *dir = qb_checkpoint_dir(m->checkpoint), *own = target->tokenizer_dir;
    qb_status st =
        copy_files(own ? own : dir, tokenizer_files, sizeof tokenizer_files / sizeof *tokenizer_files, w);
    if (st == QB_OK) st = copy_files(dir, other_files, sizeof other_files / sizeof *other_files, w);
    if (st != QB_OK || own) return st;
    for (size_t i = 0; i < target->n_files; i++) {
        st = qb_writer_put_text(w, target->files[i].name, target->files[i].text);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

/* ---- the plan ---- */

static qb_status describe_module(const qb_target_run *t, const qb_module *module, qb_qweight *shape) {
    qb_dtype dtype;
    qb_status st = qb_linear_dtype(t->m, module->linear, module->layer, &dtype);
    return st == QB_OK
               ? t->method->describe(module->name, module->rows, module->cols, dtype, t->config, shape)
               : st;
}

/* The first module stands for what all have in common. */
static qb_status describe_first(const qb_target_run *t, qb_qweight *shape) {
    for (size_t i = 0; i < t->modules.count; i++)
        if (t->modules.items[i].layer >= 0) return describe_module(t, &t->modules.items[i], shape);
    return qb_fail(QB_ERR_UNSUPPORTED, "%s has no linear to quantize", t->m->name);
}

/* The format asked for, else the one that most programs read. */
static qb_status choose_layout(qb_target_run *t) {
    qb_qweight shape = {0};
    qb_status st = describe_first(t, &shape);
    if (st != QB_OK) return st;
    t->layout = qb_layout_for(&shape);
    if (!t->target->format) return QB_OK;
    const qb_layout *asked = qb_layout_find(t->target->format);
    if (!asked) return qb_fail(QB_ERR_USAGE, "no checkpoint format '%s'", t->target->format);
    st = qb_layout_need_writer(asked);
    if (st != QB_OK) return st;
    /* Whether a zero point is 0 is known when all is computed: too late to refuse. */
    if (!strcmp(asked->name, "gptq") && shape.coding == QB_CODING_AFFINE && !shape.symmetric)
        return qb_fail(QB_ERR_USAGE,
                       "the format gptq stores zero points minus one, and an asymmetric weight may have one "
                       "of 0, which would spill into its neighbours; write gptq_v2, and `bench convert --to "
                       "gptq` where the result allows it");
    t->layout = asked;
    return QB_OK;
}

qb_status qb_target_check_stacked(const qb_module *m, const qb_layout *layout) {
    if (!m->linear || !m->linear->stack) return QB_OK;
    if (m->linear->stored != QB_STORED_ROWS)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: experts that lie in one tensor of three dimensions have no quantized layout that "
                       "other programs read%s",
                       m->name,
                       m->linear->stack->apart || m->linear->stack->parted[0]
                           ? " while they are quantized; `bench convert --to bf16` first"
                           : "");
    if (strncmp(layout->name, "gptq", 4) != 0)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: no program reads experts of this family one by one in the layout %s; GPTQModel "
                       "reads gptq (methods rtn and gptq)",
                       m->name, layout->name);
    return QB_OK;
}

static qb_status plan_linears(qb_target_run *t) {
    qb_qweight shape = {0};
    qb_status st = QB_OK;
    for (size_t i = 0; i < t->modules.count; i++) {
        const qb_module *m = &t->modules.items[i];
        if (m->layer < 0) continue;
        QB_TRY(st, qb_target_check_stacked(m, t->layout));
        QB_TRY(st, describe_module(t, m, &shape));
        QB_TRY(st, t->layout->check(m->name, &shape));
        QB_TRY(st, t->layout->plan(t->writer, m->name, &shape));
    }
out:
    return st;
}

/* ---- the descriptions ---- */

static qb_json *method_config(const qb_target_run *t) {
    qb_json *o = qb_json_object();
    qb_options_to_json(t->method->options, t->config, o);
    return o;
}

static qb_status write_configs(qb_target_run *t) {
    qb_qweight shape = {0};
    qb_json *options = NULL, *quantization = NULL;
    qb_status st;
    QB_TRY(st, describe_first(t, &shape));
    options = method_config(t);
    quantization = t->layout->config(&shape, options);
    QB_TRY(st, qb_target_put_config(t->m, quantization, t->layout->quantize_config_file, NULL, t->writer));
    QB_TRY(st, qb_target_copy_companions(t->m, t->target, t->writer));
out:
    qb_json_free(options);
    qb_json_free(quantization);
    return st;
}

static int64_t peak_rss_bytes(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

static double seconds_so_far(const qb_target_run *t) {
    return t->earlier_seconds + (double)(qb_now_ns() - t->started_ns) * 1e-9;
}

static void sum_up(const qb_target_run *t, qb_quant_report *report) {
    double bits = 0, params = 0;
    for (size_t i = 0; i < report->n_modules; i++) {
        bits += report->modules[i].bits;
        params += (double)report->modules[i].rows * (double)report->modules[i].cols;
    }
    report->seconds = seconds_so_far(t);
    report->params_per_second = report->seconds > 0 ? params / report->seconds : 0;
    report->peak_rss_bytes = peak_rss_bytes();
    report->checkpoint_bytes = qb_writer_bytes(t->writer);
    report->bits_per_weight = params > 0 ? bits / params : 0;
    report->resumed_blocks = t->blocks;
}

static qb_status write_report(const qb_target_run *t, const qb_windows *calibration,
                              const qb_quant_report *report) {
    qb_json *o = qb_json_object(), *sample = NULL;
    int64_t tokens = 0;
    qb_json_put_text(o, "schema", "qb.quantize/1");
    qb_json_put_text(o, "method", t->method->name);
    qb_json_put(o, "config", method_config(t));
    if (calibration) {
        for (int64_t i = 0; i < calibration->count; i++) tokens += calibration->windows[i].length;
        sample = qb_json_object();
        qb_json_put_text(sample, "dataset", calibration->dataset);
        qb_json_put_int(sample, "windows", calibration->count);
        qb_json_put_int(sample, "tokens", tokens);
        qb_json_put_text(sample, "sha256", calibration->sha256[0] ? calibration->sha256 : NULL);
        if (calibration->special_tokens[0]) {
            qb_json_put_text(sample, "special_tokens", calibration->special_tokens);
            qb_json_put_int(sample, "special_tokens_found", calibration->special_found);
            qb_json_put_bool(sample, "bos", calibration->bos);
        }
    }
    qb_json_put(o, "calibration", sample);
    if (!sample) qb_json_put_null(o, "calibration");
    qb_json_put_text(o, "source_sha256", t->target->source_sha256);
    qb_json_put(o, "report", qb_quant_report_json(report));
    qb_status st = qb_writer_put_json(t->writer, "quantize_report.json", o);
    qb_json_free(o);
    return st;
}

static qb_status write_card(const qb_target_run *t, const qb_windows *calibration,
                            const qb_quant_report *report) {
    qb_str text = {0};
    qb_status st = qb_card_write(t, calibration, report, &text);
    if (st == QB_OK) st = qb_writer_put_text(t->writer, "README.md", qb_str_get(&text));
    qb_str_free(&text);
    return st;
}

/* ---- taking up and saving ---- */

static qb_status restore(qb_target_run *t, const qb_json *state, qb_quant_report *report) {
    qb_status st;
    static const char where[] = "progress.json";
    QB_TRY(st, qb_json_int(state, "blocks", where, true, 0, t->m->config.n_layers, &t->blocks));
    QB_TRY(st, qb_json_real(state, "seconds", where, true, 0, 1e12, &t->earlier_seconds));
    QB_TRY(st, qb_quant_report_restore(qb_json_get(state, "modules"), where, report));
    if (t->blocks > 0)
        qb_info("%s: going on after block %" PRId64 " of %" PRId64 ", where an earlier run stopped",
                t->target->dir, t->blocks, t->m->config.n_layers);
out:
    return st;
}

qb_json *qb_target_state(const qb_target_run *t, int64_t blocks, const qb_quant_report *report) {
    if (!t->target->fingerprint) return NULL;
    qb_json *state = qb_json_object(), *body = qb_quant_report_json(report);
    qb_json_put_int(state, "blocks", blocks);
    qb_json_put_real(state, "seconds", seconds_so_far(t));
    qb_json_put(state, "modules", qb_json_take(body, "modules"));
    qb_json_free(body);
    return state;
}

static qb_status create_writer(const qb_quant_target *target, qb_writer **out) {
    return target->fingerprint ? qb_writer_create_resumable(target->dir, target->replace, target->shard_bytes,
                                                            target->fingerprint, target->resume, out)
                               : qb_writer_create(target->dir, target->replace, target->shard_bytes, out);
}

qb_status qb_target_open(const qb_model *m, const qb_quant_method *method, const qb_quant_config *config,
                         const qb_quant_target *target, qb_quant_report *report, qb_target_run *out) {
    *out = (qb_target_run){.m = m, .method = method, .config = config, .target = target};
    out->started_ns = qb_now_ns();
    qb_status st;
    QB_TRY(st, qb_modules_list(m, &out->modules));
    QB_TRY(st, choose_layout(out));
    if (!target->format && !strcmp(out->layout->name, "gptq_v2"))
        qb_info("asymmetric zero points may be 0, which the format gptq cannot store: writing gptq_v2");
    QB_TRY(st, create_writer(target, &out->writer));
    QB_TRY(st, plan_linears(out));
    QB_TRY(st, qb_target_plan_others(m, &out->modules, QB_DTYPE_COUNT, out->writer));
    QB_TRY(st, qb_writer_begin(out->writer));
    QB_TRY(st, write_configs(out));
    const qb_json *state = qb_writer_saved(out->writer);
    if (state) return restore(out, state, report);
    QB_TRY(st, qb_target_copy_others(m, &out->modules, QB_DTYPE_COUNT, out->writer));
    st = qb_writer_save(out->writer, qb_target_state(out, 0, report));
out:
    return st;
}

qb_status qb_target_finish(qb_target_run *t, const qb_windows *calibration, qb_quant_report *report) {
    qb_status st;
    sum_up(t, report);
    QB_TRY(st, write_report(t, calibration, report));
    QB_TRY(st, write_card(t, calibration, report));
    st = qb_writer_finish(t->writer);
    t->writer = NULL;
    report->seconds = seconds_so_far(t);
out:
    return st;
}

/* Stopped, or out of memory or disk: the same run may well go through later. */
static bool may_go_on(qb_status st) {
    return st == QB_ERR_INTERRUPTED || st == QB_ERR_MEMORY || st == QB_ERR_IO;
}

void qb_target_close(qb_target_run *t, qb_status st) {
    if (may_go_on(st))
        qb_writer_keep(t->writer);
    else
        qb_writer_abort(t->writer);
    t->writer = NULL;
    qb_modules_free(&t->modules);
}
