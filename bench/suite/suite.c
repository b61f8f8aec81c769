/* Reading a suite file. Its keys are rows (keys.c); what comes of it is expanded in suite_cases.c. */
#include "bench/suite/suite.h"

#include "base/file.h"
#include "bench/suite/keys.h"
#include "bench/suite/variant.h"

#include <stdio.h>
#include <string.h>

/* ---- members of the document ---- */

/* Keys of methods and of speed that stand beside them. */
static qb_status misplaced(const qb_suite *s, const char *key) {
    bool method = false;
    for (size_t i = 0; qb_quant_method_at(i); i++)
        method = method || qb_option_has(qb_quant_method_at(i)->options, key);
    if (method)
        return qb_fail(QB_ERR_USAGE, "%s: \"%.80s\" is a method's: say it in an entry of \"methods\"",
                       s->where, key);
    if (qb_option_has(qb_speed_options, key))
        return qb_fail(QB_ERR_USAGE, "%s: \"%.80s\" is of speed: say it in \"speed\"", s->where, key);
    return QB_OK;
}

static qb_status check_keys(const qb_suite *s) {
    char shown[QB_SUITE_KEYS_MAX][48];
    const char *names[QB_SUITE_KEYS_MAX];
    size_t n = qb_suite_key_names(shown, names);
    for (const qb_json *j = qb_json_first(s->doc); j; j = qb_json_next(j)) {
        size_t i = 0;
        while (i < n && strcmp(names[i], qb_json_key(j)) != 0) i++;
        if (i < n) continue;
        qb_status st = misplaced(s, qb_json_key(j));
        return st == QB_OK ? qb_suite_unknown(s->where, "key", qb_json_key(j), names, n) : st;
    }
    return QB_OK;
}

static qb_status read_name(qb_suite *s) {
    const char *name = NULL;
    qb_status st = qb_json_text(s->doc, "name", s->where, true, &name);
    s->summary = "";
    if (st == QB_OK) st = qb_json_text(s->doc, "summary", s->where, false, &s->summary);
    if (st != QB_OK) return st;
    size_t n = strlen(name);
    if (n == 0 || n >= sizeof s->name || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != n)
        return qb_fail(QB_ERR_USAGE, "%s: \"name\" must be 1 to 63 of a-z 0-9 . - _, found '%.80s'", s->where,
                       name);
    memcpy(s->name, name, n + 1);
    return QB_OK;
}

/* A label stands in ids, file names and pictures. */
static bool is_model_label(const char *text) {
    size_t n = strlen(text);
    return n > 0 && n < 64 && text[0] != '.' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == n;
}

/* What a base with an adapter is called in the list of models. */
static qb_status join(qb_suite *s, const char *base, const char *adapter, const char **out) {
    qb_str word = {0};
    qb_str_printf(&word, "%s+%s", base, adapter);
    qb_status st = qb_str_status(&word);
    if (st == QB_OK) st = qb_arena_strdup(&s->arena, word.text, out);
    qb_str_free(&word);
    return st;
}

static qb_status resolve_model(qb_suite *s, qb_suite_model *m, const char **name) {
    qb_status st;
    QB_TRY(st, qb_suite_path(s, m->word, &m->path));
    *name = m->path;
    if (!m->adapter) return QB_OK;
    QB_TRY(st, qb_suite_path(s, m->adapter, &m->adapter_path));
    QB_TRY(st, join(s, m->path, m->adapter_path, name));
    st = join(s, m->word, m->adapter, &m->word);
out:
    return st;
}

static qb_status read_model(qb_suite *s, const qb_json *item, int index) {
    char where[300];
    qb_suite_model model = {0};
    qb_status st;
    snprintf(where, sizeof where, "%s: models[%d]", s->where, index);
    qb_options_defaults(qb_suite_model_options, &model);
    if (qb_json_is_object(item))
        QB_TRY(st, qb_options_from_json(qb_suite_model_options, &model, item, where, NULL));
    else
        model.word = qb_json_string(item);
    if (!model.word) return qb_fail(QB_ERR_USAGE, "%s lacks \"model\"", where);
    if (model.adapter && !*model.adapter)
        return qb_fail(QB_ERR_USAGE, "%s: \"adapter\" is empty: name one, or leave the key out", where);
    if (model.label && !is_model_label(model.label))
        return qb_fail(QB_ERR_USAGE, "%s: \"label\" must be 1 to 63 of A-Z a-z 0-9 . - _", where);
    const char *name;
    QB_TRY(st, resolve_model(s, &model, &name));
    int before = s->models.n;
    QB_TRY(st, qb_suite_add_word(s, s->where, QB_LIST_MODELS, name));
    if (s->models.n > before) s->model_entries[before] = model;
out:
    return st;
}

static qb_status read_item(qb_suite *s, int list, const qb_json *item, int index) {
    const char *word = qb_json_string(item);
    qb_status st = QB_OK;
    if (list == QB_LIST_MODELS && (word || qb_json_is_object(item))) return read_model(s, item, index);
    if (!word)
        return qb_fail(QB_ERR_USAGE, "%s: \"%s\" must hold strings%s only", s->where,
                       qb_suite_list_name(list), list == QB_LIST_MODELS ? " and objects" : "");
    if (list == QB_LIST_DATASETS && !qb_dataset_find(word)) st = qb_suite_path(s, word, &word);
    return st == QB_OK ? qb_suite_add_word(s, s->where, list, word) : st;
}

