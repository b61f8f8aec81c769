#include "bench/project/project.h"

#include "base/str.h"
#include "results/case.h"
#include "results/device.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const qb_target targets[] = {
#define X(name, label, mib, bandwidth, copy, fp16, gemm, fp32, launch, source, shares)                       \
    {name, label,       (double)(mib)*1048576, (bandwidth)*1e9, copy,  (fp16)*1e12,                          \
     gemm, (fp32)*1e12, (launch)*1e-6,         source,          shares},
#include "bench/project/devices.def"
#undef X
};
enum { N_TARGETS = sizeof targets / sizeof targets[0] };
/* Factorizations are long chains of small steps: half of the float32 rate is what libraries reach (2c). */
static const double factor_share = 0.5;
/* Kernels that wait for each other in a fused decode step: five a layer, and embedding, norm and head. */
static const double kernels_a_layer = 5, kernels_beside = 3;

const qb_target *qb_target_at(size_t index) {
    return index < N_TARGETS ? &targets[index] : NULL;
}

const qb_target *qb_target_find(const char *name) {
    for (size_t i = 0; i < N_TARGETS; i++)
        if (!strcmp(targets[i].name, name)) return &targets[i];
    return NULL;
}

typedef struct projection {
    const qb_results *document;
    const qb_json *measured, *ceilings;
    const qb_target *target;
    const qb_project_config *config;
    qb_json *metrics, *warnings;
    char unfit[200];    /* why speeds are not projected; empty when the model fits */
    double gemm_tokens; /* tokens a second that products allow; NaN when no prefill row tells */
    double launch_s;    /* of a decode step, on top of what was measured */
    bool from_cpu, capped, layers_unknown;
} projection;

static double number(const qb_json *object, const char *key) {
    return qb_json_number(qb_json_get(object, key));
}
static const char *text(const qb_json *object, const char *key) {
    return qb_json_string(qb_json_get(object, key));
}

static double copy_rate(const qb_target *t) {
    return t->bandwidth_bytes_per_s * t->copy_share;
}
static double gemm_rate(const qb_target *t) {
    return t->fp16_flop_per_s * t->gemm_share;
}

/* ---- rows ---- */

static qb_json *put_row(projection *p, const char *name, const char *unit, bool higher,
                        const char *protocol) {
    qb_json *row = qb_json_object();
    qb_json_put_text(row, "name", name);
    qb_json_put_null(row, "value");
    qb_json_put_text(row, "unit", unit);
    qb_json_put_text(row, "better", higher ? "higher" : "lower");
    qb_json_put_text(row, "protocol", protocol);
    qb_json_put_null(row, "dataset");
    qb_json_put_text(row, "status", "ok");
    qb_json_put_null(row, "error");
    qb_json_put_bool(row, "projected", true);
    qb_json_push(p->metrics, row);
    return row;
}

static void skip_row(qb_json *row, const char *why) {
    qb_json_put_text(row, "status", "skipped");
    qb_json_put_text(row, "error", why);
}

/* The share of its ceiling that a measured row reached. Small models live in caches and may pass 1: what they
   reach there says nothing of the device, so 1 is taken and a warning tells. */
static double efficiency(projection *p, double share) {
    if (share > 1) {
        p->capped = true;
        return 1;
    }
    return share;
}

static qb_json *put_speed(projection *p, const qb_json *from, double value, double ceiling, double share) {
    qb_json *row = put_row(p, text(from, "name"), text(from, "unit"), true, text(from, "protocol"));
    if (p->unfit[0]) {
        skip_row(row, p->unfit);
    } else if (!(value > 0) || !isfinite(value)) {
        skip_row(row,
                 "the measured row tells no share of its ceiling, so there is no efficiency to carry over");
    } else {
        qb_json_put_real(row, "value", value);
        qb_json_put_real(row, "ceiling", ceiling);
        qb_json_put_real(row, "share_of_ceiling", share);
        qb_json_put_real(row, "measured_value", number(from, "value"));
    }
    return row;
}

/* Tokens of a decode row's step: "tg128@d0 b8" decodes 8 sequences side by side. */
static double sequences_of(const char *protocol) {
    const char *b = protocol ? strstr(protocol, " b") : NULL;
    double n = 1;
    if (b && sscanf(b, " b%lf", &n) != 1) n = 1;
    return n >= 1 ? n : 1;
}

