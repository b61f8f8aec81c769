/* What the command line changes of a suite. */
#include "base/file.h"
#include "bench/suite/foreign.h"
#include "bench/suite/keys.h"
#include "bench/suite/variant.h"

#include <string.h>

/* A default of keys.c separates its names by ", ". */
qb_status qb_suite_set_list(qb_suite *s, const char *key, const char *words) {
    int list = 0;
    while (list < QB_LISTS && strcmp(qb_suite_list_name(list), key) != 0) list++;
    if (list == QB_LISTS) return qb_fail(QB_ERR_INTERNAL, "a suite has no list '%s'", key);
    *qb_suite_list(s, list) = (qb_name_list){0};
    if (list == QB_LIST_MODELS) {
        memset(s->model_entries, 0, sizeof s->model_entries);
        s->models_given = true;
    }
    bool one; /* a path may hold commas */
    qb_status st = qb_path_look(words, &one);
    if (st != QB_OK) return st;
    for (const char *p = words; *p;) {
        qb_str word = {0};
        if (!one) p += strspn(p, " ");
        size_t n = one ? strlen(p) : strcspn(p, ",");
        qb_str_append(&word, p, n);
        const char *kept;
        st = qb_str_status(&word);
        if (st == QB_OK) st = qb_arena_strdup(&s->arena, qb_str_get(&word), &kept);
        qb_str_free(&word);
        if (st == QB_OK) st = qb_suite_add_word(s, key, list, kept);
        if (st != QB_OK) return st;
        p += n + (p[n] == ',');
    }
    if (!qb_suite_list(s, list)->n)
        return qb_fail(QB_ERR_USAGE, "%s takes one or more names separated by commas", key);
    return QB_OK;
}

static void collect_keys(const qb_option *rows, char shown[][48], const char **names, size_t *n) {
    for (const qb_option *row = rows; row->name && *n < QB_SUITE_KEYS_MAX; row++, (*n)++)
        names[*n] = qb_option_key(row->name, shown[*n]);
}

static qb_status unknown_setting(const char *key) {
    char shown[QB_SUITE_KEYS_MAX][48];
    const char *names[QB_SUITE_KEYS_MAX];
    size_t n = 0;
    for (int i = 0; i < QB_LISTS; i++) names[n++] = qb_suite_list_name(i);
    collect_keys(qb_suite_options, shown, names, &n);
    collect_keys(qb_speed_options, shown, names, &n);
    for (size_t i = 0; qb_quant_method_at(i); i++)
        collect_keys(qb_quant_method_at(i)->options, shown, names, &n);
    const char *ours;
    for (size_t k = 0; (ours = qb_foreign_name(key, k)) != NULL; k++) {
        char own[48];
        qb_option_key(ours, own);
        for (size_t i = 0; i < n; i++)
            if (!strcmp(names[i], own))
                return qb_fail(QB_ERR_USAGE, "--set: unknown key '%.60s'; here it is %s", key, own);
    }
    return qb_suite_unknown("--set", "key", key, names, n);
}

static qb_status assign(qb_suite *s, const char *key, const char *value) {
    for (int i = 0; i < QB_LISTS; i++)
        if (!strcmp(qb_suite_list_name(i), key)) return qb_suite_set_list(s, key, value);
    if (qb_option_has(qb_suite_options, key)) {
        qb_status st = qb_options_set(&(qb_option_set){"", qb_suite_options, &s->config}, 1, key, value);
        if (st == QB_OK) qb_suite_share_special_tokens(s);
        return st;
    }
    if (qb_option_has(qb_speed_options, key))
        return qb_options_set(&(qb_option_set){"", qb_speed_options, &s->speed}, 1, key, value);
    bool known = false, taken = false;
    for (size_t i = 0; qb_quant_method_at(i); i++)
        known = known || qb_option_has(qb_quant_method_at(i)->options, key);
    if (!known) return unknown_setting(key);
    for (size_t i = 0; i < s->n_variants; i++) {
        qb_variant *v = &s->variants[i];
        if (!v->method || !qb_option_has(v->method->options, key)) continue;
        taken = true;
        qb_status st = qb_options_set(&(qb_option_set){"", v->method->options, &v->config}, 1, key, value);
        if (st != QB_OK) return st;
    }
    if (!taken) return qb_fail(QB_ERR_USAGE, "--set %s: no method of suite %s takes it", key, s->name);
    return qb_variants_relabel(s);
}

qb_status qb_suite_set(qb_suite *s, const char *assignment) {
    char key[48];
    size_t n = strcspn(assignment, "=");
    if (assignment[n] != '=' || n == 0 || n >= sizeof key)
        return qb_fail(QB_ERR_USAGE, "--set takes key=value, found '%.80s'", assignment);
    for (size_t i = 0; i < n; i++) key[i] = assignment[i] == '-' ? '_' : assignment[i];
    key[n] = 0;
    const char *value;
    qb_status st = qb_arena_strdup(&s->arena, assignment + n + 1, &value);
    return st == QB_OK ? assign(s, key, value) : st;
}
