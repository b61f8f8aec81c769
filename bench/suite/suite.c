/* Reading a suite file and its overrides. What comes of it is expanded in suite_cases.c. */
#include "bench/suite/suite.h"

#include "base/file.h"
#include "base/log.h"
#include "bench/session.h"
#include "bench/suite/variant.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SUITE_MAX_BYTES = 1 << 20, KEYS_MAX = 256 };

const qb_option qb_suite_options[] = {
    {"max-windows", 0, QB_OPTION_INT, offsetof(qb_suite_config, max_windows), "0", 0, 1e9, NULL, "N",
     "windows of each perplexity; 0 takes all"},
    {"special-tokens", 0, QB_OPTION_CHOICE, offsetof(qb_suite_config, special_tokens), "protocol", 0, 0,
     QB_SPECIAL_TOKENS_CHOICES, "RULE",
     QB_SPECIAL_TOKENS_HELP "; any other than protocol is also the calibration's, where a method says none"},
    {"memory-gb", 0, QB_OPTION_REAL, offsetof(qb_suite_config, memory_gb), "0", 0, 1e6, NULL, "GB",
     "memory a perplexity may take (1 GB = 1e9 bytes); 0 takes what is free. Less than the model needs runs "
     "it layer "
     "by layer"},
    {"synthetic-seed", 0, QB_OPTION_INT, offsetof(qb_suite_config, synthetic_seed), "0", 0, 1e9, NULL, "N",
     "seed of the random calibration tokens of synthetic models"},
    {0},
};

/* Members that are lists of words. */
static const struct {
    const char *key;
    size_t offset;
    bool required;
} lists[] = {
    {"models", offsetof(qb_suite, models), true},      {"backends", offsetof(qb_suite, backends), false},
    {"datasets", offsetof(qb_suite, datasets), false}, {"protocols", offsetof(qb_suite, protocols), false},
    {"metrics", offsetof(qb_suite, metrics), false},
};
enum { N_LISTS = sizeof lists / sizeof lists[0] };

static qb_name_list *list_at(qb_suite *s, size_t i) {
    return (qb_name_list *)((char *)s + lists[i].offset);
}

/* ---- names that must be known ---- */

static qb_status unknown_name(const char *where, const char *what, const char *word, const char *const *names,
                              size_t n) {
    char hint[QB_HINT_CHARS];
    return qb_fail(QB_ERR_USAGE, "%s: unknown %s '%.80s'%s", where, what, word,
                   qb_did_you_mean(word, names, n, hint));
}

static qb_status check_backend(const char *where, const char *word) {
    const qb_backend *backend;
    qb_status st = qb_session_backend(word, &backend);
    return st == QB_OK ? st : qb_fail_prefix(QB_ERR_USAGE, "%s", where);
}

static qb_status check_dataset(const char *where, const char *word) {
    const char *names[QB_NAMES_MAX];
    size_t n = 0;
    for (; n < QB_NAMES_MAX && qb_dataset_at(n); n++) names[n] = qb_dataset_at(n)->name;
    if (qb_dataset_find(word) || strpbrk(word, "/.")) return QB_OK; /* else it is the user's own file */
    return unknown_name(where, "dataset", word, names, n);
}

static qb_status check_protocol(const char *where, const char *word) {
    qb_protocol p;
    qb_status st = qb_protocol_parse(word, &p);
    return st == QB_OK ? st : qb_fail_prefix(QB_ERR_USAGE, "%s", where);
}

static qb_status check_metric(const char *where, const char *word) {
    const char *names[QB_NAMES_MAX];
    size_t n = 0;
    for (; qb_metric_group_at(n); n++) {
        names[n] = qb_metric_group_at(n)->name;
        if (!strcmp(word, names[n])) return QB_OK;
    }
    return unknown_name(where, "metric group", word, names, n);
}

static qb_status check_word(const char *key, const char *where, const char *word) {
    if (!*word || strlen(word) > 400)
        return qb_fail(QB_ERR_USAGE, "%s: \"%s\" holds an empty or overlong name", where, key);
    if (!strcmp(key, "backends")) return check_backend(where, word);
    if (!strcmp(key, "datasets")) return check_dataset(where, word);
    if (!strcmp(key, "protocols")) return check_protocol(where, word);
    if (!strcmp(key, "metrics")) return check_metric(where, word);
    return QB_OK;
}

