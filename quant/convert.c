#include "quant/convert.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "quant/stacks.h"
#include "quant/target.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const qb_model *m;
    const char *to;
    const qb_layout *layout; /* NULL: dense */
    qb_dtype dense;          /* type of the dense weights; F32 for what the layout cannot hold */
    qb_modules modules;
    qb_writer *writer;
    qb_conversion *report;
    /* what is common to all modules of an affine layout */
    qb_qweight common;
    bool any_index, all_symmetric;
    qb_json *skipped;     /* modules that the source left dense, as the new config names them; NULL: none */
    int64_t group_size;   /* of modules whose rows have several groups; 0: none has */
    int64_t widest_whole; /* columns of the widest module with one group a row */
} conversion;

/* ---- what is asked for ---- */

static const struct {
    const char *name;
    qb_dtype dtype;
} dense_types[] = {{"f16", QB_DTYPE_F16}, {"bf16", QB_DTYPE_BF16}, {"f32", QB_DTYPE_F32}};

void qb_convert_names(qb_str *out) {
    for (size_t i = 0; qb_layout_at(i); i++) {
        const char *name = qb_layout_at(i)->name;
        if (!qb_layout_is_writable(qb_layout_at(i))) continue;
        qb_str_printf(out, "%s, ",
                      !strcmp(name, "bnb4")   ? "nf4, fp4"
                      : !strcmp(name, "bnb8") ? "int8"
                                              : name);
    }
    for (size_t i = 0; i < sizeof dense_types / sizeof dense_types[0]; i++)
        qb_str_printf(out, "%s%s", i ? ", " : "", dense_types[i].name);
}

static bool is_codebook(const char *to) {
    return !strcmp(to, "nf4") || !strcmp(to, "fp4");
}

static qb_status parse_target(conversion *c) {
    c->dense = QB_DTYPE_F32;
    for (size_t i = 0; i < sizeof dense_types / sizeof dense_types[0]; i++)
        if (!strcmp(dense_types[i].name, c->to)) {
            c->dense = dense_types[i].dtype;
            return QB_OK;
        }
    const char *name = is_codebook(c->to) ? "bnb4" : !strcmp(c->to, "int8") ? "bnb8" : c->to;
    c->layout = qb_layout_find(name);
    if (c->layout && (strncmp(name, "bnb", 3) != 0 || name != c->to)) return qb_layout_need_writer(c->layout);
    qb_str names = {0};
    qb_convert_names(&names);
    qb_status st = qb_fail(QB_ERR_USAGE, "no checkpoint format '%s'; known: %s", c->to, qb_str_get(&names));
    qb_str_free(&names);
    return st;
}

/* ---- whether a module fits ---- */

static qb_status check_scales(const conversion *c, const char *module, const qb_qweight *q) {
    /* int8 rows of bitsandbytes keep their float32 scales. */
    if (strncmp(c->layout->name, "gptq", 4) != 0) return QB_OK;
    for (int64_t i = 0; i < q->rows * q->n_groups; i++)
        if (qb_f32_of_f16(qb_f16_of_f32(q->scales[i])) != q->scales[i])
            return qb_fail(
                QB_ERR_UNSUPPORTED,
                "%s: the scale %.9g of row %" PRId64 ", group %" PRId64
                " is no float16, which is what %s stores: the weights would change; --to f32 keeps "
                "them",
                module, (double)q->scales[i], i / q->n_groups, i % q->n_groups, c->to);
    return QB_OK;
}

/* One group size and one width of codes stand in the config for all modules; a group that spans the row is as
   good as any larger one. */
static qb_status check_groups(conversion *c, const char *module, const qb_qweight *q) {
    if (q->group_size >= q->cols) {
        if (q->cols > c->widest_whole) c->widest_whole = q->cols;
    } else if (c->group_size == 0) {
        c->group_size = q->group_size;
    } else if (q->group_size != c->group_size) {
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s has groups of %" PRId64 ", others of %" PRId64 ": %s has one group size for all",
                       module, q->group_size, c->group_size, c->to);
    }
    if (c->group_size && c->widest_whole > c->group_size)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: some modules have groups of %" PRId64 ", others one group for rows of %" PRId64
                       ": %s has one group size for all",
                       module, c->group_size, c->widest_whole, c->to);
    return QB_OK;
}

static qb_status check_common(conversion *c, const char *module, const qb_qweight *q) {
    bool first = c->common.bits == 0;
    c->any_index |= q->g_idx != NULL;
    if (first) c->all_symmetric = true;
    c->all_symmetric &= q->symmetric;
    if (first) {
        c->common = (qb_qweight){.coding = q->coding,
                                 .rows = q->rows,
                                 .cols = q->cols,
                                 .bits = q->bits,
                                 .group_size = q->group_size,
                                 .n_groups = q->n_groups,
                                 .scale_dtype = q->scale_dtype};
    }
    if (q->bits != c->common.bits)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s has %d bits, others have %d: %s has one width for all", module,
                       q->bits, c->common.bits, c->to);
    return check_groups(c, module, q);
}