static qb_status read_list(qb_suite *s, const qb_suite_key *key) {
    const qb_json *array = qb_json_get(s->doc, key->name);
    int index = 0;
    if (!array && !key->required) return key->initial ? qb_suite_set_list(s, key->name, key->initial) : QB_OK;
    if (!qb_json_is_array(array) || qb_json_count(array) == 0)
        return qb_fail(QB_ERR_USAGE, "%s: \"%s\" must be a list of names that is not empty", s->where,
                       key->name);
    for (const qb_json *item = qb_json_first(array); item; item = qb_json_next(item)) {
        qb_status st = read_item(s, key->list, item, index++);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

/* The base that a model names is another of the suite's models. */
static qb_status check_bases(const qb_suite *s) {
    for (int i = 0; i < s->models.n; i++) {
        const char *base = s->model_entries[i].base;
        int k = base ? qb_suite_model_find(s, base) : i;
        if (base && (k < 0 || k == i))
            return qb_fail(QB_ERR_USAGE, "%s: models[%d]: the base '%.80s' is no other model of the suite",
                           s->where, i, base);
    }
    return QB_OK;
}

static qb_status read_speed(qb_suite *s) {
    const qb_json *speed = qb_json_get(s->doc, "speed");
    char where[300];
    qb_status st = QB_OK;
    qb_options_defaults(qb_speed_options, &s->speed);
    snprintf(where, sizeof where, "%s: speed", s->where);
    if (speed) st = qb_options_from_json(qb_speed_options, &s->speed, speed, where, NULL);
    if (st == QB_OK && s->speed.prompts && strcmp(s->speed.prompts, "default") != 0)
        st = qb_suite_path(s, s->speed.prompts, &s->speed.prompts);
    return st;
}

static qb_status read_document(qb_suite *s) {
    const char *elsewhere[16];
    size_t n = 0;
    qb_status st;
    if (!qb_json_is_object(s->doc)) return qb_fail(QB_ERR_FORMAT, "%s: a suite is a JSON object", s->where);
    QB_TRY(st, check_keys(s));
    QB_TRY(st, read_name(s));
    for (const qb_suite_key *key = qb_suite_keys; key->name; key++) {
        elsewhere[n++] = key->name;
        if (key->list >= 0) QB_TRY(st, read_list(s, key));
    }
    elsewhere[n] = NULL;
    QB_TRY(st, check_bases(s));
    qb_options_defaults(qb_suite_options, &s->config);
    QB_TRY(st, qb_options_from_json(qb_suite_options, &s->config, s->doc, s->where, elsewhere));
    QB_TRY(st, read_speed(s));
    QB_TRY(st, qb_variants_read(s));
    qb_suite_share_special_tokens(s);
    if ((qb_suite_needs(s) & QB_METRIC_WINDOWS) && (!s->datasets.n || !s->protocols.n))
        st = qb_fail(QB_ERR_USAGE,
                     "%s: %s needs \"datasets\" and \"protocols\"; name them, or leave it out of \"metrics\"",
                     s->where, qb_suite_measures(s, "perplexity") ? "perplexity" : "divergence");
out:
    return st;
}

qb_status qb_suite_parse(const char *text, size_t n, const char *where, qb_suite *out) {
    *out = (qb_suite){0};
    qb_status st = qb_arena_strdup(&out->arena, where, &out->where);
    if (st == QB_OK) st = qb_json_parse(text, n, where, &out->doc);
    if (st == QB_OK) st = read_document(out);
    if (st != QB_OK) qb_suite_free(out);
    return st;
}

void qb_suite_free(qb_suite *s) {
    for (size_t i = 0; i < s->n_variants; i++) qb_json_free(s->variants[i].entry);
    qb_free(s->variants);
    qb_json_free(s->doc);
    qb_arena_free(&s->arena);
    *s = (qb_suite){0};
}

int qb_suite_model_find(const qb_suite *s, const char *name) {
    int called = -1;
    for (int i = 0; i < s->models.n; i++) {
        const qb_suite_model *m = &s->model_entries[i];
        char label[QB_MODEL_LABEL_CHARS];
        if (!strcmp(s->models.items[i], name) || (m->word && !strcmp(m->word, name)) ||
            (m->label && !strcmp(m->label, name)))
            return i;
        qb_suite_model_label(s, i, label);
        if (called < 0 && !strcmp(label, name)) called = i;
    }
    return called;
}

const qb_suite_model *qb_suite_adapted(const qb_suite *s, const char *item) {
    for (int i = 0; i < s->models.n; i++)
        if (!strcmp(s->models.items[i], item))
            return s->model_entries[i].adapter ? &s->model_entries[i] : NULL;
    return NULL;
}

bool qb_suite_measures(const qb_suite *s, const char *group) {
    for (int i = 0; i < s->metrics.n; i++)
        if (!strcmp(s->metrics.items[i], group)) return true;
    return false;
}

unsigned qb_suite_needs(const qb_suite *s) {
    unsigned needs = 0;
    for (size_t i = 0; qb_metric_group_at(i); i++)
        if (qb_suite_measures(s, qb_metric_group_at(i)->name)) needs |= qb_metric_group_at(i)->needs;
    return needs;
}
