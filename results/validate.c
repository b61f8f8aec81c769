/* The rules of results/schema.json as tables: one row a key. A change here is a change there, and both are
   held together by tests/golden/results/mutations.json. What JSON Schema cannot say (unique ids, unique keys,
   devices that are there) stands at the end. */
#include "results/validate.h"

#include "base/memory.h"
#include "base/str.h"
#include "results/results.h"
#include "results/shape.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CASES = 10000 };

/* ---- the tables ---- */

#define TEXT   (STRING | NULLABLE)
#define COUNT  (INTEGER | NON_NEGATIVE | NULLABLE)
#define AMOUNT (NUMBER | NON_NEGATIVE | NULLABLE)

static const rule any_string = {NULL, STRING, NULL, NULL, NULL, 0};
static const rule any_number = {NULL, NUMBER, NULL, NULL, NULL, 0};
static const rule any_sum = {NULL, NUMBER | NON_NEGATIVE, NULL, NULL, NULL,
                             1e15}; /* sums and squares of them are finite */
static const rule any_count = {NULL, INTEGER | POSITIVE, NULL, NULL, NULL, 0};
static const rule string_or_object = {NULL, STRING | OBJECT, NULL, NULL, NULL, 0};

static const shape program_shape = {.rules = (const rule[]){
                                        {"name", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
                                        {"version", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
                                        {"git", TEXT, NULL, NULL, NULL, 0},
                                        {0},
                                    }};
static const shape best_value_shape = {
    .rules = (const rule[]){
        {"value", NUMBER | POSITIVE | REQUIRED, NULL, NULL, NULL, 0},
        {"date", TEXT, NULL, NULL, NULL, 0},
        {"load_average", NUMBER | NON_NEGATIVE | NULLABLE, NULL, NULL, NULL, 0},
        {0},
    }};
static const shape best_shape = {.rules = (const rule[]){
#define X(field, row_key, name, unit, scale) {#field, OBJECT, NULL, &best_value_shape, NULL, 0},
#include "base/ceilings.def"
#undef X
                                     {0},
                                 }};
/* clang-format off */
static const shape ceilings_shape = {
    .rules = (const rule[]){
#define X(field, row_key, name, unit, scale)                                                                 \
        {#field, NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},                                         \
        {#field "_after", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
#include "base/ceilings.def"
#undef X
        {"cpu_share", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
        {"cpu_share_after", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
        {"best", OBJECT | NULLABLE, NULL, &best_shape, NULL, 0},
        {0},
    }};
/* clang-format on */
static const shape node_shape = {.rules = (const rule[]){
                                     {"node", INTEGER | NON_NEGATIVE | REQUIRED, NULL, NULL, NULL, 0},
                                     {"processors", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
                                     {"threads", INTEGER | POSITIVE | REQUIRED, NULL, NULL, NULL, 0},
                                     {"read_bytes_per_s", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
                                     {0},
                                 }};
static const rule node_item = {NULL, OBJECT, NULL, &node_shape, NULL, 0};
static const shape host_shape = {.rules = (const rule[]){
                                     {"id", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
                                     {"backend", TEXT, NULL, NULL, NULL, 0},
                                     {"cpu", STRING | REQUIRED, NULL, NULL, NULL, 0},
                                     {"cores", INTEGER | POSITIVE | REQUIRED, NULL, NULL, NULL, 0},
                                     {"threads", INTEGER | POSITIVE | REQUIRED, NULL, NULL, NULL, 0},
                                     {"numa", TEXT, NULL, NULL, NULL, 0},
                                     {"nodes", ARRAY | NULLABLE, NULL, NULL, &node_item, 0},
                                     {"placed", ARRAY | NULLABLE, NULL, NULL, &any_string, 0},
                                     {"not_placed", ARRAY | NULLABLE, NULL, NULL, &any_string, 0},
                                     {"simd", TEXT, NULL, NULL, NULL, 0},
                                     {"integer", TEXT, NULL, NULL, NULL, 0},
                                     {"blas", TEXT, NULL, NULL, NULL, 0},
                                     {"memory_bytes", COUNT, NULL, NULL, NULL, 0},
                                     {"os", TEXT, NULL, NULL, NULL, 0},
                                     {"kernel", TEXT, NULL, NULL, NULL, 0},
                                     {"device", TEXT, NULL, NULL, NULL, 0},
                                     {"compute_capability", TEXT, NULL, NULL, NULL, 0},
                                     {"device_memory_bytes", COUNT, NULL, NULL, NULL, 0},
                                     {"load_average", AMOUNT, NULL, NULL, NULL, 0},
                                     {"gpu", ARRAY | NULLABLE, NULL, NULL, &string_or_object, 0},
                                     {"ceilings", OBJECT | NULLABLE, NULL, &ceilings_shape, NULL, 0},
                                     {0},
                                 }};
static const rule host_item = {NULL, OBJECT, NULL, &host_shape, NULL, 0};
static const shape data_shape = {.rules = (const rule[]){
                                     {"dataset", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
                                     {"role", TEXT, NULL, NULL, NULL, 0},
                                     {"file", TEXT, NULL, NULL, NULL, 0},
                                     {"sha256", STRING | SHA256 | NULLABLE, NULL, NULL, NULL, 0},
                                     {"bytes", COUNT, NULL, NULL, NULL, 0},
                                     {"canonical", BOOLEAN | NULLABLE, NULL, NULL, NULL, 0},
                                     {0},
                                 }};
static const rule data_item = {NULL, OBJECT, NULL, &data_shape, NULL, 0};
static const shape device_shape = {
    .rules = (const rule[]){
        {"name", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
        {"label", TEXT, NULL, NULL, NULL, 0},
        {"memory_bytes", AMOUNT, NULL, NULL, NULL, 0},
        {"bandwidth_bytes_per_s", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
        {"copy_share", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
        {"fp16_flop_per_s", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
        {"gemm_share", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
        {"fp32_flop_per_s", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
        {"launch_s", AMOUNT, NULL, NULL, NULL, 0},
        {"source", TEXT, NULL, NULL, NULL, 0},
        {"shares", TEXT, NULL, NULL, NULL, 0},
        {0},
    }};
static const rule device_item = {NULL, OBJECT, NULL, &device_shape, NULL, 0};
static const shape projection_shape = {.rules = (const rule[]){
                                           {"from", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
                                           {"from_sha256", STRING | SHA256 | NULLABLE, NULL, NULL, NULL, 0},
                                           {"from_created", TEXT, NULL, NULL, NULL, 0},
                                           {"context_tokens", COUNT, NULL, NULL, NULL, 0},
                                           {"sequences", COUNT, NULL, NULL, NULL, 0},
                                           {"overhead_bytes", AMOUNT, NULL, NULL, NULL, 0},
                                           {"devices", ARRAY | REQUIRED, NULL, NULL, &device_item, 0},
                                           {0},
                                       }};
static const shape context_shape = {.rules = (const rule[]){
                                        {"program", OBJECT | REQUIRED, NULL, &program_shape, NULL, 0},
                                        {"created", STRING | TIME | REQUIRED, NULL, NULL, NULL, 0},
                                        {"suite", TEXT, NULL, NULL, NULL, 0},
                                        {"command", ARRAY | NULLABLE, NULL, NULL, &any_string, 0},
                                        {"seed", INTEGER | NULLABLE, NULL, NULL, NULL, 0},
                                        {"devices", ARRAY | REQUIRED, NULL, NULL, &host_item, 0},
                                        {"planned", ARRAY | NULLABLE, NULL, NULL, &any_string, 0},
                                        {"data", ARRAY | NULLABLE, NULL, NULL, &data_item, 0},
                                        {"projection", OBJECT | NULLABLE, NULL, &projection_shape, NULL, 0},
                                        {0},
                                    }};

static const shape config_shape = {.rules = (const rule[]){
                                       {"model", TEXT, NULL, NULL, NULL, 0},
                                       {"method", TEXT, NULL, NULL, NULL, 0},
                                       {"bits", AMOUNT, NULL, NULL, NULL, 64},
                                       {"group_size", INTEGER | NULLABLE, NULL, NULL, NULL, 0},
                                       {"backend", TEXT, NULL, NULL, NULL, 0},
                                       {"threads", COUNT, NULL, NULL, NULL, 0},
                                       {0},
                                   }};
static const shape model_shape = {.rules = (const rule[]){
                                      {"name", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
                                      {"path", TEXT, NULL, NULL, NULL, 0},
                                      {"sha256", STRING | SHA256 | NULLABLE, NULL, NULL, NULL, 0},
                                      {"architecture", TEXT, NULL, NULL, NULL, 0},
                                      {"n_layers", COUNT, NULL, NULL, NULL, 0},
                                      {"n_params", COUNT, NULL, NULL, NULL, 0},
                                      {"n_quantized_params", COUNT, NULL, NULL, NULL, 0},
                                      {"checkpoint_bytes", COUNT, NULL, NULL, NULL, 0},
                                      {"bits_per_weight", AMOUNT, NULL, NULL, NULL, 64},
                                      {0},
                                  }};
static const shape module_shape = {.rules = (const rule[]){
                                       {"name", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
                                       {"rows", INTEGER | NON_NEGATIVE, NULL, NULL, NULL, 0},
                                       {"cols", INTEGER | NON_NEGATIVE, NULL, NULL, NULL, 0},
                                       {"error", AMOUNT, NULL, NULL, NULL, 0},
                                       {"relative_error", AMOUNT, NULL, NULL, NULL, 0},
                                       {"error_kind", TEXT, "hessian|weight", NULL, NULL, 0},
                                       {"damp_percent", AMOUNT, NULL, NULL, NULL, 0},
                                       {"dead_columns", COUNT, NULL, NULL, NULL, 0},
                                       {"calibration_tokens", COUNT, NULL, NULL, NULL, 0},
                                       {"retries", COUNT, NULL, NULL, NULL, 0},
                                       {"fallback", TEXT, NULL, NULL, NULL, 0},
                                       {"reason", TEXT, NULL, NULL, NULL, 0},
                                       {"seconds", AMOUNT, NULL, NULL, NULL, 0},
                                       {0},
                                   }};
static const rule module_item = {NULL, OBJECT, NULL, &module_shape, NULL, 0};
static const shape quantization_shape = {.rules = (const rule[]){
                                             {"method", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
                                             {"seconds", AMOUNT, NULL, NULL, NULL, 0},
                                             {"params_per_s", AMOUNT, NULL, NULL, NULL, 0},
                                             {"peak_rss_bytes", COUNT, NULL, NULL, NULL, 0},
                                             {"checkpoint_bytes", COUNT, NULL, NULL, NULL, 0},
                                             {"bits_per_weight", AMOUNT, NULL, NULL, NULL, 64},
                                             {"cached", BOOLEAN | NULLABLE, NULL, NULL, NULL, 0},
                                             {"projected", BOOLEAN | NULLABLE, NULL, NULL, NULL, 0},
                                             {"modules", ARRAY | NULLABLE, NULL, NULL, &module_item, 0},
                                             {0},
                                         }};

/* ok has a value (or the hash that stands for one) and, for a perplexity, what makes it comparable: protocol,
   dataset and the hash of the token ids. Anything else has its reason and no value. */
static qb_status check_metric(const qb_json *m, const place *at) {
    int64_t sums = qb_json_count(qb_json_get(m, "window_nll_nats")),
            tokens = qb_json_count(qb_json_get(m, "window_tokens_scored"));
    if (sums != tokens)
        return qb_shape_wrong(at, "has %lld window_nll_nats and %lld window_tokens_scored, expected as many",
                              (long long)sums, (long long)tokens);
    const char *status = qb_json_string(qb_json_get(m, "status"));
    const char *error = qb_json_string(qb_json_get(m, "error"));
    bool has_value = !qb_json_is_null(qb_json_get(m, "value"));
    if (strcmp(status, "ok") != 0) {
        if (!error || !*error)
            return qb_shape_wrong(at, "has status \"%s\" and must give the reason in \"error\"", status);
        return has_value ? qb_shape_wrong(at, "has status \"%s\", so its value must be null", status) : QB_OK;
    }
    if (!has_value && !qb_json_is_string(qb_json_get(m, "sha256")))
        return qb_shape_wrong(at, "has status \"ok\" and so needs a value or a sha256");
    if (!strcmp(qb_json_string(qb_json_get(m, "name")), "perplexity")) {
        if (has_value && qb_json_number(qb_json_get(m, "value")) < 1)
            return qb_shape_wrong(at, "is a perplexity of %.17g, which cannot be: the least is 1",
                                  qb_json_number(qb_json_get(m, "value")));
        for (const char *const *key = (const char *const[]){"protocol", "dataset", "data_sha256", NULL}; *key;
             key++)
            if (!qb_json_is_string(qb_json_get(m, *key)))
                return qb_shape_wrong(at, "is a perplexity without \"%s\", which is not a result", *key);
    }
    return QB_OK;
}
static const shape metric_shape = {
    .rules =
        (const rule[]){
            {"name", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
            {"value", NUMBER | NULLABLE | REQUIRED, NULL, NULL, NULL, 0},
            {"unit", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
            {"better", STRING | REQUIRED, "higher|lower", NULL, NULL, 0},
            {"protocol", TEXT, NULL, NULL, NULL, 0},
            {"dataset", TEXT, NULL, NULL, NULL, 0},
            {"n", COUNT, NULL, NULL, NULL, 0},
            {"stderr", AMOUNT, NULL, NULL, NULL, 0},
            {"status", STRING | REQUIRED, "ok|skipped|failed", NULL, NULL, 0},
            {"error", TEXT, NULL, NULL, NULL, 0},
            {"samples", ARRAY | NULLABLE, NULL, NULL, &any_number, 0},
            {"mean", NUMBER | NULLABLE, NULL, NULL, NULL, 0},
            {"sd", AMOUNT, NULL, NULL, NULL, 0},
            {"median_low", NUMBER | NULLABLE, NULL, NULL, NULL, 0},
            {"median_high", NUMBER | NULLABLE, NULL, NULL, NULL, 0},
            {"half_width", AMOUNT, NULL, NULL, NULL, 0},
            {"reached", BOOLEAN | NULLABLE, NULL, NULL, NULL, 0},
            {"noisy", BOOLEAN | NULLABLE, NULL, NULL, NULL, 0},
            {"noise", TEXT, NULL, NULL, NULL, 0},
            {"disturbed", ARRAY | NULLABLE, NULL, NULL, &any_number, 0},
            {"bytes_per_s", AMOUNT, NULL, NULL, NULL, 0},
            {"ceiling", AMOUNT, NULL, NULL, NULL, 0},
            {"share_of_ceiling", AMOUNT, NULL, NULL, NULL, 0},
            {"projected", BOOLEAN | NULLABLE, NULL, NULL, NULL, 0},
            {"floor", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
            {"windows", COUNT, NULL, NULL, NULL, 0},
            {"scored_tokens", COUNT, NULL, NULL, NULL, 0},
            {"total_tokens", COUNT, NULL, NULL, NULL, 0},
            {"text_part", AMOUNT, NULL, NULL, NULL, 1},
            {"special_tokens", TEXT, NULL, NULL, NULL, 0},
            {"special_tokens_found", COUNT, NULL, NULL, NULL, 0},
            {"bos", BOOLEAN | NULLABLE, NULL, NULL, NULL, 0},
            {"data_sha256", STRING | SHA256 | NULLABLE, NULL, NULL, NULL, 0},
            {"windows_per_sum", COUNT, NULL, NULL, NULL, 0},
            {"window_nll_nats", ARRAY | NULLABLE, NULL, NULL, &any_sum, 0},
            {"window_tokens_scored", ARRAY | NULLABLE, NULL, NULL, &any_count, 0},
            {"sha256", STRING | SHA256 | NULLABLE, NULL, NULL, NULL, 0},
            {0},
        },
    .also = check_metric};
static const rule metric_item = {NULL, OBJECT, NULL, &metric_shape, NULL, 0};

static qb_status check_case(const qb_json *c, const place *at) {
    const char *status = qb_json_string(qb_json_get(c, "status"));
    const char *error = qb_json_string(qb_json_get(c, "error"));
    if (!strcmp(status, "ok"))
        return error ? qb_shape_wrong(at, "has status \"ok\", so its error must be null") : QB_OK;
    if (!error || !*error)
        return qb_shape_wrong(at, "has status \"%s\" and must give the reason in \"error\"", status);
    return QB_OK;
}
static qb_status check_rounds(const qb_json *r, const place *at) {
    double done = qb_json_number(qb_json_get(r, "done")), of = qb_json_number(qb_json_get(r, "of"));
    return done <= of ? QB_OK : qb_shape_wrong(at, "says %.0f of %.0f rounds were done", done, of);
}
static const shape rounds_shape = {
    .rules = (const rule[]){{"done", INTEGER | REQUIRED, NULL, NULL, NULL, 0},
                            {"of", INTEGER | POSITIVE | REQUIRED, NULL, NULL, NULL, 0},
                            {0}},
    .also = check_rounds};
static const shape display_shape = {.rules = (const rule[]){
                                        {"label", TEXT, NULL, NULL, NULL, 0},
                                        {"series", TEXT, NULL, NULL, NULL, 0},
                                        {"of", TEXT, NULL, NULL, NULL, 0},
                                        {0},
                                    }};
static const shape case_shape = {
    .rules =
        (const rule[]){
            {"id", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
            {"status", STRING | REQUIRED, "ok|skipped|failed", NULL, NULL, 0},
            {"device", TEXT, NULL, NULL, NULL, 0},
            {"error", TEXT, NULL, NULL, NULL, 0},
            {"started", STRING | TIME | NULLABLE, NULL, NULL, NULL, 0},
            {"seconds", AMOUNT, NULL, NULL, NULL, 0},
            {"rounds", OBJECT | NULLABLE, NULL, &rounds_shape, NULL, 0},
            {"display", OBJECT | NULLABLE, NULL, &display_shape, NULL, 0},
            {"config", OBJECT | REQUIRED, NULL, &config_shape, NULL, 0},
            {"model", OBJECT | NULLABLE | REQUIRED, NULL, &model_shape, NULL, 0},
            {"quantization", OBJECT | NULLABLE, NULL, &quantization_shape, NULL, 0},
            {"metrics", ARRAY | REQUIRED, NULL, NULL, &metric_item, 0},
            {"warnings", ARRAY | NULLABLE, NULL, NULL, &any_string, 0},
            {0},
        },
    .closed = true,
    .also = check_case};
static const rule case_item = {NULL, OBJECT, NULL, &case_shape, NULL, 0};
static const shape document_shape = {.rules =
                                         (const rule[]){
                                             {"schema", STRING | REQUIRED, QB_RESULTS_SCHEMA, NULL, NULL, 0},
                                             {"context", OBJECT | REQUIRED, NULL, &context_shape, NULL, 0},
                                             {"cases", ARRAY | REQUIRED, NULL, NULL, &case_item, MAX_CASES},
                                             {0},
                                         },
                                     .closed = true};

/* ---- what the schema cannot say ---- */

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* *twice points at a string that occurs twice in the n given, NULL when there is none. */
static void find_twice(const char **strings, size_t n, const char **twice) {
    if (n > 1) qsort(strings, n, sizeof *strings, by_text);
    *twice = NULL;
    for (size_t i = 1; i < n && !*twice; i++)
        if (!strcmp(strings[i - 1], strings[i])) *twice = strings[i];
}

static qb_status check_unique_ids(const qb_json *list, const char *what, const place *at) {
    const char **ids, *twice;
    size_t n = 0;
    qb_status st = qb_alloc((size_t)qb_json_count(list), sizeof *ids, &ids);
    if (st != QB_OK) return st;
    for (const qb_json *c = qb_json_first(list); c; c = qb_json_next(c))
        ids[n++] = qb_json_string(qb_json_get(c, "id"));
    find_twice(ids, n, &twice);
    if (twice) st = qb_shape_wrong(at, "%s have the id \"%.100s\" twice", what, twice);
    qb_free(ids);
    return st;
}

static qb_status check_devices(const qb_json *doc, const place *at) {
    const qb_json *devices = qb_json_get(qb_json_get(doc, "context"), "devices");
    const qb_json *cases = qb_json_get(doc, "cases");
    for (const qb_json *c = qb_json_first(cases); c; c = qb_json_next(c)) {
        const char *id = qb_json_string(qb_json_get(c, "device"));
        const qb_json *d = id ? qb_json_first(devices) : NULL;
        while (d && strcmp(qb_json_string(qb_json_get(d, "id")), id) != 0) d = qb_json_next(d);
        if (id && !d)
            return qb_shape_wrong(at,
                                  "case \"%.100s\" names the device \"%.60s\", which context.devices lacks",
                                  qb_json_string(qb_json_get(c, "id")), id);
    }
    return QB_OK;
}

/* Readers disagree on which of two equal keys counts, so none may stand twice. */
static qb_status check_unique_keys(const qb_json *v, const place *at) {
    qb_status st = QB_OK;
    if (qb_json_is_object(v) && qb_json_count(v) > 1) {
        const char **keys, *twice;
        size_t n = 0;
        st = qb_alloc((size_t)qb_json_count(v), sizeof *keys, &keys);
        if (st != QB_OK) return st;
        for (const qb_json *c = qb_json_first(v); c; c = qb_json_next(c)) keys[n++] = qb_json_key(c);
        find_twice(keys, n, &twice);
        if (twice) st = qb_shape_wrong(at, "has the key \"%.60s\" twice", twice);
        qb_free(keys);
    }
    if (!qb_json_is_object(v) && !qb_json_is_array(v)) return st;
    place child = {.up = at};
    for (const qb_json *c = qb_json_first(v); c && st == QB_OK; c = qb_json_next(c), child.index++) {
        child.key = qb_json_is_object(v) ? qb_json_key(c) : NULL;
        st = check_unique_keys(c, &child);
    }
    return st;
}

qb_status qb_results_check_keys(const qb_json *doc, const char *name) {
    place root = {.document = name};
    return check_unique_keys(doc, &root);
}

qb_status qb_results_validate(const qb_json *doc, const char *name) {
    place root = {.document = name};
    if (!qb_json_is_object(doc))
        return qb_shape_wrong(&root, "must be an object with \"schema\", \"context\" and \"cases\"");
    qb_status st = qb_results_check_keys(doc, name);
    if (st == QB_OK) st = qb_shape_check(doc, &document_shape, &root);
    if (st == QB_OK) st = check_unique_ids(qb_json_get(doc, "cases"), "cases", &root);
    if (st == QB_OK)
        st = check_unique_ids(qb_json_get(qb_json_get(doc, "context"), "devices"), "devices", &root);
    if (st == QB_OK) st = check_devices(doc, &root);
    return st;
}