static qb_status check_fits(conversion *c, const char *module, const qb_weight *w) {
    char what[48];
    const qb_qweight *q = w->packed;
    qb_status st;
    if (!q)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s is dense: making %s of it would lose information and is quantizing (`bench "
                       "quantize --method ..`)",
                       module, c->to);
    bool same_values = is_codebook(c->to)
                           ? q->coding == QB_CODING_CODEBOOK && !strcmp(qb_codebook_name(q->codebook), c->to)
                           : q->coding == QB_CODING_AFFINE;
    if (!same_values)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s is %s, whose values are not those of %s: it can become f32, or be quantized anew "
                       "from the original",
                       module, qb_qweight_describe(q, what), c->to);
    if (q->coding == QB_CODING_AFFINE && q->offsets)
        return qb_fail(
            QB_ERR_UNSUPPORTED,
            "%s has groups with a minimum (%d bits), which %s, with whole zero points, cannot hold; "
            "--to f32 can",
            module, q->bits, c->to);
    QB_TRY(st, c->layout->check(module, q));
    if (q->coding == QB_CODING_AFFINE) {
        QB_TRY(st, check_scales(c, module, q));
        QB_TRY(st, check_common(c, module, q));
    } else if (c->common.bits == 0) {
        c->common = *q; /* the config of a codebook looks at options only */
    }
out:
    return st;
}

/* Embeddings have no place in the layouts of linears, and a head only in a source of the same family. */
static bool goes_dense(const conversion *c, const qb_module *module) {
    return !c->layout || module->layer < 0;
}

/* ---- planning: nothing is written before every module is known to fit ---- */

/* GPT-2's dense matrices lie as [in, out]. */
static bool lies_in_columns(const qb_module *module) {
    return module->linear && module->linear->stored == QB_STORED_COLUMNS;
}

static qb_status plan_weight(conversion *c, const qb_module *module, qb_dtype dtype) {
    char name[QB_NAME_BYTES + 8];
    bool turned = lies_in_columns(module);
    snprintf(name, sizeof name, "%s.weight", module->name);
    return qb_writer_plan(
        c->writer, name, dtype, 2,
        (int64_t[]){turned ? module->cols : module->rows, turned ? module->rows : module->cols});
}

static qb_status plan_dense(conversion *c, const qb_module *module) {
    c->report->widened += c->layout != NULL;
    return plan_weight(c, module, c->dense);
}

/* A module that the source's quantizer skipped stays as it is where the new config can say so in the same
 * way. */
static bool stays(const conversion *c, const qb_weight *w) {
    const char *method = qb_checkpoint_quantization(c->m->checkpoint)->method;
    return !w->packed && ((!strcmp(method, "gptq") && !strncmp(c->layout->name, "gptq", 4)) ||
                          (!strcmp(method, "bitsandbytes") && !strncmp(c->layout->name, "bnb", 3)));
}

/* GPTQModel: a "dynamic" key "-:REGEX" skips modules. transformers' bitsandbytes: a list of their names. */
static void note_skipped(conversion *c, const char *module) {
    bool gptq = !strncmp(c->layout->name, "gptq", 4);
    qb_str key = {0};
    c->report->skipped++;
    if (!c->skipped) c->skipped = gptq ? qb_json_object() : qb_json_array();
    qb_str_text(&key, gptq ? "-:^" : "");
    for (const char *p = module; *p; p++) qb_str_printf(&key, gptq && *p == '.' ? "\\%c" : "%c", *p);
    qb_str_text(&key, gptq ? "$" : "");
    if (gptq)
        qb_json_put(c->skipped, qb_str_get(&key), qb_json_object());
    else
        qb_json_push_text(c->skipped, qb_str_get(&key));
    qb_str_free(&key);
}

static qb_status plan_as_is(conversion *c, const qb_module *module, const qb_weight *w) {
    note_skipped(c, module->name);
    return plan_weight(c, module, w->dtype);
}

/* The file's own bytes: `w` may be turned. */
static qb_status put_as_is(conversion *c, const qb_module *module) {
    char name[QB_NAME_BYTES + 8];
    const qb_tensor *t;
    const void *bytes;
    snprintf(name, sizeof name, "%s.weight", module->name);
    qb_status st = qb_checkpoint_need(c->m->checkpoint, name, &t);
    if (st != QB_OK || (st = qb_checkpoint_acquire(c->m->checkpoint, t, &bytes)) != QB_OK) return st;
    st = qb_writer_put(c->writer, name, bytes, t->bytes);
    qb_checkpoint_release(c->m->checkpoint, t);
    return st;
}

