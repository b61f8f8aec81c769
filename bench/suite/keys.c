#include "bench/suite/keys.h"

#include "base/file.h"
#include "bench/session.h"
#include "bench/suite/variant.h"

#include <string.h>

enum { WORD_MAX = 801 }; /* two paths of 400 and the sign between them */

const qb_option qb_suite_options[] = {
    {"max-windows", 0, QB_OPTION_INT, offsetof(qb_suite_config, max_windows), "0", 0, 1e9, NULL, "N",
     "windows of each perplexity; 0 takes all"},
    {"special-tokens", 0, QB_OPTION_CHOICE, offsetof(qb_suite_config, special_tokens), "protocol", 0, 0,
     QB_SPECIAL_TOKENS_CHOICES, "RULE",
     QB_SPECIAL_TOKENS_HELP "; any other than protocol is also the calibration's, where a method says none"},
    {"memory-gb", 0, QB_OPTION_REAL, offsetof(qb_suite_config, memory_gb), "0", 0, 1e6, NULL, "GB",
     "memory a perplexity may take (1 GB = 1e9 bytes); 0 takes what is free. Less than the model needs runs "
     "it layer by layer"},
    {"synthetic-seed", 0, QB_OPTION_INT, offsetof(qb_suite_config, synthetic_seed), "0", 0, 1e9, NULL, "N",
     "seed of the random calibration tokens of synthetic models"},
    {0},
};

const qb_suite_key qb_suite_keys[] = {
    {"name", "text", true, NULL, -1, "what the suite is called in results: 1 to 63 of a-z 0-9 . - _"},
    {"summary", "text", false, NULL, -1, "one line for `bench list suites`"},
    {"models", "list of names or objects", true, NULL, QB_LIST_MODELS,
     "what is quantized and measured: directories, GGUF files, known names, hub ids; or objects that give "
     "one a label, merge an adapter into it and say what it was made from"},
    {"methods", "list of objects", true, NULL, -1,
     "how each model is quantized, see below; a value that is a list stands for as many entries"},
    {"backends", "list of names", false, "cpu", QB_LIST_BACKENDS, "what computes: `bench list backends`"},
    {"datasets", "list of names", false, NULL, QB_LIST_DATASETS,
     "texts of perplexities and divergences: `bench list datasets`, or files; needed where they are "
     "measured"},
    {"protocols", "list of names", false, NULL, QB_LIST_PROTOCOLS,
     "how texts are cut and scored: `bench list protocols`; every text is scored under each"},
    {"metrics", "list of names", false, "perplexity, speed, memory, determinism", QB_LIST_METRICS,
     "the groups of metrics that are measured, see below"},
    {"speed", "object", false, NULL, -1, "settings of the speed rows, see below"},
    {0},
};

const qb_option qb_suite_model_options[] = {
    {"model", 0, QB_OPTION_TEXT, offsetof(qb_suite_model, word), NULL, 0, 0, NULL, "MODEL",
     "directory, GGUF file, known name or hub id; a path is looked for beside the suite's file first"},
    {"label", 0, QB_OPTION_TEXT, offsetof(qb_suite_model, label), NULL, 0, 0, NULL, "NAME",
     "what ids, tables and plots call it: 1 to 63 of A-Z a-z 0-9 . - _; without it the path's last part"},
    {"base", 0, QB_OPTION_TEXT, offsetof(qb_suite_model, base), NULL, 0, 0, NULL, "NAME",
     "the suite's unquantized model that it was made from, by label or as it is named in models. It stands "
     "in "
     "one picture with that model's cases; of a checkpoint that came quantized the divergences are measured "
     "from it, of another the cases are called by their model too. Without it: of one that came quantized "
     "the "
     "one unquantized model of its shapes, of others none"},
    {"adapter", 0, QB_OPTION_TEXT, offsetof(qb_suite_model, adapter), NULL, 0, 0, NULL, "ADAPTER",
     "LoRA adapter that is merged into the model first (`bench merge`): a directory or hub id. The merged "
     "model stays in the cache and is called MODEL+ADAPTER"},
    {0},
};

const qb_suite_key qb_suite_method_keys[] = {
    {"method", "text", true, NULL, -1, "a name of `bench list methods`, or none: the model as it is found"},
    {"label", "text", false, NULL, -1,
     "what ids and tables call it: 1 to 63 of a-z 0-9 . - _; without it the method and its options"},
    {"models", "list of names", false, NULL, -1,
     "only for these of the suite's models, by label or as they are named there; without it for all. Models "
     "that the command line gives take every method"},
    {0},
};

/* ---- lists ---- */