static void project_decode(projection *p, const qb_json *m) {
    double share = efficiency(p, number(m, "share_of_ceiling")), bytes = number(m, "bytes_per_token");
    double sequences = sequences_of(text(m, "protocol")), value = share * copy_rate(p->target) / bytes;
    bool by_products = p->gemm_tokens < value;
    if (by_products) value = p->gemm_tokens;
    double step_s = sequences / value;
    value = sequences / (step_s + p->launch_s);
    const char *bound = p->launch_s > step_s ? "launches" : by_products ? "products" : "memory";
    qb_json *row = put_speed(p, m, value, copy_rate(p->target), share);
    qb_json_put_real(row, "bytes_per_token", bytes);
    if (!qb_json_is_null(qb_json_get(row, "value"))) {
        qb_json_put_real(row, "bytes_per_s", value * bytes);
        qb_json_put_real(row, "share_of_ceiling", value * bytes / copy_rate(p->target));
        qb_json_put_real(row, "launch_s", p->launch_s);
        qb_json_put_text(row, "bound", bound);
    }
}

static double prefill_rate(projection *p, const qb_json *m) {
    double flops = number(m, "flop_per_s") / number(m, "value");
    return efficiency(p, number(m, "share_of_ceiling")) * gemm_rate(p->target) / flops;
}

/* Seconds of a prompt of that length. */
static double prompt_seconds(projection *p, const qb_json *m, double tokens) {
    return tokens / prefill_rate(p, m) + p->launch_s;
}

static double prompt_tokens(const qb_json *m) {
    double tokens;
    const char *protocol = text(m, "protocol");
    return protocol && sscanf(protocol, "pp%lf", &tokens) == 1 && tokens > 0 ? tokens : (double)NAN;
}

static void project_prefill(projection *p, const qb_json *m) {
    double share = efficiency(p, number(m, "share_of_ceiling"));
    double tokens = prompt_tokens(m) * sequences_of(text(m, "protocol"));
    qb_json *row = put_speed(p, m, tokens / prompt_seconds(p, m, tokens), gemm_rate(p->target), share);
    qb_json_put_real(row, "flop_per_token", number(m, "flop_per_s") / number(m, "value"));
}

static void project_first_token(projection *p, const qb_json *m) {
    const char *protocol = text(m, "protocol");
    const qb_json *prefill = qb_results_metric(p->measured, "prefill", protocol, NULL);
    double value = (double)NAN;
    if (prefill && qb_metric_is_ok(prefill)) value = prompt_seconds(p, prefill, prompt_tokens(prefill));
    qb_json *row = put_row(p, "time_to_first_token", "s", false, protocol);
    if (p->unfit[0])
        skip_row(row, p->unfit);
    else if (!(value > 0) || !isfinite(value))
        skip_row(row, "no prefill row of this length tells a share of its ceiling");
    else
        qb_json_put_real(row, "value", value);
}

/* ---- memory ---- */

static void project_memory(projection *p) {
    double weights = qb_case_metric(p->measured, "resident_weight_bytes", NULL, NULL);
    double token = qb_case_metric(p->measured, "kv_bytes_per_token", NULL, NULL);
    double kv = token * (double)p->config->context_tokens * (double)p->config->sequences;
    double need = weights + kv + p->config->overhead_bytes;
    char protocol[64], a[32], b[32];
    snprintf(protocol, sizeof protocol, "%lld tokens x %lld", (long long)p->config->context_tokens,
             (long long)p->config->sequences);
    qb_json *row = put_row(p, "device_memory_bytes", "B", false, protocol);
    if (!isfinite(need)) {
        skip_row(row, "the case has no rows resident_weight_bytes and kv_bytes_per_token");
        return;
    }
    qb_json_put_real(row, "value", need);
    qb_json_put_real(row, "weights_bytes", weights);
    qb_json_put_real(row, "kv_bytes", kv);
    qb_json_put_real(row, "overhead_bytes", p->config->overhead_bytes);
    qb_json_put_real(row, "capacity_bytes", p->target->memory_bytes);
    qb_json_put_bool(row, "fits", need <= p->target->memory_bytes);
    if (need > p->target->memory_bytes)
        snprintf(p->unfit, sizeof p->unfit, "does not fit: needs %s of the %s that %s has",
                 qb_format_bytes(need, a), qb_format_bytes(p->target->memory_bytes, b), p->target->label);
}

/* ---- quantizing ---- */

