#include "adapter/merge.h"

#include "adapter/apply.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "checkpoint/writer.h"
#include "model/modules.h"
#include "quant/stacks.h"
#include "quant/target.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const qb_model *m;
    const qb_merge_plan *plan;
    qb_dtype as;       /* QB_DTYPE_COUNT: each tensor's own */
    qb_modules packed; /* modules that the base has quantized */
    qb_writer *writer;
    qb_threads *threads;
    qb_merge_report *report;
    unsigned dtypes; /* of what was changed, bits */
    qb_progress progress;
    double done_bytes;
} merge;

/* ---- what is written, and as which type ---- */

static bool is_float(qb_dtype dtype) {
    return dtype == QB_DTYPE_F32 || dtype == QB_DTYPE_F16 || dtype == QB_DTYPE_BF16;
}

static qb_dtype float_type(const merge *g, qb_dtype own) {
    return g->as != QB_DTYPE_COUNT && is_float(own) ? g->as : own;
}

/* A stack of experts has one type, its file's where that is a float. */
static qb_dtype stack_type(const merge *g) {
    const qb_topology *t = &g->m->topology;
    if (g->as != QB_DTYPE_COUNT) return g->as;
    for (int64_t layer = 0; layer < t->n_layers; layer++)
        for (size_t i = 0; i < t->layers[layer].n_linears; i++) {
            const qb_linear *l = &t->layers[layer].linears[i];
            qb_dtype own;
            if (l->stack && qb_linear_dtype(g->m, l, layer, &own) == QB_OK && is_float(own)) return own;
        }
    return g->m->config.dtype;
}

/* What the adapter was trained beside: bitsandbytes' kernels give 4-bit weights as quant_state's type; other
   layouts say nothing of it. */
static bool has_training_type(const qb_weight *w) {
    return w->packed && w->packed->coding == QB_CODING_CODEBOOK &&
           (w->packed->codebook == QB_CODEBOOK_NF4 || w->packed->codebook == QB_CODEBOOK_FP4);
}

static qb_dtype packed_type(const merge *g, const qb_weight *w) {
    qb_dtype own = has_training_type(w) ? w->packed->source_dtype : g->m->config.dtype;
    return float_type(g, own);
}

static bool is_turned(const qb_module *module) {
    return module->linear && module->linear->stored == QB_STORED_COLUMNS;
}

/* Tensors of the base that are not copied: parts of quantized modules and of stacks; a tied head's copy. */
static bool is_written_otherwise(const merge *g, const char *tensor) {
    return qb_modules_own(&g->packed, tensor) || qb_stacks_own_tensor(g->m, tensor) ||
           ((g->plan->drops_head || g->plan->unties) && !strcmp(tensor, g->plan->head));
}

/* Of the tensor as it is written: a table may have other rows than the base's. */
static int64_t rows_of(const merge *g, const char *name, const qb_tensor *t) {
    bool table = !strcmp(name, g->plan->embed) || !strcmp(name, g->plan->head);
    return table && g->plan->vocab ? g->plan->vocab : t->shape[0];
}

static qb_status plan_tensor(merge *g, const char *name, const qb_tensor *t) {
    int64_t shape[QB_MAX_DIMS];
    memcpy(shape, t->shape, sizeof shape);
    if (t->n_dims) shape[0] = rows_of(g, name, t);
    return qb_writer_plan(g->writer, name, float_type(g, t->dtype), t->n_dims, shape);
}

/* ---- planning the files ---- */

static qb_status plan_packed(merge *g, const qb_module *module) {
    char name[QB_NAME_BYTES + 8];
    qb_weight w;
    bool turned = is_turned(module);
    qb_status st = qb_module_read(g->m, module, &w);
    if (st != QB_OK) return st;
    snprintf(name, sizeof name, "%s.weight", module->name);
    st = qb_writer_plan(
        g->writer, name, packed_type(g, &w), 2,
        (int64_t[]){turned ? module->cols : module->rows, turned ? module->rows : module->cols});
    qb_module_unread(g->m, module, &w);
    return st;
}

static qb_status need_float(const merge *g, const qb_tensor *t) {
    if (is_float(t->dtype)) return QB_OK;
    return qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %.200s is %.20s and cannot be merged onto",
                   qb_checkpoint_dir(g->m->checkpoint), t->name,
                   qb_checkpoint_dtype_name(g->m->checkpoint, t));
}