static qb_status add_word(qb_suite *s, const char *where, size_t list, const char *word) {
    qb_name_list *names = list_at(s, list);
    qb_status st = check_word(lists[list].key, where, word);
    if (st != QB_OK) return st;
    for (int i = 0; i < names->n; i++)
        if (!strcmp(names->items[i], word)) return QB_OK;
    if (names->n == QB_NAMES_MAX)
        return qb_fail(QB_ERR_USAGE, "%s: \"%s\" holds more than %d names", where, lists[list].key,
                       QB_NAMES_MAX);
    names->items[names->n++] = word;
    return QB_OK;
}

/* ---- members of the document ---- */

static qb_status read_list(qb_suite *s, size_t list) {
    const char *key = lists[list].key;
    const qb_json *array = qb_json_get(s->doc, key);
    if (!array && !lists[list].required) return QB_OK;
    if (!qb_json_is_array(array) || qb_json_count(array) == 0)
        return qb_fail(QB_ERR_USAGE, "%s: \"%s\" must be a list of names that is not empty", s->where, key);
    for (const qb_json *item = qb_json_first(array); item; item = qb_json_next(item)) {
        if (!qb_json_is_string(item))
            return qb_fail(QB_ERR_USAGE, "%s: \"%s\" must hold strings only", s->where, key);
        qb_status st = add_word(s, s->where, list, qb_json_string(item));
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

static void share_special_tokens(qb_suite *s);
static const char *const other_keys[] = {"name", "summary", "methods", "speed"};

static qb_status check_keys(const qb_suite *s) {
    char shown[KEYS_MAX][48];
    const char *names[KEYS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < N_LISTS; i++) names[n++] = lists[i].key;
    for (size_t i = 0; i < sizeof other_keys / sizeof other_keys[0]; i++) names[n++] = other_keys[i];
    for (const qb_option *row = qb_suite_options; row->name; row++, n++)
        names[n] = qb_option_key(row->name, shown[n]);
    for (const qb_json *j = qb_json_first(s->doc); j; j = qb_json_next(j)) {
        size_t i = 0;
        while (i < n && strcmp(names[i], qb_json_key(j)) != 0) i++;
        if (i == n) return unknown_name(s->where, "key", qb_json_key(j), names, n);
    }
    return QB_OK;
}

static qb_status read_name(qb_suite *s) {
    const char *name = NULL;
    qb_status st = qb_json_text(s->doc, "name", s->where, true, &name);
    if (st == QB_OK) st = qb_json_text(s->doc, "summary", s->where, true, &s->summary);
    if (st != QB_OK) return st;
    size_t n = strlen(name);
    if (n == 0 || n >= sizeof s->name || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != n)
        return qb_fail(QB_ERR_USAGE, "%s: \"name\" must be 1 to 63 of a-z 0-9 . - _, found '%.80s'", s->where,
                       name);
    memcpy(s->name, name, n + 1);
    return QB_OK;
}

static qb_status read_document(qb_suite *s) {
    if (!qb_json_is_object(s->doc)) return qb_fail(QB_ERR_FORMAT, "%s: a suite is a JSON object", s->where);
    static const char *const elsewhere[] = {"name",     "summary",  "methods",   "speed",   "models",
                                            "backends", "datasets", "protocols", "metrics", NULL};
    qb_status st;
    QB_TRY(st, check_keys(s));
    QB_TRY(st, read_name(s));
    for (size_t i = 0; i < N_LISTS; i++) QB_TRY(st, read_list(s, i));
    qb_options_defaults(qb_suite_options, &s->config);
    QB_TRY(st, qb_options_from_json(qb_suite_options, &s->config, s->doc, s->where, elsewhere));
    qb_options_defaults(qb_speed_options, &s->speed);
    const qb_json *speed = qb_json_get(s->doc, "speed");
    if (speed) {
        char where[300];
        snprintf(where, sizeof where, "%s: speed", s->where);
        QB_TRY(st, qb_options_from_json(qb_speed_options, &s->speed, speed, where, NULL));
    }
    if (!s->backends.n) QB_TRY(st, qb_suite_set_list(s, "backends", "cpu"));
    if (!s->metrics.n) QB_TRY(st, qb_suite_set_list(s, "metrics", "perplexity,speed,memory,determinism"));
    QB_TRY(st, qb_variants_read(s));
    share_special_tokens(s);
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

/* ---- where suites are found ---- */

static char *suites_dir(void) {
    char *share = qb_share_dir();
    char *dir = share ? qb_path_join(share, "suites") : NULL;
    qb_free(share);
    return dir;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

qb_status qb_suite_names(char ***out, size_t *n) {
    char *folder = suites_dir();
    DIR *dir = folder ? opendir(folder) : NULL;
    char **names = NULL;
    size_t capacity = 0;
    qb_status st = QB_OK;
    *n = 0;
    for (struct dirent *e; dir && st == QB_OK && (e = qb_dir_next(dir, folder, &st));) {
        size_t length = strlen(e->d_name);
        if (length < 6 || strcmp(e->d_name + length - 5, ".json") != 0) continue;
        st = qb_grow(&names, &capacity, *n + 1, sizeof *names);
        if (st != QB_OK) break;
        if (!(names[*n] = qb_strdup(e->d_name))) {
            st = qb_fail(QB_ERR_MEMORY, "out of memory");
            break;
        }
        names[(*n)++][length - 5] = 0;
    }
    if (dir) closedir(dir);
    qb_free(folder);
    if (st == QB_OK && *n) qsort(names, *n, sizeof *names, by_text);
    *out = names;
    return st;
}

static qb_status no_suite(const char *word, const char *path) {
    char **names;
    size_t n;
    qb_status st = qb_suite_names(&names, &n);
    if (st == QB_OK) {
        char hint[QB_HINT_CHARS];
        st = qb_fail(QB_ERR_USAGE, "no suite '%s' (looked for %s): `bench list suites` shows them%s", word,
                     path, qb_did_you_mean(word, (const char *const *)names, n, hint));
    }
    for (size_t i = 0; i < n; i++) qb_free(names[i]);
    qb_free(names);
    return st;
}

/* "opt-125m" where no file is called so: the suite that has a model of that name, for that model alone. */
static qb_status load_for_model(const char *word, bool *found, qb_suite *out) {
    char **names;
    size_t n;
    qb_status st = qb_suite_names(&names, &n);
    *found = false;
    for (size_t i = 0; i < n; i++) {
        if (st == QB_OK && !*found &&
            qb_suite_load(names[i], out) == QB_OK) { /* a broken one is another's error */
            for (int m = 0; st == QB_OK && m < out->models.n && !*found; m++) {
                char label[96];
                qb_model_label(out->models.items[m], label);
                if (out->models.n < 2 || strcasecmp(label, word) != 0) continue;
                *found = true;
                st = qb_suite_set_list(out, "models", out->models.items[m]);
                if (st == QB_OK) qb_info("suite %s, of its models %s alone", out->name, out->models.items[0]);
            }
            if (!*found || st != QB_OK) qb_suite_free(out);
        }
        qb_free(names[i]);
    }
    qb_free(names);
    return st;
}

qb_status qb_suite_load(const char *word, qb_suite *out) {
    *out = (qb_suite){0};
    size_t length = strlen(word);
    bool is_path = strchr(word, '/') || (length > 5 && !strcmp(word + length - 5, ".json"));
    qb_str path = {0};
    char *dir = suites_dir(), *text = NULL;
    if (is_path)
        qb_str_text(&path, word);
    else
        qb_str_printf(&path, "%s/%s.json", dir ? dir : "", word);
    size_t n = 0;
    qb_status st;
    QB_TRY(st, qb_str_status(&path));
    bool there = true;
    if (!is_path) QB_TRY(st, qb_path_look(path.text, &there));
    if (!there) {
        QB_TRY(st, load_for_model(word, &there, out));
        if (!there) st = no_suite(word, path.text);
        goto out;
    }
    QB_TRY(st, qb_file_read(path.text, SUITE_MAX_BYTES, &text, &n));
    st = qb_suite_parse(text, n, path.text, out);
out:
    qb_free(text);
    qb_free(dir);
    qb_str_free(&path);
    return st;
}

/* ---- overrides ---- */

qb_status qb_suite_set_list(qb_suite *s, const char *key, const char *words) {
    size_t list = 0;
    while (list < N_LISTS && strcmp(lists[list].key, key) != 0) list++;
    if (list == N_LISTS) return qb_fail(QB_ERR_INTERNAL, "a suite has no list '%s'", key);
    *list_at(s, list) = (qb_name_list){0};
    bool one; /* a path may hold commas */
    qb_status st = qb_path_look(words, &one);
    if (st != QB_OK) return st;
    for (const char *p = words; *p;) {
        qb_str word = {0};
        size_t n = one ? strlen(p) : strcspn(p, ",");
        qb_str_append(&word, p, n);
        const char *kept;
        st = qb_str_status(&word);
        if (st == QB_OK) st = qb_arena_strdup(&s->arena, qb_str_get(&word), &kept);
        qb_str_free(&word);
        if (st == QB_OK) st = add_word(s, key, list, kept);
        if (st != QB_OK) return st;
        p += n + (p[n] == ',');
    }
    if (!list_at(s, list)->n)
        return qb_fail(QB_ERR_USAGE, "%s takes one or more names separated by commas", key);
    return QB_OK;
}

static bool has_row(const qb_option *rows, const char *key) {
    for (const qb_option *row = rows; row->name; row++) {
        char own[48];
        if (!strcmp(qb_option_key(row->name, own), key)) return true;
    }
    return false;
}

static void collect_keys(const qb_option *rows, char shown[][48], const char **names, size_t *n) {
    for (const qb_option *row = rows; row->name && *n < KEYS_MAX; row++, (*n)++)
        names[*n] = qb_option_key(row->name, shown[*n]);
}

static qb_status unknown_setting(const char *key) {
    char shown[KEYS_MAX][48];
    const char *names[KEYS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < N_LISTS; i++) names[n++] = lists[i].key;
    collect_keys(qb_suite_options, shown, names, &n);
    collect_keys(qb_speed_options, shown, names, &n);
    for (size_t i = 0; qb_quant_method_at(i); i++)
        collect_keys(qb_quant_method_at(i)->options, shown, names, &n);
    return unknown_name("--set", "key", key, names, n);
}

/* The suite's rule for special tokens is that of the calibrations that name none. */
static void share_special_tokens(qb_suite *s) {
    if (!strcmp(s->config.special_tokens, "protocol")) return;
    for (size_t i = 0; i < s->n_variants; i++) {
        qb_variant *v = &s->variants[i];
        if (v->method && has_row(v->method->options, "special_tokens") &&
            qb_json_is_null(qb_json_get(v->entry, "special_tokens")))
            v->config.special_tokens = s->config.special_tokens;
    }
}

static qb_status assign(qb_suite *s, const char *key, const char *value) {
    for (size_t i = 0; i < N_LISTS; i++)
        if (!strcmp(lists[i].key, key)) return qb_suite_set_list(s, key, value);
    if (has_row(qb_suite_options, key)) {
        qb_status st = qb_options_set(&(qb_option_set){"", qb_suite_options, &s->config}, 1, key, value);
        if (st == QB_OK) share_special_tokens(s);
        return st;
    }
    if (has_row(qb_speed_options, key))
        return qb_options_set(&(qb_option_set){"", qb_speed_options, &s->speed}, 1, key, value);
    bool known = false, taken = false;
    for (size_t i = 0; qb_quant_method_at(i); i++)
        known = known || has_row(qb_quant_method_at(i)->options, key);
    if (!known) return unknown_setting(key);
    for (size_t i = 0; i < s->n_variants; i++) {
        qb_variant *v = &s->variants[i];
        if (!v->method || !has_row(v->method->options, key)) continue;
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
