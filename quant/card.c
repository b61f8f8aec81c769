/* The model card: what was done to which model with what, and what is known of the result. Two runs that give
   the same weights give the same card, so it names no times and no machine. Format: Hugging Face model cards,
   a YAML head and Markdown. */
#include "base/memory.h"
#include "quant/target.h"

#include <inttypes.h>
#include <string.h>

/* A YAML scalar in double quotes. */
static void put_quoted(qb_str *out, const char *text) {
    qb_str_text(out, "\"");
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\') qb_str_text(out, "\\");
        if ((unsigned char)*p >= 0x20) qb_str_append(out, p, 1);
    }
    qb_str_text(out, "\"");
}

static void put_head(const qb_target_run *t, qb_str *out) {
    qb_str_text(out, "---\nbase_model: ");
    put_quoted(out, t->m->name);
    qb_str_printf(
        out,
        "\nbase_model_relation: quantized\nlibrary_name: transformers\ntags:\n- %s\n- quantbench\n---\n\n",
        t->method->name);
}

/* A fence longer than any run of backquotes in the text. */
static void put_code(qb_str *out, const char *text) {
    size_t longest = 2, run = 0;
    for (const char *p = text; *p; p++) {
        run = *p == '`' ? run + 1 : 0;
        if (run > longest) longest = run;
    }
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i <= longest; i++) qb_str_text(out, "`");
        if (side == 0) qb_str_printf(out, "\n%s\n", text);
    }
    qb_str_text(out, "\n\n");
}

static void put_options(const qb_target_run *t, qb_str *out) {
    qb_json *options = qb_json_object();
    qb_options_to_json(t->method->options, t->config, options);
    for (const qb_json *e = qb_json_first(options); e; e = qb_json_next(e)) {
        char *text = NULL;
        if (qb_json_print(e, false, &text) == QB_OK)
            qb_str_printf(out, "| %s | %s |\n", qb_json_key(e), text);
        qb_free(text);
    }
    qb_json_free(options);
}

static void put_making(const qb_target_run *t, const qb_windows *calibration, qb_str *out) {
    const qb_quant_target *target = t->target;
    qb_str_text(out, "## How it was made\n\n");
    if (target->command) put_code(out, target->command);
    qb_str_printf(out, "| | |\n|---|---|\n| base model | %s |\n", t->m->name);
    if (target->source_sha256) qb_str_printf(out, "| SHA-256 of its weights | %s |\n", target->source_sha256);
    qb_str_printf(out, "| method | %s: %s |\n", t->method->name, t->method->summary);
    put_options(t, out);
    qb_str_printf(out, "| format | %s: %s |\n", t->layout->name, t->layout->summary);
    if (calibration) {
        qb_str_printf(out, "| calibration data | %s, %" PRId64 " windows of up to %d tokens |\n",
                      calibration->dataset, calibration->count, calibration->max_length);
        if (calibration->sha256[0])
            qb_str_printf(out, "| SHA-256 of its token ids | %s |\n", calibration->sha256);
        if (calibration->special_found)
            qb_str_printf(out, "| special tokens in its text | %lld, read as %s |\n",
                          (long long)calibration->special_found, calibration->special_tokens);
    }
    if (target->program) qb_str_printf(out, "| program | QuantBench %s |\n", target->program);
    qb_str_text(out, "\n");
}

static void put_errors(const qb_quant_report *report, qb_str *out) {
    const qb_module_report *worst = NULL;
    double sum = 0;
    int64_t fallbacks = 0;
    for (size_t i = 0; i < report->n_modules; i++) {
        const qb_module_report *m = &report->modules[i];
        sum += m->relative_error;
        fallbacks += m->fallback != NULL;
        if (!worst || m->relative_error > worst->relative_error) worst = m;
    }
    if (!worst) return;
    const char *what = worst->error_kind && !strcmp(worst->error_kind, "hessian")
                           ? "relative squared output error on the calibration data"
                           : "relative squared error of the weights";
    qb_str_printf(out, "| %s, mean of %zu modules | %.4g |\n", what, report->n_modules,
                  sum / (double)report->n_modules);
    qb_str_printf(out, "| the largest, %s | %.4g |\n", worst->module, worst->relative_error);
    if (fallbacks)
        qb_str_printf(out, "| modules rounded to nearest because their Hessian failed | %" PRId64 " |\n",
                      fallbacks);
}

static void put_numbers(const qb_quant_report *report, qb_str *out) {
    char size[32];
    qb_str_text(out, "## What is known of it\n\n| | |\n|---|---|\n");
    qb_str_printf(out, "| tensors | %s |\n", qb_format_bytes((double)report->checkpoint_bytes, size));
    qb_str_printf(out, "| bits a quantized weight, scales and zeros included | %.4f |\n",
                  report->bits_per_weight);
    put_errors(report, out);
    qb_str_text(out, "| perplexity | not measured; `bench eval DIR --card` fills it in |\n\n");
    qb_str_text(out, "`quantize_report.json` has error, damping and retries of each module.\n");
}

qb_status qb_card_write(const qb_target_run *t, const qb_windows *calibration, const qb_quant_report *report,
                        qb_str *out) {
    put_head(t, out);
    qb_str_printf(out, "# %s, quantized by %s\n\n", t->m->name, t->method->name);
    put_making(t, calibration, out);
    put_numbers(report, out);
    return qb_str_status(out);
}
