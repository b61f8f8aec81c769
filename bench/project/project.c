#include "bench/project/project.h"

#include "base/str.h"

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
    const qb_rows *rows;
    const qb_row_case *measured;
    const qb_target *target;
    const qb_project_config *config;
    qb_json *metrics, *warnings;
    char unfit[200];    /* why speeds are not projected; empty when the model fits */
    double gemm_tokens; /* tokens a second that products allow; NaN when no prefill row tells */
    double launch_s;    /* of a decode step, on top of what was measured */
    bool from_cpu, capped, layers_unknown;
} projection;

static const char *or_null(const char *text) {
    return *text ? text : NULL;
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

static qb_json *put_speed(projection *p, const qb_row *from, double value, double ceiling, double share) {
    qb_json *row = put_row(p, from->name, from->unit, true, or_null(from->protocol));
    if (p->unfit[0]) {
        skip_row(row, p->unfit);
    } else if (!(value > 0) || !isfinite(value)) {
        skip_row(row,
                 "the measured row tells no share of its ceiling, so there is no efficiency to carry over");
    } else {
        qb_json_put_real(row, "value", value);
        qb_json_put_real(row, "ceiling", ceiling);
        qb_json_put_real(row, "share_of_ceiling", share);
        qb_json_put_real(row, "measured_value", from->value);
    }
    return row;
}

/* Tokens of a decode row's step: "tg128@d0 b8" decodes 8 sequences side by side. */
static double sequences_of(const char *protocol) {
    const char *b = strstr(protocol, " b");
    double n = 1;
    if (b && sscanf(b, " b%lf", &n) != 1) n = 1;
    return n >= 1 ? n : 1;
}

static void project_decode(projection *p, const qb_row *m) {
    double share = efficiency(p, m->share_of_ceiling), bytes = m->bytes_per_token;
    double sequences = sequences_of(m->protocol), value = share * copy_rate(p->target) / bytes;
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

static double prefill_rate(projection *p, const qb_row *m) {
    double flops = m->flop_per_s / m->value;
    return efficiency(p, m->share_of_ceiling) * gemm_rate(p->target) / flops;
}

/* Seconds of a prompt of that length. */
static double prompt_seconds(projection *p, const qb_row *m, double tokens) {
    return tokens / prefill_rate(p, m) + p->launch_s;
}

static double prompt_tokens(const qb_row *m) {
    double tokens;
    return sscanf(m->protocol, "pp%lf", &tokens) == 1 && tokens > 0 ? tokens : (double)NAN;
}

static void project_prefill(projection *p, const qb_row *m) {
    double share = efficiency(p, m->share_of_ceiling);
    double tokens = prompt_tokens(m) * sequences_of(m->protocol);
    qb_json *row = put_speed(p, m, tokens / prompt_seconds(p, m, tokens), gemm_rate(p->target), share);
    qb_json_put_real(row, "flop_per_token", m->flop_per_s / m->value);
}

static void project_first_token(projection *p, const qb_row *m) {
    const qb_row *prefill = qb_rows_find_ok(p->measured, "prefill", m->protocol, NULL);
    double value = (double)NAN;
    if (prefill) value = prompt_seconds(p, prefill, prompt_tokens(prefill));
    qb_json *row = put_row(p, "time_to_first_token", "s", false, or_null(m->protocol));
    if (p->unfit[0])
        skip_row(row, p->unfit);
    else if (!(value > 0) || !isfinite(value))
        skip_row(row, "no prefill row of this length tells a share of its ceiling");
    else
        qb_json_put_real(row, "value", value);
}

/* ---- memory ---- */

static void project_memory(projection *p) {
    double weights = qb_rows_value(p->measured, "resident_weight_bytes");
    double token = qb_rows_value(p->measured, "kv_bytes_per_token");
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

static void project_gptq(projection *p) {
    const qb_row_case *c = p->measured;
    double tokens = c->samples * c->seqlen, seconds = c->quantize_seconds;
    double here = c->device ? c->device->ceilings.gemm_flop_per_s : (double)NAN;
    qb_gptq_work w;
    qb_json *row = put_row(p, "quantize_seconds", "s", false, NULL);
    if (!qb_gptq_work_of(c->modules, c->n_modules, tokens, &w)) {
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
    const qb_json *from = qb_json_get(p->measured->json, "quantization");
    if (!qb_json_is_object(from)) return NULL;
    const char *method = qb_json_string(qb_json_get(from, "method"));
    qb_json *q = qb_json_object();
    qb_json_put_text(q, "method", method);
    qb_json_put_null(q, "seconds");
    if (method && !strcmp(method, "gptq")) project_gptq(p);
    const char *const sizes[] = {"checkpoint_bytes", "bits_per_weight"};
    for (size_t i = 0; i < 2; i++)
        if (qb_json_get(from, sizes[i])) qb_json_put(q, sizes[i], qb_json_copy(qb_json_get(from, sizes[i])));
    qb_json_put_bool(q, "projected", true);
    return q;
}

/* ---- launches ---- */

/* As the model says, else as many as its quantized modules of one kind; NaN when neither tells. */
static double layers_of(const qb_row_case *c) {
    const char *leaf = c->n_modules ? strrchr(c->modules[0].name, '.') : NULL;
    double n = c->n_layers;
    if (n > 0 || !leaf) return n;
    n = 0;
    for (int i = 0; i < c->n_modules; i++) {
        const char *end = strrchr(c->modules[i].name, '.');
        n += end && !strcmp(end, leaf);
    }
    return n;
}

/* An unquantized case lists no modules, but another case of its model may. */
static double find_layers(const projection *p) {
    double n = layers_of(p->measured);
    for (int i = 0; i < p->rows->n_cases && !(n > 0); i++)
        if (!strcmp(p->rows->cases[i].model, p->measured->model)) n = layers_of(&p->rows->cases[i]);
    return n;
}

/* A share measured on a GPU has the launches in it; a CPU launches nothing. */
static void set_launches(projection *p) {
    const char *backend = p->measured->backend;
    double layers = find_layers(p);
    p->from_cpu = !*backend || !strcmp(backend, "cpu");
    p->layers_unknown = p->from_cpu && !(layers > 0);
    if (p->from_cpu && layers > 0)
        p->launch_s = (kernels_a_layer * layers + kernels_beside) * p->target->launch_s;
}

/* ---- the case ---- */

/* What a model answers and how large it is does not change with the device. */
static bool is_carried_over(const qb_row *r) {
    qb_judge by = qb_row_judge(r);
    return by == QB_JUDGE_QUALITY || by == QB_JUDGE_SIZE || !strcmp(r->name, "resident_weight_bytes");
}

static void project_metrics(projection *p) {
    const qb_row_case *c = p->measured;
    p->gemm_tokens = (double)NAN;
    for (int i = 0; i < c->n_rows; i++)
        if (!strcmp(c->rows[i].name, "prefill") && c->rows[i].status == QB_ROW_OK)
            p->gemm_tokens = fmax(p->gemm_tokens, prefill_rate(p, &c->rows[i])); /* NaN yields to a number */
    for (int i = 0; i < c->n_rows; i++) {
        const qb_row *r = &c->rows[i];
        if (is_carried_over(r)) {
            qb_json *copy = qb_json_copy(r->json);
            qb_json_put_bool(copy, "projected", true);
            qb_json_push(p->metrics, copy);
        } else if (r->status != QB_ROW_OK) {
            continue;
        } else if (!strcmp(r->name, "decode")) {
            project_decode(p, r);
        } else if (!strcmp(r->name, "prefill")) {
            project_prefill(p, r);
        } else if (!strcmp(r->name, "time_to_first_token")) {
            project_first_token(p, r);
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

qb_status qb_project_case(const qb_rows *rows, const qb_row_case *measured, const qb_target *target,
                          const qb_project_config *config, qb_json **out) {
    const qb_json *json = measured->json;
    projection p = {.rows = rows,
                    .measured = measured,
                    .target = target,
                    .config = config,
                    .metrics = qb_json_array(),
                    .warnings = qb_json_array()};
    qb_str id = {0};
    qb_json *c = qb_json_object(), *settings = qb_json_copy(qb_json_get(json, "config"));
    qb_json *quantization = NULL;
    qb_str_printf(&id, "%s@%s", measured->id, target->name);
    qb_json_put_text(c, "id", qb_str_get(&id));
    qb_json_put_text(c, "status", qb_json_string(qb_json_get(json, "status")));
    qb_json_put_text(c, "device", qb_json_string(qb_json_get(json, "device")));
    qb_json_put_text(c, "error", qb_json_string(qb_json_get(json, "error")));
    qb_json_put_text(settings, "device", target->name);
    qb_json_put(c, "config", settings);
    const qb_json *display = qb_json_get(json, "display"), *model = qb_json_get(json, "model");
    if (display) qb_json_put(c, "display", qb_json_copy(display));
    if (qb_json_is_object(model))
        qb_json_put(c, "model", qb_json_copy(model));
    else
        qb_json_put_null(c, "model");
    if (measured->status == QB_ROW_OK) {
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
    qb_json_put_text(j, "from_created",
                     qb_json_string(qb_json_get(qb_json_get(measured->doc, "context"), "created")));
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