static void project_gptq(projection *p, const qb_json *quantization) {
    const qb_json *config = qb_json_get(p->measured, "config");
    double tokens = number(config, "samples") * number(config, "seqlen");
    double seconds = qb_case_quantize_seconds(p->measured), here = number(p->ceilings, "gemm_flop_per_s");
    qb_gptq_work w;
    qb_json *row = put_row(p, "quantize_seconds", "s", false, NULL);
    if (!qb_gptq_work_of(qb_json_get(quantization, "modules"), tokens, &w)) {
        skip_row(row, "the case lists no modules with shapes, or no calibration tokens");
        return;
    }
    if (!(seconds > 0) || !(here > 0)) {
        skip_row(row, "the time of quantizing or the machine's product ceiling was not measured");
        return;
    }
    double measured_floor = (2 * w.forward + w.hessian + w.factor + w.update) / here;
    double share = efficiency(p, measured_floor / seconds), fp32 = p->target->fp32_flop_per_s;
    double half = (2 * w.forward + w.hessian) / gemm_rate(p->target);
    double full = w.factor / (fp32 * factor_share) + w.update / fp32;
    qb_json_put_real(row, "value", (half + full) / share);
    qb_json_put_real(row, "floor_seconds", half + full);
    qb_json_put_real(row, "share_of_ceiling", share);
    qb_json_put_real(row, "measured_value", seconds);
    qb_json_put_real(row, "forward_flop", 2 * w.forward);
    qb_json_put_real(row, "hessian_flop", w.hessian);
    qb_json_put_real(row, "factor_flop", w.factor);
    qb_json_put_real(row, "update_flop", w.update);
}

static qb_json *project_quantization(projection *p) {
    const qb_json *from = qb_json_get(p->measured, "quantization");
    if (!qb_json_is_object(from)) return NULL;
    const char *method = text(from, "method");
    qb_json *q = qb_json_object();
    qb_json_put_text(q, "method", method);
    qb_json_put_null(q, "seconds");
    if (method && !strcmp(method, "gptq")) project_gptq(p, from);
    const char *const sizes[] = {"checkpoint_bytes", "bits_per_weight"};
    for (size_t i = 0; i < 2; i++)
        if (qb_json_get(from, sizes[i])) qb_json_put(q, sizes[i], qb_json_copy(qb_json_get(from, sizes[i])));
    qb_json_put_bool(q, "projected", true);
    return q;
}

/* ---- launches ---- */

/* As the model says, else as many as its quantized modules of one kind; NaN when neither tells. */
static double layers_of(const qb_json *c) {
    double n = number(qb_json_get(c, "model"), "n_layers");
    const qb_json *first = qb_json_first(qb_json_get(qb_json_get(c, "quantization"), "modules"));
    const char *name = first ? text(first, "name") : NULL, *leaf = name ? strrchr(name, '.') : NULL;
    if (n > 0 || !leaf) return n;
    n = 0;
    for (const qb_json *m = first; m; m = qb_json_next(m)) {
        const char *other = text(m, "name"), *end = other ? strrchr(other, '.') : NULL;
        n += end && !strcmp(end, leaf);
    }
    return n;
}

/* An unquantized case lists no modules, but another case of its model may. */
static double find_layers(const projection *p) {
    double n = layers_of(p->measured);
    const qb_json *c = qb_json_first(qb_json_get(p->document->doc, "cases"));
    for (; c && !(n > 0); c = qb_json_next(c))
        if (!strcmp(qb_case_model(c), qb_case_model(p->measured))) n = layers_of(c);
    return n;
}

/* A share measured on a GPU has the launches in it; a CPU launches nothing. */
static void set_launches(projection *p) {
    const char *backend = text(qb_json_get(p->measured, "config"), "backend");
    double layers = find_layers(p);
    p->from_cpu = !backend || !strcmp(backend, "cpu");
    p->layers_unknown = p->from_cpu && !(layers > 0);
    if (p->from_cpu && layers > 0)
        p->launch_s = (kernels_a_layer * layers + kernels_beside) * p->target->launch_s;
}

/* ---- the case ---- */

/* What a model answers and how large it is does not change with the device. */
static bool is_carried_over(const char *name) {
    static const char *const names[] = {"perplexity", "checkpoint_bytes", "bits_per_weight",
                                        "resident_weight_bytes", "kv_bytes_per_token"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(name, names[i])) return true;
    return false;
}

static void project_metrics(projection *p) {
    const qb_json *metrics = qb_json_get(p->measured, "metrics");
    p->gemm_tokens = (double)NAN;
    for (const qb_json *m = qb_json_first(metrics); m; m = qb_json_next(m))
        if (!strcmp(text(m, "name"), "prefill") && qb_metric_is_ok(m))
            p->gemm_tokens = fmax(p->gemm_tokens, prefill_rate(p, m)); /* NaN yields to a number */
    for (const qb_json *m = qb_json_first(metrics); m; m = qb_json_next(m)) {
        const char *name = text(m, "name");
        if (is_carried_over(name)) {
            qb_json *copy = qb_json_copy(m);
            qb_json_put_bool(copy, "projected", true);
            qb_json_push(p->metrics, copy);
        } else if (!qb_metric_is_ok(m)) {
            continue;
        } else if (!strcmp(name, "decode")) {
            project_decode(p, m);
        } else if (!strcmp(name, "prefill")) {
            project_prefill(p, m);
        } else if (!strcmp(name, "time_to_first_token")) {
            project_first_token(p, m);
        }
    }
}

