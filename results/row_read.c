#include "results/row_read.h"

#include "base/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 4096 };

const char *qb_read_text(const qb_json *object, const char *key) {
    return qb_json_string(qb_json_get(object, key));
}

const char *qb_read_word(const qb_json *object, const char *key) {
    const char *text = qb_read_text(object, key);
    return text ? text : "";
}

double qb_read_number(const qb_json *object, const char *key) {
    return qb_json_number(qb_json_get(object, key));
}

static qb_row_status status_of(const qb_json *object) {
    const char *word = qb_read_word(object, "status");
    return !strcmp(word, "ok") ? QB_ROW_OK : !strcmp(word, "skipped") ? QB_ROW_SKIPPED : QB_ROW_FAILED;
}

static qb_status numbers_of(qb_arena *arena, const qb_json *array, const double **out, int64_t *n) {
    double *values;
    *n = 0;
    qb_status st = qb_arena_alloc(arena, (size_t)qb_json_count(array), sizeof *values, &values);
    if (st != QB_OK) return st;
    for (const qb_json *v = qb_json_first(array); v; v = qb_json_next(v)) values[(*n)++] = qb_json_number(v);
    *out = values;
    return QB_OK;
}

/* ---- rows ---- */

double qb_read_part(const qb_row *r, const qb_json *j) {
    double said = qb_read_number(j, "text_part");
    if (!isnan(said)) return said;
    /* Strided windows overlap, and score each token once. */
    double covered = !strncmp(r->protocol, "strided", 7) ? r->scored_tokens : r->window_tokens * r->windows;
    /* NaN, where a figure is missing, compares false. */
    return covered + r->window_tokens <= r->total_tokens ? covered / r->total_tokens : 1;
}

static qb_status read_windowed(qb_arena *arena, const qb_json *j, qb_windowed *out) {
    int64_t n = 0;
    qb_status st = numbers_of(arena, qb_json_get(j, "window_nll_nats"), &out->nll_nats, &out->n);
    if (st == QB_OK) st = numbers_of(arena, qb_json_get(j, "window_tokens_scored"), &out->tokens, &n);
    out->windows_per_sum = qb_read_number(j, "windows_per_sum");
    return st;
}

qb_status qb_read_row(qb_arena *arena, const qb_json *j, const qb_row_case *of, qb_row *r) {
    double n = qb_read_number(j, "n");
    *r = (qb_row){.of = of,
                  .json = j,
                  .metric = qb_metric_find(qb_read_text(j, "name")),
                  .name = qb_read_word(j, "name"),
                  .unit = qb_read_word(j, "unit"),
                  .protocol = qb_read_word(j, "protocol"),
                  .dataset = qb_read_word(j, "dataset"),
                  .error = qb_read_word(j, "error"),
                  .higher_is_better = !strcmp(qb_read_word(j, "better"), "higher"),
                  .projected = qb_json_true(qb_json_get(j, "projected")),
                  .status = status_of(j),
                  .value = qb_read_number(j, "value"),
                  .stderr_value = qb_read_number(j, "stderr"),
                  .mean = qb_read_number(j, "mean"),
                  .sd = qb_read_number(j, "sd"),
                  .min = qb_read_number(j, "min"),
                  .max = qb_read_number(j, "max"),
                  .n = n > 0 && n < 9e15 ? (int64_t)n : 0,
                  .windows = qb_read_number(j, "windows"),
                  .window_tokens = qb_read_number(j, "window_tokens"),
                  .scored_tokens = qb_read_number(j, "scored_tokens"),
                  .total_tokens = qb_read_number(j, "total_tokens"),
                  .floor = qb_read_number(j, "floor"),
                  .special_tokens_found = qb_read_number(j, "special_tokens_found"),
                  .bytes_per_s = qb_read_number(j, "bytes_per_s"),
                  .bytes_per_token = qb_read_number(j, "bytes_per_token"),
                  .flop_per_s = qb_read_number(j, "flop_per_s"),
                  .ceiling = qb_read_number(j, "ceiling"),
                  .share_of_ceiling = qb_read_number(j, "share_of_ceiling"),
                  .median_low = qb_read_number(j, "median_low"),
                  .median_high = qb_read_number(j, "median_high"),
                  .half_width = qb_read_number(j, "half_width"),
                  .noise_told = !qb_json_is_null(qb_json_get(j, "noisy")),
                  .noisy = qb_json_true(qb_json_get(j, "noisy")),
                  .noise = qb_read_text(j, "noise"),
                  .share_reason = qb_read_text(j, "share_reason"),
                  .activations = qb_read_text(j, "activations"),
                  .special_tokens = qb_read_text(j, "special_tokens"),
                  .sha256 = qb_read_text(j, "sha256"),
                  .data_sha256 = qb_read_text(j, "data_sha256"),
                  .base = qb_read_text(j, "base")};
    r->part = qb_read_part(r, j);
    const char *from = qb_read_text(j, "stderr_from");
    r->few_windows = from && !strcmp(from, "windows") && r->windows < QB_MIN_WINDOWS;
    if (r->few_windows) r->stderr_value = (double)NAN;
    int64_t n_samples = 0;
    qb_status st = numbers_of(arena, qb_json_get(j, "samples"), &r->samples, &n_samples);
    r->n_samples = (int)n_samples;
    if (st == QB_OK) st = numbers_of(arena, qb_json_get(j, "round_medians"), &r->rounds, &n_samples);
    r->n_rounds = (int)n_samples;
    return st == QB_OK ? read_windowed(arena, j, &r->windowed) : st;
}

