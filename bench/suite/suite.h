/* Suites: which models, methods, datasets and metrics a run measures. A suite is a JSON file; `bench list
   suites` shows those that come with the program. A file is untrusted input: every key, name and value is
   checked when it is read. */
#pragma once

#include "base/memory.h"
#include "datasets/datasets.h"
#include "eval/eval.h"
#include "quant/method.h"

enum {
    QB_NAMES_MAX = 32,
    QB_VARIANTS_MAX = 512,
    QB_CASES_MAX = 4096,
    QB_SKIP_MAX = 240,
    QB_MODEL_LABEL_CHARS = 96
};

/* A short list of words; the words live in the suite's document or arena. */
typedef struct qb_name_list {
    int n;
    const char *items[QB_NAMES_MAX];
} qb_name_list;

/* Scalar settings of a suite, also taken by --set. */
typedef struct qb_suite_config {
    int64_t max_windows;        /* of each perplexity; 0: all */
    const char *special_tokens; /* rule of each perplexity; "protocol": each protocol's own */
    double memory_gb;           /* a perplexity may take; 0: what is free */
    int64_t synthetic_seed;
} qb_suite_config;
extern const qb_option qb_suite_options[];

/* An entry of "models"; empty for those of the command line. */
typedef struct qb_suite_model {
    const char *word; /* as written, with an adapter MODEL+ADAPTER; qb_suite.models holds the same of paths */
    const char *label;               /* NULL: the path's last part, with an adapter both paths' */
    const char *base;                /* word or label of the model that it was made from; NULL: not said */
    const char *adapter;             /* that is merged into it first, as written; NULL: none */
    const char *path, *adapter_path; /* what model and adapter are resolved to */
} qb_suite_model;

/* One way to quantize, taken from an entry of "methods" after its lists were expanded. */
typedef struct qb_variant {
    char label[96];                /* "gptq-4b-g128-act"; part of the case id */
    const qb_quant_method *method; /* NULL: the unquantized model */
    qb_quant_config config;
    qb_json *entry;        /* owned: the scalar settings as written */
    const qb_json *models; /* names of those that it is for, in the suite's document; NULL: all */
} qb_variant;

typedef struct qb_suite {
    char name[64];
    const char *summary; /* "" without */
    const char *where;   /* file name, heads errors */
    qb_json *doc;        /* owned */
    qb_arena arena;
    qb_name_list models, backends, datasets, protocols, metrics;
    qb_suite_model model_entries[QB_NAMES_MAX]; /* beside models */
    bool models_given;                          /* by the command line: methods are for all of them */
    qb_suite_config config;
    qb_speed_config speed;
    qb_variant *variants; /* owned */
    size_t n_variants, variants_capacity;
} qb_suite;

/* One measured thing: model x variant x backend. */
typedef struct qb_case {
    char id[256];                           /* "llama2-7b/gptq-4b-g128-act/cpu", stable from run to run */
    const char *model;                      /* as given: directory, known name, hub id */
    char model_label[QB_MODEL_LABEL_CHARS]; /* its short name in the id */
    const qb_variant *variant;              /* points into the suite */
    const char *backend;
    char label[96];            /* the variant's; of the model as it is found, what that is: "bf16", "as-is" */
    char skipped[QB_SKIP_MAX]; /* why the method cannot serve the model, or "" */
} qb_case;
typedef struct qb_cases {
    qb_case *items; /* owned; free with qb_free */
    size_t count;
} qb_cases;

/* `word` is a name in share/suites, the name of one of several models of such a suite ("opt-125m"), which is
   then its only one, or a path (with '/' or ending in .json). Unknown names suggest the nearest. */
qb_status qb_suite_load(const char *word, qb_suite *out) QB_NODISCARD;
qb_status qb_suite_parse(const char *text, size_t n, const char *where, qb_suite *out) QB_NODISCARD;
void qb_suite_free(qb_suite *s); /* takes {0} */

/* "key=value": a setting of the suite, of its speed rows, or of every method that knows the key. */
qb_status qb_suite_set(qb_suite *s, const char *assignment) QB_NODISCARD;
/* Replaces a list ("models", "backends", "datasets", "protocols", "metrics") by comma-separated words. */
qb_status qb_suite_set_list(qb_suite *s, const char *key, const char *words) QB_NODISCARD;
/* only: comma-separated globs on case ids, variant labels and method names; NULL: all. Call after the last
 * set. */
qb_status qb_suite_expand(const qb_suite *s, const char *only, qb_cases *out) QB_NODISCARD;

/* Calls a case of an unquantized variant, once its model is open, by what that is; a label of the suite's own
   stays. */
void qb_case_name(qb_case *c, const char *label);

/* What ids and tables call a model of the suite: its label, or else what its path ends with. */
void qb_suite_model_label(const qb_suite *s, int model, char out[QB_MODEL_LABEL_CHARS]);
/* The index in `models` of a word, as written or as resolved, or of what the model is called; -1. */
int qb_suite_model_find(const qb_suite *s, const char *name);
/* The entry of an item of `models` that has an adapter; NULL for a model as it is. */
const qb_suite_model *qb_suite_adapted(const qb_suite *s, const char *item);
/* Whether a group of metrics (base/metric.h) is measured, and what all that are need, as bits. */
bool qb_suite_measures(const qb_suite *s, const char *group);
unsigned qb_suite_needs(const qb_suite *s);
/* The options of a variant as a case's config holds them: {method, bits, ...}. */
qb_json *qb_variant_json(const qb_variant *v);
/* "meta-llama/Llama-2-7b-hf/" -> "Llama-2-7b-hf"; what would disturb an id becomes '-'. */
void qb_model_label(const char *word, char out[QB_MODEL_LABEL_CHARS]);
/* The suite as it is after all overrides, with every option spelt out; a suite file again. Caller frees. */
qb_json *qb_suite_json(const qb_suite *s);
/* Every key, default and range: for the terminal, or as docs/suites.md. */
qb_status qb_suite_help(bool markdown, qb_str *out) QB_NODISCARD;
/* The names of the suites in share/suites, sorted; free each and the array with qb_free. */
qb_status qb_suite_names(char ***out, size_t *n) QB_NODISCARD;