static void put_warnings(projection *p) {
    if (p->from_cpu)
        qb_json_push_text(p->warnings, "the efficiency was measured on a CPU; a GPU's kernels reach another");
    if (p->capped)
        qb_json_push_text(p->warnings,
                          "a measured row passed its ceiling (its data fits the caches); 1 was taken");
    if (p->layers_unknown)
        qb_json_push_text(p->warnings,
                          "launches of kernels are left out, since the document does not tell the "
                          "number of layers: small models will be slower");
}

qb_status qb_project_case(const qb_results *document, const qb_json *measured, const qb_target *target,
                          const qb_project_config *config, qb_json **out) {
    const qb_json *device = qb_case_device(document, measured);
    projection p = {.document = document,
                    .measured = measured,
                    .ceilings = qb_json_get(device, "ceilings"),
                    .target = target,
                    .config = config,
                    .metrics = qb_json_array(),
                    .warnings = qb_json_array()};
    qb_str id = {0};
    qb_json *c = qb_json_object(), *settings = qb_json_copy(qb_json_get(measured, "config"));
    qb_json *quantization = NULL;
    qb_str_printf(&id, "%s@%s", text(measured, "id"), target->name);
    qb_json_put_text(c, "id", qb_str_get(&id));
    qb_json_put_text(c, "status", text(measured, "status"));
    qb_json_put_text(c, "device", text(measured, "device"));
    qb_json_put_text(c, "error", text(measured, "error"));
    qb_json_put_text(settings, "device", target->name);
    qb_json_put(c, "config", settings);
    const qb_json *model = qb_json_get(measured, "model");
    if (qb_json_is_object(model))
        qb_json_put(c, "model", qb_json_copy(model));
    else
        qb_json_put_null(c, "model");
    if (qb_case_is_ok(measured)) {
        set_launches(&p);
        project_memory(&p);
        project_metrics(&p);
        quantization = project_quantization(&p);
        put_warnings(&p);
    }
    if (quantization) qb_json_put(c, "quantization", quantization);
    qb_json_put(c, "metrics", p.metrics);
    qb_json_put(c, "warnings", p.warnings);
    qb_status st = qb_str_status(&id);
    qb_str_free(&id);
    if (st == QB_OK && !c) st = qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st != QB_OK) {
        qb_json_free(c);
        c = NULL;
    }
    *out = c;
    return st;
}

qb_json *qb_projection_json(const char *from, const char *sha256, const qb_results *measured,
                            const qb_target *const *chosen, size_t n_targets,
                            const qb_project_config *config) {
    qb_json *j = qb_json_object(), *devices = qb_json_array();
    qb_json_put_text(j, "from", from);
    qb_json_put_text(j, "from_sha256", sha256);
    qb_json_put_text(j, "from_created", text(qb_json_get(measured->doc, "context"), "created"));
    qb_json_put_int(j, "context_tokens", config->context_tokens);
    qb_json_put_int(j, "sequences", config->sequences);
    qb_json_put_real(j, "overhead_bytes", config->overhead_bytes);
    for (size_t i = 0; i < n_targets; i++) {
        const qb_target *t = chosen[i];
        qb_json *d = qb_json_object();
        qb_json_put_text(d, "name", t->name);
        qb_json_put_text(d, "label", t->label);
        qb_json_put_real(d, "memory_bytes", t->memory_bytes);
        qb_json_put_real(d, "bandwidth_bytes_per_s", t->bandwidth_bytes_per_s);
        qb_json_put_real(d, "copy_share", t->copy_share);
        qb_json_put_real(d, "fp16_flop_per_s", t->fp16_flop_per_s);
        qb_json_put_real(d, "gemm_share", t->gemm_share);
        qb_json_put_real(d, "fp32_flop_per_s", t->fp32_flop_per_s);
        qb_json_put_real(d, "launch_s", t->launch_s);
        qb_json_put_text(d, "source", t->source);
        qb_json_put_text(d, "shares", t->shares);
        qb_json_push(devices, d);
    }
    qb_json_put(j, "devices", devices);
    return j;
}