/* ---- cases ---- */

/* The first number among the dotted parts: "model.layers.3.mlp.up_proj" is of layer 3. */
static int layer_of(const char *module) {
    for (const char *p = module; p; p = strchr(p, '.') ? strchr(p, '.') + 1 : NULL) {
        size_t n = strspn(p, "0123456789");
        if (n > 0 && n < 5 && (p[n] == '.' || p[n] == 0)) {
            int layer = atoi(p);
            return layer < MAX_LAYERS ? layer : -1;
        }
    }
    return -1;
}

static qb_status read_modules(qb_arena *arena, const qb_json *list, qb_row_case *c) {
    qb_row_module *modules;
    qb_status st = qb_arena_alloc(arena, (size_t)qb_json_count(list), sizeof *modules, &modules);
    if (st != QB_OK) return st;
    for (const qb_json *j = qb_json_first(list); j; j = qb_json_next(j))
        modules[c->n_modules++] = (qb_row_module){
            .name = qb_read_word(j, "name"),
            .layer = layer_of(qb_read_text(j, "name")),
            .rows = qb_read_number(j, "rows"),
            .cols = qb_read_number(j, "cols"),
            .relative_error =
                qb_read_text(j, "error_kind") ? qb_read_number(j, "relative_error") : (double)NAN,
            .of_output = !strcmp(qb_read_word(j, "error_kind"), "hessian")};
    c->modules = modules;
    return QB_OK;
}

/* The measured row first, then what the quantizer reported, then what the model's files said. */
static double figure(const qb_row_case *c, const char *name) {
    double value = qb_rows_value(c, name);
    if (isnan(value)) value = qb_read_number(qb_json_get(c->json, "quantization"), name);
    if (isnan(value)) value = qb_read_number(qb_json_get(c->json, "model"), name);
    return value;
}

static bool is_unquantized(const qb_row_case *c) {
    static const char *const plain[] = {"none", "f16", "f32", "bf16", "fp16", "fp32"};
    if (qb_json_is_object(qb_json_get(c->json, "quantization"))) return false;
    if (!*c->method) return c->bits_per_weight >= 16;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (!strcmp(c->method, plain[i])) return true;
    return false;
}

static const char *projected_on(const qb_row_case *c, const qb_json *config) {
    for (int i = 0; i < c->n_rows; i++)
        if (c->rows[i].projected) return qb_read_word(config, "device");
    return NULL;
}

qb_status qb_read_case(qb_arena *arena, qb_row_case *c) {
    const qb_json *j = c->json, *config = qb_json_get(j, "config"), *model = qb_json_get(j, "model"),
                  *quantization = qb_json_get(j, "quantization");
    c->id = qb_read_word(j, "id");
    c->error = qb_read_word(j, "error");
    c->status = status_of(j);
    c->model = qb_read_word(model, "name");
    c->of = qb_read_text(qb_json_get(j, "display"), "of");
    if (!c->of) c->of = c->model;
    c->method = qb_read_word(config, "method");
    c->layout = qb_read_text(config, "layout");
    c->projected_on = projected_on(c, config);
    c->bits = qb_read_number(config, "bits");
    c->group_size = qb_read_number(config, "group_size");
    c->samples = qb_read_number(config, "samples");
    c->seqlen = qb_read_number(config, "seqlen");
    c->bits_per_weight = figure(c, "bits_per_weight");
    c->checkpoint_bytes = figure(c, "checkpoint_bytes");
    c->n_params = qb_read_number(model, "n_params");
    c->n_layers = qb_read_number(model, "n_layers");
    c->peak_rss_bytes = qb_rows_value(c, "peak_rss_bytes");
    c->device_bytes = qb_rows_value(c, "device_memory_bytes");
    c->quantize_seconds = qb_rows_value(c, "quantize_seconds");
    if (isnan(c->quantize_seconds)) c->quantize_seconds = qb_read_number(quantization, "seconds");
    c->quantize_peak_bytes = qb_read_number(quantization, "peak_rss_bytes");
    c->seconds = qb_read_number(j, "seconds");
    c->architecture = qb_read_word(model, "architecture");
    c->model_sha256 = qb_read_word(model, "sha256");
    c->started = qb_read_word(j, "started");
    c->backend = qb_read_word(config, "backend");
    c->special_tokens = qb_read_word(config, "special_tokens");
    c->cached = qb_json_true(qb_json_get(quantization, "cached"));
    c->unquantized = is_unquantized(c);
    c->published = !c->unquantized && !qb_json_is_object(quantization);
    return read_modules(arena, qb_json_get(quantization, "modules"), c);
}