static qb_status plan_others(merge *g) {
    qb_checkpoint *ck = g->m->checkpoint;
    for (size_t i = 0; i < qb_checkpoint_count(ck); i++) {
        const qb_tensor *t = qb_checkpoint_at(ck, i);
        size_t edits;
        if (is_written_otherwise(g, t->name)) continue;
        qb_status st = qb_merge_edits(g->plan, t->name, 0, &edits) ? need_float(g, t) : QB_OK;
        if (st == QB_OK && t->dtype >= QB_DTYPE_COUNT)
            st = qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %s has a dtype that cannot be copied",
                         qb_checkpoint_dir(ck), t->name);
        if (st == QB_OK) st = plan_tensor(g, t->name, t);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

/* The untied head, of the embedding's type. */
static qb_status embedding(const merge *g, const qb_tensor **out) {
    qb_status st = qb_checkpoint_need(g->m->checkpoint, g->plan->embed, out);
    return st == QB_OK ? need_float(g, *out) : st;
}

static qb_status plan_head(merge *g) {
    const qb_tensor *t;
    if (!g->plan->unties) return QB_OK;
    qb_status st = embedding(g, &t);
    return st == QB_OK ? plan_tensor(g, g->plan->head, t) : st;
}

static bool has_stacks(const qb_model *m) {
    const qb_topology *t = &m->topology;
    for (int64_t layer = 0; layer < t->n_layers; layer++)
        for (size_t i = 0; i < t->layers[layer].n_linears; i++)
            if (t->layers[layer].linears[i].stack) return true;
    return false;
}

/* ---- writing ---- */

static void note(merge *g, qb_dtype dtype, int64_t n, bool changed) {
    g->report->weights += n;
    g->report->tensors += changed;
    g->dtypes |= 1U << dtype;
    g->done_bytes += (double)n * (double)qb_dtype_bytes(dtype);
    qb_progress_update(&g->progress, g->done_bytes);
}

static qb_status put_values(merge *g, const char *name, const float *values, int64_t n, qb_dtype as) {
    return qb_target_put_as(g->writer, name, values, n, as, &g->report->rounded);
}

/* [rows, cols] to [cols, rows]. */
static void turn_into(const float *values, int64_t rows, int64_t cols, float *out) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < cols; k++) out[k * rows + r] = values[r * cols + k];
}

/* The values that the adapter was trained beside. */
static qb_status dequantize(const qb_weight *w, int64_t n, float *values) {
    uint16_t *halves = NULL;
    qb_dtype type = w->packed->source_dtype;
    qb_qweight_dequantize(w->packed, values);
    if (!has_training_type(w) || type == QB_DTYPE_F32) return QB_OK;
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)n, sizeof *halves, &halves));
    QB_TRY(st, qb_from_f32(type, values, n, halves));
    st = qb_to_f32(type, halves, n, values);
out:
    qb_free(halves);
    return st;
}

static qb_status put_packed(merge *g, const qb_module *module) {
    char name[QB_NAME_BYTES + 8];
    int64_t rows = module->rows, cols = module->cols, n = rows * cols;
    bool turned = is_turned(module);
    size_t edits;
    float *values = NULL, *other = NULL;
    qb_weight w;
    qb_status st = qb_module_read(g->m, module, &w);
    if (st != QB_OK) return st;
    snprintf(name, sizeof name, "%s.weight", module->name);
    qb_dtype as = packed_type(g, &w);
    QB_TRY(st, qb_alloc((size_t)n, sizeof *values, &values));
    QB_TRY(st, dequantize(&w, n, values));
    if (turned) {
        QB_TRY(st, qb_alloc((size_t)n, sizeof *other, &other));
        turn_into(values, rows, cols, other);
    }
    float *result = turned ? other : values;
    QB_TRY(st,
           qb_merge_apply(g->plan, name, 0, turned ? cols : rows, turned ? rows : cols, g->threads, result));
    QB_TRY(st, put_values(g, name, result, n, as));
    note(g, as, n, qb_merge_edits(g->plan, name, 0, &edits) != NULL);
    g->report->dequantized++;
out:
    qb_free(values);
    qb_free(other);
    qb_module_unread(g->m, module, &w);
    return st;
}

