/* The rules of results/schema.json as tables: one row a key. A change here is a change there, and both are
   held together by tests/golden/results/mutations.json. What JSON Schema cannot say (unique ids, unique keys)
   stands at the end. */
#include "base/memory.h"
#include "base/str.h"
#include "results/results.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STRING = 1,
    NUMBER = 2,
    INTEGER = 4,
    BOOLEAN = 8,
    OBJECT = 16,
    ARRAY = 32,
    NULLABLE = 64, /* null stands for "not known" */
    REQUIRED = 128,
    FILLED = 256, /* a string of at least one character */
    SHA256 = 512,
    TIME = 1024,
    NON_NEGATIVE = 2048,
    POSITIVE = 4096,
};
enum { MAX_CASES = 10000 };

typedef struct rule rule;
typedef struct shape shape;
/* Where the checker stands in the document; printed only when something is wrong. */
typedef struct place {
    const struct place *up;
    const char *key; /* NULL: array item */
    int64_t index;
    const char *document; /* at the root */
} place;

struct rule {
    const char *key; /* NULL for the items of an array, and ends a table */
    unsigned kind;
    const char *choices; /* "a|b|c", or NULL */
    const shape *object; /* of an OBJECT */
    const rule *items;   /* of an ARRAY */
    double max;          /* 0: none */
};
struct shape {
    const rule *rules;
    bool closed; /* other keys are refused */
    qb_status (*also)(const qb_json *object, const place *at);
};

static void put_place(const place *at, qb_str *out) {
    if (at->up) put_place(at->up, out);
    if (at->document)
        qb_str_printf(out, "%s: ", at->document);
    else if (at->key)
        qb_str_printf(out, "%s%s", at->up && !at->up->document ? "." : "", at->key);
    else
        qb_str_printf(out, "[%" PRId64 "]", at->index);
}

static qb_status wrong(const place *at, const char *fmt, ...) QB_PRINTF(2, 3);
static qb_status wrong(const place *at, const char *fmt, ...) {
    qb_str text = {0};
    put_place(at, &text);
    if (!at->document) qb_str_text(&text, " ");
    va_list args;
    va_start(args, fmt);
    qb_str_vprintf(&text, fmt, args);
    va_end(args);
    qb_status st = qb_fail(QB_ERR_FORMAT, "%s", qb_str_get(&text));
    qb_str_free(&text);
    return st;
}

static const char *found(const qb_json *v, char buffer[80]) {
    const char *text = qb_json_string(v);
    if (qb_json_is_object(v)) return "an object";
    if (qb_json_is_array(v)) return "an array";
    if (qb_json_is_null(v)) return "null";
    if (text)
        snprintf(buffer, 80, "\"%.60s%s\"", text, strlen(text) > 60 ? "..." : "");
    else if (qb_json_is_number(v))
        snprintf(buffer, 80, "%.17g", qb_json_number(v));
    else
        return qb_json_true(v) ? "true" : "false";
    return buffer;
}

