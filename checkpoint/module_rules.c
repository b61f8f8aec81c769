#include "checkpoint/module_rules.h"

#include "base/memory.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

typedef struct qb_module_rule {
    pcre2_code *pattern; /* NULL: the module of just this name */
    char name[160];
    bool skip; /* left dense */
    qb_quantization options;
    bool has_bits, has_group_size, has_symmetric, has_desc_act;
} rule;

static qb_status compile(const char *text, const char *where, pcre2_code **out) {
    int error;
    PCRE2_SIZE at;
    PCRE2_UCHAR why[120];
    *out =
        pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED | PCRE2_UTF, &error, &at, NULL);
    if (*out) return QB_OK;
    pcre2_get_error_message(error, why, sizeof why);
    return qb_fail(QB_ERR_FORMAT, "%s: \"%.100s\" is no regular expression: %s at character %zu", where, text,
                   (const char *)why, (size_t)at);
}

static qb_status read_options(const qb_json *json, const char *where, rule *r) {
    int64_t bits = 0;
    qb_status st;
    r->has_bits = !qb_json_is_null(qb_json_get(json, "bits"));
    r->has_group_size = !qb_json_is_null(qb_json_get(json, "group_size"));
    r->has_symmetric = !qb_json_is_null(qb_json_get(json, "sym"));
    r->has_desc_act = !qb_json_is_null(qb_json_get(json, "desc_act"));
    QB_TRY(st, qb_json_int(json, "bits", where, false, 1, 64, &bits));
    QB_TRY(st, qb_json_int(json, "group_size", where, false, -1, INT32_MAX, &r->options.group_size));
    QB_TRY(st, qb_json_bool(json, "sym", where, false, &r->options.symmetric));
    QB_TRY(st, qb_json_bool(json, "desc_act", where, false, &r->options.desc_act));
    r->options.bits = (int)bits;
    r->skip = r->skip || bits >= 16;
    if (r->has_bits && !r->skip && bits != 2 && bits != 3 && bits != 4 && bits != 8)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: %d bits are not supported (supported: 2, 3, 4, 8)", where,
                       (int)bits);
    if (r->has_group_size && r->options.group_size == 0)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: \"group_size\" must be positive, or -1 for one group a row, found 0", where);
out:
    return st;
}

static qb_status add(qb_module_rules *rules, const qb_json *j, const char *what, bool expressions,
                     const char *source) {
    const char *key = qb_json_key(j);
    char where[1600];
    if (!qb_json_is_object(j) || !key)
        return qb_fail(QB_ERR_FORMAT, "%s: \"%s\" must hold objects", source, what);
    snprintf(where, sizeof where, "%s: %s: \"%.200s\"", source, what, key);
    qb_status st = qb_grow(&rules->rows, &rules->capacity, rules->n + 1, sizeof *rules->rows);
    if (st != QB_OK) return st;
    rule *r = &rules->rows[rules->n++];
    *r = (rule){0};
    if (expressions) {
        r->skip = !strncmp(key, "-:", 2);
        st = compile(r->skip || !strncmp(key, "+:", 2) ? key + 2 : key, where, &r->pattern);
    } else if (snprintf(r->name, sizeof r->name, "%s", key) >= (int)sizeof r->name) {
        st = qb_fail(QB_ERR_FORMAT, "%s: the name is too long", where);
    }
    return st == QB_OK ? read_options(j, where, r) : st;
}

qb_status qb_module_rules_add_dynamic(qb_module_rules *rules, const qb_json *dynamic, const char *where) {
    qb_status st = QB_OK;
    for (const qb_json *j = qb_json_first(dynamic); st == QB_OK && j; j = qb_json_next(j))
        st = add(rules, j, "dynamic", true, where);
    return st;
}

qb_status qb_module_rules_add_names(qb_module_rules *rules, const qb_json *names, const char *where) {
    qb_status st = QB_OK;
    for (const qb_json *j = qb_json_first(names); st == QB_OK && j; j = qb_json_next(j))
        st = add(rules, j, "extra_config", false, where);
    return st;
}

static bool fits(const rule *r, const char *module) {
    if (!r->pattern) return !strcmp(r->name, module);
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(r->pattern, NULL);
    bool found =
        match && pcre2_match(r->pattern, (PCRE2_SPTR)module, PCRE2_ZERO_TERMINATED, 0, 0, match, NULL) > 0;
    pcre2_match_data_free(match);
    return found;
}

/* NULL when none fits. */
static const rule *rule_of(const qb_module_rules *rules, const char *module) {
    for (size_t i = 0; i < rules->n; i++)
        if (fits(&rules->rows[i], module)) return &rules->rows[i];
    return NULL;
}

bool qb_module_rules_skip(const qb_module_rules *rules, const char *module) {
    const rule *r = rule_of(rules, module);
    return r && r->skip;
}

void qb_module_rules_apply(const qb_module_rules *rules, const char *module, qb_quantization *how) {
    const rule *r = rule_of(rules, module);
    if (!r || r->skip) return;
    if (r->has_bits) how->bits = r->options.bits;
    if (r->has_group_size) how->group_size = r->options.group_size;
    if (r->has_symmetric) how->symmetric = r->options.symmetric;
    if (r->has_desc_act) how->desc_act = r->options.desc_act;
}

void qb_module_rules_free(qb_module_rules *rules) {
    for (size_t i = 0; i < rules->n; i++) pcre2_code_free(rules->rows[i].pattern);
    qb_free(rules->rows);
    *rules = (qb_module_rules){0};
}