static const struct {
    const char *key;
    size_t offset;
} lists[QB_LISTS] = {
    [QB_LIST_MODELS] = {"models", offsetof(qb_suite, models)},
    [QB_LIST_BACKENDS] = {"backends", offsetof(qb_suite, backends)},
    [QB_LIST_DATASETS] = {"datasets", offsetof(qb_suite, datasets)},
    [QB_LIST_PROTOCOLS] = {"protocols", offsetof(qb_suite, protocols)},
    [QB_LIST_METRICS] = {"metrics", offsetof(qb_suite, metrics)},
};

qb_name_list *qb_suite_list(qb_suite *s, int list) {
    return (qb_name_list *)((char *)s + lists[list].offset);
}

const char *qb_suite_list_name(int list) {
    return lists[list].key;
}

size_t qb_suite_key_names(char shown[QB_SUITE_KEYS_MAX][48], const char *names[QB_SUITE_KEYS_MAX]) {
    size_t n = 0;
    for (const qb_suite_key *key = qb_suite_keys; key->name; key++) names[n++] = key->name;
    for (const qb_option *row = qb_suite_options; row->name; row++, n++)
        names[n] = qb_option_key(row->name, shown[n]);
    return n;
}

/* ---- names that must be known ---- */

qb_status qb_suite_unknown(const char *where, const char *what, const char *word, const char *const *names,
                           size_t n) {
    char buffer[QB_HINT_CHARS];
    const char *hint = qb_did_you_mean(word, names, n, buffer);
    return qb_fail(QB_ERR_USAGE, "%s: unknown %s '%.80s'%s", where, what, word,
                   *hint ? hint : "; `bench help suite` says what a suite may hold");
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
    return qb_suite_unknown(where, "dataset", word, names, n);
}

static qb_status check_protocol(const char *where, const char *word) {
    qb_protocol p;
    qb_status st = qb_protocol_parse(word, &p);
    return st == QB_OK ? st : qb_fail_prefix(QB_ERR_USAGE, "%s", where);
}

static qb_status check_group(const char *where, const char *word) {
    const char *names[QB_NAMES_MAX];
    size_t n = 0;
    for (; n < QB_NAMES_MAX && qb_metric_group_at(n); n++) {
        names[n] = qb_metric_group_at(n)->name;
        if (!strcmp(word, names[n])) return QB_OK;
    }
    return qb_suite_unknown(where, "metric group", word, names, n);
}

static qb_status check_word(int list, const char *where, const char *word) {
    if (!*word || strlen(word) > WORD_MAX)
        return qb_fail(QB_ERR_USAGE, "%s: \"%s\" holds an empty or overlong name", where, lists[list].key);
    switch (list) {
    case QB_LIST_BACKENDS:
        return check_backend(where, word);
    case QB_LIST_DATASETS:
        return check_dataset(where, word);
    case QB_LIST_PROTOCOLS:
        return check_protocol(where, word);
    case QB_LIST_METRICS:
        return check_group(where, word);
    default:
        return QB_OK;
    }
}

qb_status qb_suite_add_word(qb_suite *s, const char *where, int list, const char *word) {
    qb_name_list *names = qb_suite_list(s, list);
    qb_status st = check_word(list, where, word);
    if (st != QB_OK) return st;
    for (int i = 0; i < names->n; i++)
        if (!strcmp(names->items[i], word)) return QB_OK;
    if (names->n == QB_NAMES_MAX)
        return qb_fail(QB_ERR_USAGE, "%s: \"%s\" holds more than %d names", where, lists[list].key,
                       QB_NAMES_MAX);
    names->items[names->n++] = word;
    return QB_OK;
}

/* ---- small things that reading and overriding share ---- */

bool qb_option_has(const qb_option *rows, const char *key) {
    for (const qb_option *row = rows; row->name; row++) {
        char own[48];
        if (!strcmp(qb_option_key(row->name, own), key)) return true;
    }
    return false;
}

void qb_suite_share_special_tokens(qb_suite *s) {
    if (!strcmp(s->config.special_tokens, "protocol")) return;
    for (size_t i = 0; i < s->n_variants; i++) {
        qb_variant *v = &s->variants[i];
        if (v->method && qb_option_has(v->method->options, "special_tokens") &&
            qb_json_is_null(qb_json_get(v->entry, "special_tokens")))
            v->config.special_tokens = s->config.special_tokens;
    }
}

/* "./" and "../" are always beside the suite's file; another path is where it is found there. */
qb_status qb_suite_path(qb_suite *s, const char *word, const char **out) {
    bool marked = !strncmp(word, "./", 2) || !strncmp(word, "../", 3), there = false;
    *out = word;
    if (*word == '/' || *word == '~' || !strpbrk(word, "/.") || !strchr(s->where, '/')) return QB_OK;
    char *dir = qb_path_dir(s->where), *path = dir ? qb_path_join(dir, word) : NULL;
    qb_status st = path ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK && !marked) st = qb_path_look(path, &there);
    if (st == QB_OK && (marked || there)) st = qb_arena_strdup(&s->arena, path, out);
    qb_free(dir);
    qb_free(path);
    return st;
}