static void put_kinds(unsigned kind, qb_str *out) {
    static const struct {
        unsigned bit;
        const char *text;
    } names[] = {{STRING, "a string"},       {NUMBER, "a number"},  {INTEGER, "an integer"},
                 {BOOLEAN, "true or false"}, {OBJECT, "an object"}, {ARRAY, "an array"},
                 {NULLABLE, "null"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (kind & names[i].bit) qb_str_printf(out, "%s%s", out->length ? " or " : "", names[i].text);
}

static bool digits(const char *text, const char *pattern) { /* '0' in the pattern stands for a digit */
    for (; *pattern; text++, pattern++)
        if (*pattern == '0' ? *text < '0' || *text > '9' : *text != *pattern) return false;
    return true;
}

static bool is_time(const char *t) { /* RFC 3339 in UTC */
    if (strlen(t) < 20 || !digits(t, "0000-00-00T00:00:00")) return false;
    int month = atoi(t + 5), day = atoi(t + 8), hour = atoi(t + 11), minute = atoi(t + 14),
        second = atoi(t + 17);
    if (month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59)
        return false;
    t += 19;
    if (*t == '.') {
        size_t n = strspn(t + 1, "0123456789");
        if (n == 0) return false;
        t += 1 + n;
    }
    return !strcmp(t, "Z");
}

static bool is_choice(const char *text, const char *choices) {
    size_t n = strlen(text);
    for (const char *p = choices; n > 0 && p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (!strncmp(p, text, n) && (p[n] == '|' || p[n] == 0) && !strchr(text, '|')) return true;
    return false;
}

static qb_status check_string(const char *text, const rule *r, const qb_json *v, const place *at) {
    char buffer[80];
    if ((r->kind & FILLED) && !*text) return wrong(at, "must not be empty");
    if (r->choices && !is_choice(text, r->choices))
        return wrong(at, "must be one of %s, found %s", r->choices, found(v, buffer));
    if ((r->kind & SHA256) && (strlen(text) != 64 || strspn(text, "0123456789abcdef") != 64))
        return wrong(at, "must be a SHA-256 of 64 lower-case hexadecimal digits, found %s", found(v, buffer));
    if ((r->kind & TIME) && !is_time(text))
        return wrong(at, "must be an RFC 3339 time in UTC such as \"2026-11-22T05:49:38Z\", found %s",
                     found(v, buffer));
    return QB_OK;
}

static qb_status check_number(double value, const rule *r, const place *at) {
    if (!isfinite(value)) return wrong(at, "must be a finite number, found %g", value);
    if ((r->kind & NON_NEGATIVE) && value < 0) return wrong(at, "must not be negative, found %.17g", value);
    if ((r->kind & POSITIVE) && value <= 0) return wrong(at, "must be above 0, found %.17g", value);
    if (r->max > 0 && value > r->max) return wrong(at, "must be at most %.17g, found %.17g", r->max, value);
    return QB_OK;
}

static unsigned kind_of(const qb_json *v) {
    if (qb_json_is_object(v)) return OBJECT;
    if (qb_json_is_array(v)) return ARRAY;
    if (qb_json_is_string(v)) return STRING;
    if (qb_json_is_null(v)) return NULLABLE;
    if (!qb_json_is_number(v)) return BOOLEAN;
    double x = qb_json_number(v);
    return x == floor(x) ? INTEGER | NUMBER : NUMBER;
}

static qb_status check_object(const qb_json *object, const shape *s, const place *at);

static qb_status check_value(const qb_json *v, const rule *r, const place *at) {
    unsigned kind = kind_of(v);
    if (!(kind & r->kind)) {
        char buffer[80];
        qb_str expected = {0};
        put_kinds(r->kind, &expected);
        qb_status st = wrong(at, "must be %s, found %s", qb_str_get(&expected), found(v, buffer));
        qb_str_free(&expected);
        return st;
    }
    if (kind & STRING) return check_string(qb_json_string(v), r, v, at);
    if (kind & NUMBER) return check_number(qb_json_number(v), r, at);
    if ((kind & OBJECT) && r->object) return check_object(v, r->object, at);
    if ((kind & ARRAY) && r->items) {
        if (r->max > 0 && (double)qb_json_count(v) > r->max)
            return wrong(at, "has %" PRId64 " items, at most %.0f are allowed", qb_json_count(v), r->max);
        place item = {.up = at};
        for (const qb_json *c = qb_json_first(v); c; c = qb_json_next(c), item.index++) {
            qb_status st = check_value(c, r->items, &item);
            if (st != QB_OK) return st;
        }
    }
    return QB_OK;
}

static qb_status unknown_key(const char *key, const shape *s, const place *at) {
    const char *names[32];
    size_t n = 0;
    for (const rule *r = s->rules; r->key && n < 32; r++) names[n++] = r->key;
    const char *near = qb_nearest(key, names, n);
    return wrong(at, "has an unknown key \"%.60s\"%s%s%s", key, near ? ", did you mean \"" : "",
                 near ? near : "", near ? "\"?" : "");
}

static qb_status check_object(const qb_json *object, const shape *s, const place *at) {
    for (const rule *r = s->rules; r->key; r++) {
        const qb_json *v = qb_json_get(object, r->key);
        place child = {.up = at, .key = r->key};
        if (!v && (r->kind & REQUIRED)) return wrong(at, "lacks \"%s\"", r->key);
        qb_status st = v ? check_value(v, r, &child) : QB_OK;
        if (st != QB_OK) return st;
    }
    for (const qb_json *v = s->closed ? qb_json_first(object) : NULL; v; v = qb_json_next(v)) {
        const rule *r = s->rules;
        while (r->key && strcmp(r->key, qb_json_key(v)) != 0) r++;
        if (!r->key) return unknown_key(qb_json_key(v), s, at);
    }
    return s->also ? s->also(object, at) : QB_OK;
}

/* ---- the tables ---- */

#define TEXT   (STRING | NULLABLE)
#define COUNT  (INTEGER | NON_NEGATIVE | NULLABLE)
#define AMOUNT (NUMBER | NON_NEGATIVE | NULLABLE)

static const rule any_string = {NULL, STRING, NULL, NULL, NULL, 0};
static const rule any_number = {NULL, NUMBER, NULL, NULL, NULL, 0};
static const rule string_or_object = {NULL, STRING | OBJECT, NULL, NULL, NULL, 0};

static const shape program_shape = {.rules = (const rule[]){
                                        {"name", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
                                        {"version", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
                                        {"git", TEXT, NULL, NULL, NULL, 0},
                                        {0},
                                    }};
static const shape ceilings_shape = {
    .rules = (const rule[]){
        {"read_bytes_per_s", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
        {"gemm_flop_per_s", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
        {0},
    }};
static const shape machine_shape = {.rules = (const rule[]){
                                        {"cpu", STRING | REQUIRED, NULL, NULL, NULL, 0},
                                        {"cores", INTEGER | POSITIVE | REQUIRED, NULL, NULL, NULL, 0},
                                        {"threads", INTEGER | POSITIVE | REQUIRED, NULL, NULL, NULL, 0},
                                        {"simd", TEXT, NULL, NULL, NULL, 0},
                                        {"blas", TEXT, NULL, NULL, NULL, 0},
                                        {"memory_bytes", COUNT, NULL, NULL, NULL, 0},
                                        {"os", TEXT, NULL, NULL, NULL, 0},
                                        {"kernel", TEXT, NULL, NULL, NULL, 0},
                                        {"device", TEXT, NULL, NULL, NULL, 0},
                                        {"gpu", ARRAY | NULLABLE, NULL, NULL, &string_or_object, 0},
                                        {"ceilings", OBJECT | NULLABLE, NULL, &ceilings_shape, NULL, 0},
                                        {0},
                                    }};
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
                                        {"machine", OBJECT | REQUIRED, NULL, &machine_shape, NULL, 0},
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
    const char *status = qb_json_string(qb_json_get(m, "status"));
    const char *error = qb_json_string(qb_json_get(m, "error"));
    bool has_value = !qb_json_is_null(qb_json_get(m, "value"));
    if (strcmp(status, "ok") != 0) {
        if (!error || !*error)
            return wrong(at, "has status \"%s\" and must give the reason in \"error\"", status);
        return has_value ? wrong(at, "has status \"%s\", so its value must be null", status) : QB_OK;
    }
    if (!has_value && !qb_json_is_string(qb_json_get(m, "sha256")))
        return wrong(at, "has status \"ok\" and so needs a value or a sha256");
    if (!strcmp(qb_json_string(qb_json_get(m, "name")), "perplexity"))
        for (const char *const *key = (const char *const[]){"protocol", "dataset", "data_sha256", NULL}; *key;
             key++)
            if (!qb_json_is_string(qb_json_get(m, *key)))
                return wrong(at, "is a perplexity without \"%s\", which is not a result", *key);
    return QB_OK;
}
static const shape metric_shape = {.rules =
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
                                           {"bytes_per_s", AMOUNT, NULL, NULL, NULL, 0},
                                           {"ceiling", AMOUNT, NULL, NULL, NULL, 0},
                                           {"share_of_ceiling", AMOUNT, NULL, NULL, NULL, 0},
                                           {"projected", BOOLEAN | NULLABLE, NULL, NULL, NULL, 0},
                                           {"floor", NUMBER | POSITIVE | NULLABLE, NULL, NULL, NULL, 0},
                                           {"windows", COUNT, NULL, NULL, NULL, 0},
                                           {"scored_tokens", COUNT, NULL, NULL, NULL, 0},
                                           {"total_tokens", COUNT, NULL, NULL, NULL, 0},
                                           {"data_sha256", STRING | SHA256 | NULLABLE, NULL, NULL, NULL, 0},
                                           {"sha256", STRING | SHA256 | NULLABLE, NULL, NULL, NULL, 0},
                                           {0},
                                       },
                                   .also = check_metric};
static const rule metric_item = {NULL, OBJECT, NULL, &metric_shape, NULL, 0};

static qb_status check_case(const qb_json *c, const place *at) {
    const char *status = qb_json_string(qb_json_get(c, "status"));
    const char *error = qb_json_string(qb_json_get(c, "error"));
    if (!strcmp(status, "ok"))
        return error ? wrong(at, "has status \"ok\", so its error must be null") : QB_OK;
    if (!error || !*error)
        return wrong(at, "has status \"%s\" and must give the reason in \"error\"", status);
    return QB_OK;
}
static const shape case_shape = {
    .rules =
        (const rule[]){
            {"id", STRING | FILLED | REQUIRED, NULL, NULL, NULL, 0},
            {"status", STRING | REQUIRED, "ok|skipped|failed", NULL, NULL, 0},
            {"error", TEXT, NULL, NULL, NULL, 0},
            {"started", STRING | TIME | NULLABLE, NULL, NULL, NULL, 0},
            {"seconds", AMOUNT, NULL, NULL, NULL, 0},
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

static qb_status check_unique_ids(const qb_json *cases, const place *at) {
    const char **ids, *twice;
    size_t n = 0;
    qb_status st = qb_alloc((size_t)qb_json_count(cases), sizeof *ids, &ids);
    if (st != QB_OK) return st;
    for (const qb_json *c = qb_json_first(cases); c; c = qb_json_next(c))
        ids[n++] = qb_json_string(qb_json_get(c, "id"));
    find_twice(ids, n, &twice);
    if (twice) st = wrong(at, "cases have the id \"%.100s\" twice", twice);
    qb_free(ids);
    return st;
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
        if (twice) st = wrong(at, "has the key \"%.60s\" twice", twice);
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

qb_status qb_results_validate(const qb_json *doc, const char *name) {
    place root = {.document = name};
    if (!qb_json_is_object(doc))
        return wrong(&root, "must be an object with \"schema\", \"context\" and \"cases\"");
    qb_status st = check_unique_keys(doc, &root);
    if (st == QB_OK) st = check_object(doc, &document_shape, &root);
    if (st == QB_OK) st = check_unique_ids(qb_json_get(doc, "cases"), &root);
    return st;
}