/* Tensor `t` of the base, with the edits of `name`, as `name`. */
static qb_status put_edited(merge *g, const qb_tensor *t, const char *name, bool changed) {
    int64_t n = t->bytes / (int64_t)qb_dtype_bytes(t->dtype), cols = t->n_dims == 2 ? t->shape[1] : 1,
            had = n;
    if (t->n_dims == 2) n = rows_of(g, name, t) * cols;
    const void *bytes;
    float *values = NULL;
    qb_status st = qb_checkpoint_acquire(g->m->checkpoint, t, &bytes);
    if (st != QB_OK) return st;
    QB_TRY(st, qb_checkpoint_check_finite(g->m->checkpoint, t));
    QB_TRY(st, qb_alloc((size_t)n, sizeof *values, &values));
    QB_TRY(st, qb_to_f32(t->dtype, bytes, n < had ? n : had, values));
    QB_TRY(st, qb_merge_apply(g->plan, name, 0, n / cols, cols, g->threads, values));
    QB_TRY(st, put_values(g, name, values, n, float_type(g, t->dtype)));
    note(g, float_type(g, t->dtype), n, changed);
out:
    qb_free(values);
    qb_checkpoint_release(g->m->checkpoint, t);
    return st;
}

static qb_status copy(merge *g, const qb_tensor *t) {
    const void *bytes;
    qb_status st = qb_checkpoint_acquire(g->m->checkpoint, t, &bytes);
    if (st != QB_OK) return st;
    st = qb_checkpoint_check_finite(g->m->checkpoint, t);
    if (st == QB_OK) st = qb_writer_put(g->writer, t->name, bytes, t->bytes);
    qb_checkpoint_release(g->m->checkpoint, t);
    g->done_bytes += (double)t->bytes;
    qb_progress_update(&g->progress, g->done_bytes);
    return st;
}

static qb_status put_others(merge *g) {
    qb_checkpoint *ck = g->m->checkpoint;
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < qb_checkpoint_count(ck); i++) {
        const qb_tensor *t = qb_checkpoint_at(ck, i);
        size_t edits;
        if (is_written_otherwise(g, t->name)) continue;
        bool edited = qb_merge_edits(g->plan, t->name, 0, &edits) != NULL;
        st = edited || float_type(g, t->dtype) != t->dtype ? put_edited(g, t, t->name, edited) : copy(g, t);
    }
    const qb_tensor *t;
    if (st == QB_OK && g->plan->unties && (st = embedding(g, &t)) == QB_OK)
        st = put_edited(g, t, g->plan->head, true);
    return st;
}

static qb_status change_expert(void *ctx, const char *module, int64_t expert, int64_t rows, int64_t cols,
                               float *values) {
    merge *g = ctx;
    char name[QB_NAME_BYTES + 8];
    size_t edits;
    snprintf(name, sizeof name, "%s.weight", module);
    if (!qb_merge_edits(g->plan, name, expert, &edits)) expert = 0; /* an expert with a name of its own */
    note(g, stack_type(g), rows * cols, qb_merge_edits(g->plan, name, expert, &edits) != NULL);
    return qb_merge_apply(g->plan, name, expert, rows, cols, g->threads, values);
}

static qb_status put_stacks(merge *g) {
    qb_conversion report = {0};
    qb_stacks_change change = {change_expert, g};
    if (!has_stacks(g->m)) return QB_OK;
    qb_status st = qb_stacks_put(g->m, stack_type(g), g->writer, &change, &report);
    g->report->rounded += report.rounded;
    return st;
}

/* ---- what is said ---- */

static qb_status put_card(merge *g, const qb_quant_target *target) {
    const qb_adapter *a = g->plan->adapter;
    const qb_quantization *how = qb_checkpoint_quantization(g->m->checkpoint);
    qb_str text = {0};
    qb_str_printf(&text, "# %s with an adapter\n\nThe weights of %s (%s", g->m->name, g->m->name,
                  how->layout[0] ? how->layout : "dense");
    if (target->source_sha256) qb_str_printf(&text, ", SHA-256 %s", target->source_sha256);
    qb_str_printf(&text,
                  ") with the LoRA adapter %s merged into them: %" PRId64 " updates, %" PRId64
                  " tensors replaced",
                  qb_path_base(qb_checkpoint_dir(a->checkpoint)), g->report->lora, g->report->replaced);
    if (g->report->dequantized)
        qb_str_printf(&text, "; %" PRId64 " quantized modules were dequantized first",
                      g->report->dequantized);
    qb_str_printf(&text,
                  ".\n%" PRId64 " of %" PRId64
                  " weights were rounded once, to %s.\n\n| | |\n|---|---|\n| perplexity | "
                  "not measured; `bench eval DIR --card` fills it in |\n",
                  g->report->rounded, g->report->weights, g->report->dtype);
    if (target->program) qb_str_printf(&text, "\nMerged by QuantBench %s.\n", target->program);
    qb_status st = qb_str_status(&text);
    if (st == QB_OK) st = qb_writer_put_text(g->writer, "README.md", text.text);
    qb_str_free(&text);
    return st;
}

