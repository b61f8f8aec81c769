#define PCRE2_CODE_UNIT_WIDTH 8

#include "adapter/match.h"

#include "base/str.h"

#include <math.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* ---- regular expressions ---- */

static qb_status say(const qb_adapter_config *c, const char *pattern, int code) {
    PCRE2_UCHAR why[160];
    pcre2_get_error_message(code, why, sizeof why);
    return qb_fail(QB_ERR_FORMAT, "%s: the pattern \"%.200s\": %s", c->where, pattern, (const char *)why);
}

/* Whether BEFORE pattern AFTER matches all of `text`; *number: the number that its first group holds, where
   it is asked for. */
static qb_status matches(const qb_adapter_config *c, const char *before, const char *pattern,
                         const char *after, bool to_the_end, const char *text, int64_t *number, bool *out) {
    enum { STEPS = 200000 };
    int code = 0;
    PCRE2_SIZE at;
    qb_str whole = {0};
    pcre2_code *re = NULL;
    pcre2_match_data *data = NULL;
    pcre2_match_context *context = NULL;
    qb_str_printf(&whole, "%s%s%s", before, pattern, after);
    qb_status st = qb_str_status(&whole);
    *out = false;
    if (st != QB_OK) goto out;
    re = pcre2_compile((PCRE2_SPTR)whole.text, whole.length,
                       PCRE2_ANCHORED | (to_the_end ? PCRE2_ENDANCHORED : 0) | PCRE2_UTF | PCRE2_UCP, &code,
                       &at, NULL);
    if (!re) {
        st = say(c, pattern, code);
        goto out;
    }
    data = pcre2_match_data_create_from_pattern(re, NULL);
    context = pcre2_match_context_create(NULL);
    if (!data || !context) {
        st = qb_fail(QB_ERR_MEMORY, "out of memory");
        goto out;
    }
    pcre2_set_match_limit(context, STEPS);
    code = pcre2_match(re, (PCRE2_SPTR)text, strlen(text), 0, 0, data, context);
    *out = code > 0;
    if (code < 0 && code != PCRE2_ERROR_NOMATCH) st = say(c, pattern, code);
    if (code > 1 && number) *number = strtoll(text + pcre2_get_ovector_pointer(data)[2], NULL, 10);
out:
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    pcre2_code_free(re);
    qb_str_free(&whole);
    return st;
}

/* ---- lists of names ---- */

static bool is_end_of(const char *path, const char *name) {
    size_t n = strlen(path), m = strlen(name);
    return n == m ? !strcmp(path, name) : n > m && path[n - m - 1] == '.' && !strcmp(path + n - m, name);
}

static bool is_listed(const qb_json *names, const char *path) {
    for (const qb_json *j = qb_json_first(names); j; j = qb_json_next(j))
        if (is_end_of(path, qb_json_string(j))) return true;
    return false;
}

bool qb_adapter_targets_parameter(const qb_adapter_config *c, const char *path) {
    return is_listed(c->target_parameters, path);
}

/* NAME at the path's beginning or behind a dot, and its end or a dot behind it. */
bool qb_adapter_saves(const qb_adapter_config *c, const char *path) {
    for (const qb_json *j = qb_json_first(c->modules_to_save); j; j = qb_json_next(j)) {
        const char *name = qb_json_string(j);
        size_t n = strlen(name);
        for (const char *at = path; n && (at = strstr(at, name)); at++)
            if ((at == path || at[-1] == '.') && (!at[n] || at[n] == '.')) return true;
    }
    return false;
}

/* ---- targets ---- */

bool qb_adapter_targets_all_linear(const qb_adapter_config *c) {
    const char *text = qb_json_string(c->target_modules);
    return text && !strcmp(text, "all-linear");
}

static qb_status excludes(const qb_adapter_config *c, const char *path, bool *out) {
    *out = qb_adapter_saves(c, path) ||
           (qb_json_is_array(c->exclude_modules) && is_listed(c->exclude_modules, path));
    const char *pattern = qb_json_string(c->exclude_modules);
    return *out || !pattern ? QB_OK : matches(c, "", pattern, "", true, path, NULL, out);
}

/* The number of the path's layer; -1 without one. */
static qb_status layer_of(const qb_adapter_config *c, const char *path, int64_t *out) {
    bool found = false;
    *out = -1;
    if (!c->layers_pattern) return matches(c, "", ".*?\\.[^.]*\\.(\\d+)\\.", "", false, path, out, &found);
    const qb_json *j =
        qb_json_is_string(c->layers_pattern) ? c->layers_pattern : qb_json_first(c->layers_pattern);
    qb_status st = QB_OK;
    for (bool lone = j == c->layers_pattern; st == QB_OK && j && !found; j = lone ? NULL : qb_json_next(j))
        st = matches(c, "(?:^|.*?\\.)", qb_json_string(j), "\\.(\\d+)\\.", false, path, out, &found);
    return st;
}

static qb_status is_in_layers(const qb_adapter_config *c, const char *path, bool *out) {
    int64_t layer;
    const qb_json *l = c->layers_to_transform;
    *out = true;
    if (!l) return QB_OK;
    qb_status st = layer_of(c, path, &layer);
    *out = qb_json_is_number(l) && (double)layer == qb_json_number(l);
    for (const qb_json *j = qb_json_first(l); j; j = qb_json_next(j))
        *out = *out || (double)layer == qb_json_number(j);
    return st;
}

qb_status qb_adapter_targets(const qb_adapter_config *c, const char *path, bool *out) {
    bool excluded;
    *out = false;
    qb_status st = excludes(c, path, &excluded);
    if (st != QB_OK || excluded || !c->target_modules) return st;
    if (qb_adapter_targets_all_linear(c)) {
        *out = true;
        return QB_OK;
    }
    const char *pattern = qb_json_string(c->target_modules);
    if (pattern) return matches(c, "", pattern, "", true, path, NULL, out);
    return is_listed(c->target_modules, path) ? is_in_layers(c, path, out) : QB_OK;
}

/* ---- rank and alpha ---- */

/* The value of the first key that matches; *out stays without one. */
static qb_status pattern_value(const qb_adapter_config *c, const qb_json *patterns, const char *path,
                               double *out) {
    for (const qb_json *j = qb_json_first(patterns); j; j = qb_json_next(j)) {
        bool found;
        qb_status st = matches(c, "(?:.*\\.)?(?:", qb_json_key(j), ")", true, path, NULL, &found);
        if (st != QB_OK) return st;
        if (!found) continue;
        *out = qb_json_number(j);
        return QB_OK;
    }
    return QB_OK;
}

qb_status qb_adapter_rank(const qb_adapter_config *c, const char *path, int64_t *rank, double *scale) {
    double r = (double)c->rank, alpha = c->alpha;
    qb_status st = pattern_value(c, c->rank_pattern, path, &r);
    if (st == QB_OK) st = pattern_value(c, c->alpha_pattern, path, &alpha);
    *rank = (int64_t)r;
    *scale = c->rslora ? alpha / sqrt(r) : alpha / r;
    return st;
}