static qb_status plan_packed(conversion *c, const qb_module *module, const qb_weight *w) {
    qb_status st = check_fits(c, module->name, w);
    return st == QB_OK ? c->layout->plan(c->writer, module->name, w->packed) : st;
}

static qb_status plan_module(conversion *c, const qb_module *module) {
    qb_weight w = {0};
    qb_status st;
    if (!c->layout && qb_stacks_own(module)) return QB_OK; /* stacks.c writes them */
    QB_TRY(st, qb_target_check_stacked(module, c->layout));
    if (goes_dense(c, module)) return plan_dense(c, module);
    QB_TRY(st, qb_module_read(c->m, module, &w));
    st = stays(c, &w) ? plan_as_is(c, module, &w) : plan_packed(c, module, &w);
    qb_module_unread(c->m, module, &w);
out:
    return st;
}

/* ---- writing ---- */

/* Rounding once is what was asked for, but a product that becomes nothing has lost all it said. */
static void warn_vanished(const conversion *c, const char *name, const float *values, int64_t n) {
    int64_t vanished = 0;
    for (int64_t i = 0; i < n; i++) vanished += values[i] != 0.0F && fabsf(values[i]) <= QB_LEAST_SCALE / 2;
    if (c->dense == QB_DTYPE_F16 && vanished)
        qb_warn("%s: %" PRId64 " of %" PRId64
                " weights are too small for float16 and become 0; --to bf16 keeps "
                "them",
                name, vanished, n);
}

/* [rows, cols] to [cols, rows]. */
static qb_status turn(float **values, int64_t rows, int64_t cols) {
    float *turned;
    qb_status st = qb_alloc((size_t)(rows * cols), sizeof *turned, &turned);
    if (st != QB_OK) return st;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < cols; k++) turned[k * rows + r] = (*values)[r * cols + k];
    qb_free(*values);
    *values = turned;
    return QB_OK;
}

static qb_status put_dense(conversion *c, const qb_module *module, const qb_weight *w) {
    int64_t n = module->rows * module->cols;
    char name[QB_NAME_BYTES + 8];
    float *values;
    qb_status st = qb_alloc((size_t)n, sizeof *values, &values);
    if (st != QB_OK) return st;
    snprintf(name, sizeof name, "%s.weight", module->name);
    if (w->packed)
        qb_qweight_dequantize(w->packed, values);
    else
        st = qb_to_f32(w->dtype, w->dense, n, values);
    for (int64_t i = 0; st == QB_OK && i < n; i++)
        if (!isfinite(values[i]))
            st = qb_fail(QB_ERR_NUMERIC, "%s: element %" PRId64 " is %g: the checkpoint is damaged", name, i,
                         (double)values[i]);
    if (st == QB_OK && lies_in_columns(module)) st = turn(&values, module->rows, module->cols);
    if (st == QB_OK)
        st = qb_target_put_as(c->writer, name, values, n, c->dense, w->packed ? &c->report->rounded : NULL);
    if (st == QB_OK) warn_vanished(c, name, values, n);
    qb_free(values);
    return st;
}

static qb_status put_module(conversion *c, const qb_module *module) {
    if (!c->layout && qb_stacks_own(module)) return QB_OK;
    qb_weight w = {0};
    qb_status st = qb_module_read(c->m, module, &w);
    if (st != QB_OK) return st;
    if (goes_dense(c, module))
        st = put_dense(c, module, &w);
    else if (stays(c, &w))
        st = put_as_is(c, module);
    else
        st = c->layout->put(c->writer, module->name, w.packed);
    qb_module_unread(c->m, module, &w);
    c->report->modules++;
    c->report->weights += module->rows * module->cols;
    return st;
}

/* What the source says of how it was quantized stays said. */
static qb_json *source_options(const conversion *c) {
    static const char *const kept[] = {"damp_percent", "static_groups", "true_sequential"};
    const qb_json *from = qb_json_get(qb_checkpoint_config(c->m->checkpoint), "quantization_config");
    const qb_quantization *how = qb_checkpoint_quantization(c->m->checkpoint);
    qb_json *o = qb_json_object();
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        const qb_json *value = qb_json_get(from, kept[i]);
        if (!qb_json_is_null(value)) qb_json_put(o, kept[i], qb_json_copy(value));
    }
    if (c->common.coding == QB_CODING_AFFINE)
        qb_json_put_int(o, "group_size", c->group_size ? c->group_size : -1);
    qb_json_put_bool(o, "act_order", c->any_index || how->desc_act);
    return o;
}