static void count(merge *g) {
    const qb_merge_plan *p = g->plan;
    for (size_t i = 0; i < p->count; i++) {
        g->report->lora += p->edits[i].kind == QB_EDIT_LORA;
        g->report->replaced += p->edits[i].kind != QB_EDIT_LORA;
    }
    g->report->unties = p->unties;
}

static void name_dtypes(merge *g) {
    g->report->dtype = "mixed types";
    for (int d = 0; d < QB_DTYPE_COUNT; d++)
        if (g->dtypes == 1U << d) g->report->dtype = qb_dtype_torch_name((qb_dtype)d);
}

/* config.json says the type of the floats where all have one that the base's may not say. */
static qb_status put_config(merge *g) {
    qb_model written = *g->m;
    written.head_differs = written.head_differs || g->plan->unties;
    if (g->plan->vocab) written.config.vocab = g->plan->vocab;
    bool one_type =
        g->as != QB_DTYPE_COUNT || (g->packed.count && strcmp(g->report->dtype, "mixed types") != 0);
    return qb_target_put_config(&written, NULL, NULL, one_type ? g->report->dtype : NULL, g->writer);
}

/* New rows are of new tokens, which the tokenizer beside the adapter knows. */
static qb_status choose_tokenizer(const merge *g, qb_quant_target *target) {
    const char *dir = qb_checkpoint_dir(g->plan->adapter->checkpoint);
    bool found = false;
    qb_status st = qb_target_has_tokenizer(dir, &found);
    if (st != QB_OK) return st;
    qb_info("%s: the vocabulary has %" PRId64 " rows instead of the base's %" PRId64, g->m->name,
            g->plan->vocab, g->m->topology.vocab);
    if (found)
        target->tokenizer_dir = dir;
    else
        qb_warn("%s has no tokenizer: the base's is written, which knows nothing of the new rows", dir);
    return QB_OK;
}

static qb_status fill(merge *g, const qb_quant_target *target) {
    qb_status st;
    qb_progress_begin(&g->progress, (double)qb_writer_bytes(g->writer), "merging into %s", g->m->name);
    for (size_t i = 0; i < g->packed.count; i++)
        if (!qb_stacks_own(&g->packed.items[i])) QB_TRY(st, put_packed(g, &g->packed.items[i]));
    QB_TRY(st, put_stacks(g));
    QB_TRY(st, put_others(g));
    name_dtypes(g);
    QB_TRY(st, put_config(g));
    qb_quant_target files = *target;
    if (g->plan->vocab) QB_TRY(st, choose_tokenizer(g, &files));
    QB_TRY(st, qb_target_copy_companions(g->m, &files, g->writer));
    st = put_card(g, target);
out:
    qb_progress_end(&g->progress);
    return st;
}

static qb_status plan_files(merge *g) {
    qb_modules all = {0};
    qb_status st;
    for (size_t i = 0; i < g->packed.count; i++)
        if (!qb_stacks_own(&g->packed.items[i])) QB_TRY(st, plan_packed(g, &g->packed.items[i]));
    if (has_stacks(g->m)) QB_TRY(st, qb_stacks_plan(g->m, stack_type(g), g->writer));
    QB_TRY(st, qb_modules_list(g->m, &all));
    QB_TRY(st, qb_modules_check_others(g->m, &all, NULL, NULL));
    QB_TRY(st, plan_others(g));
    QB_TRY(st, plan_head(g));
    st = qb_writer_begin(g->writer);
out:
    qb_modules_free(&all);
    return st;
}

qb_status qb_merge_model(const qb_model *m, const qb_adapter *a, qb_dtype as, qb_threads *threads,
                         const qb_quant_target *target, qb_merge_report *out) {
    int64_t started = qb_now_ns();
    qb_merge_plan plan = {0};
    merge g = {.m = m, .plan = &plan, .as = as, .threads = threads, .report = out};
    qb_status st;
    *out = (qb_merge_report){0};
    QB_TRY(st, qb_merge_plan_make(m, a, &plan));
    QB_TRY(st, qb_modules_list_packed(m, &g.packed));
    count(&g);
    QB_TRY(st, qb_writer_create(target->dir, target->replace, target->shard_bytes, &g.writer));
    QB_TRY(st, plan_files(&g));
    QB_TRY(st, fill(&g, target));
    out->tensor_bytes = qb_writer_bytes(g.writer);
    st = qb_writer_finish(g.writer);
    g.writer = NULL;
    out->seconds = (double)(qb_now_ns() - started) * 1e-9;
out:
    qb_writer_abort(g.writer);
    qb_modules_free(&g.packed);
    qb_merge_plan_free(&plan);
    return st;
}