static qb_status put_config(conversion *c) {
    const char *dtype = c->layout ? NULL : qb_dtype_torch_name(c->dense);
    if (!c->layout) return qb_target_put_config(c->m, NULL, NULL, dtype, c->writer);
    qb_json *options = source_options(c);
    c->common.symmetric = c->all_symmetric;
    qb_json *config = c->layout->config(&c->common, options);
    const qb_json *source = qb_json_get(qb_checkpoint_config(c->m->checkpoint), "quantization_config"),
                  *meta = qb_json_get(source, "meta");
    if (qb_json_is_object(meta) && qb_json_get(config, "meta"))
        qb_json_put(config, "meta", qb_json_copy(meta));
    if (c->skipped)
        qb_json_put(config, qb_json_is_object(c->skipped) ? "dynamic" : "llm_int8_skip_modules",
                    qb_json_copy(c->skipped));
    qb_status st = qb_target_put_config(c->m, config, c->layout->quantize_config_file, NULL, c->writer);
    qb_json_free(options);
    qb_json_free(config);
    return st;
}

static qb_status put_card(conversion *c, const qb_quant_target *target) {
    qb_str text = {0};
    const qb_quantization *how = qb_checkpoint_quantization(c->m->checkpoint);
    qb_str_printf(&text, "# %s as %s\n\nThe weights of %s (%s", c->m->name, c->to, c->m->name,
                  how->layout[0] ? how->layout : "dense");
    if (target->source_sha256) qb_str_printf(&text, ", SHA-256 %s", target->source_sha256);
    qb_str_printf(&text, ") in another layout.\n\n");
    if (c->report->rounded)
        qb_str_printf(&text,
                      "%" PRId64 " of %" PRId64 " weights were rounded once from float32 to %s, as a program "
                      "that dequantizes on loading does.\n",
                      c->report->rounded, c->report->weights, c->to);
    else
        qb_str_text(&text, "Every dequantized weight is the same number as before.\n");
    qb_str_text(&text,
                "\n| | |\n|---|---|\n| perplexity | not measured; `bench eval DIR --card` fills it in |\n");
    if (target->program) qb_str_printf(&text, "\nConverted by QuantBench %s.\n", target->program);
    qb_status st = qb_str_status(&text);
    if (st == QB_OK) st = qb_writer_put_text(c->writer, "README.md", text.text);
    qb_str_free(&text);
    return st;
}

/* ---- the whole ---- */

qb_status qb_convert_model(const qb_model *m, const char *to, const qb_quant_target *target,
                           qb_conversion *out) {
    int64_t started = qb_now_ns();
    *out = (qb_conversion){0};
    conversion c = {.m = m, .to = to, .report = out};
    qb_status st;
    QB_TRY(st, parse_target(&c));
    qb_dtype others = c.layout ? QB_DTYPE_COUNT : c.dense;
    QB_TRY(st, qb_modules_list(m, &c.modules));
    QB_TRY(st, qb_writer_create(target->dir, target->replace, target->shard_bytes, &c.writer));
    for (size_t i = 0; i < c.modules.count; i++) QB_TRY(st, plan_module(&c, &c.modules.items[i]));
    if (c.layout && out->skipped == (int64_t)c.modules.count) {
        st = qb_fail(QB_ERR_UNSUPPORTED, "%s: no module is quantized, although its config says %s", m->name,
                     qb_checkpoint_quantization(m->checkpoint)->layout);
        goto out;
    }
    if (!c.layout) QB_TRY(st, qb_stacks_plan(m, c.dense, c.writer));
    QB_TRY(st, qb_target_plan_others(m, &c.modules, others, c.writer));
    QB_TRY(st, qb_writer_begin(c.writer));
    for (size_t i = 0; i < c.modules.count; i++) QB_TRY(st, put_module(&c, &c.modules.items[i]));
    if (!c.layout) QB_TRY(st, qb_stacks_put(m, c.dense, c.writer, NULL, out));
    QB_TRY(st, qb_target_copy_others(m, &c.modules, others, c.writer));
    QB_TRY(st, put_config(&c));
    QB_TRY(st, qb_target_copy_companions(m, target, c.writer));
    QB_TRY(st, put_card(&c, target));
    out->tensor_bytes = qb_writer_bytes(c.writer);
    st = qb_writer_finish(c.writer);
    c.writer = NULL;
    out->seconds = (double)(qb_now_ns() - started) * 1e-9;
out:
    qb_writer_abort(c.writer);
    qb_modules_free(&c.modules);
    qb_json_free(c.skipped);
    return st;
}
