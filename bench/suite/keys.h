/* The keys of a suite file as rows: reading, overriding, `bench help suite` and docs/suites.md go by them. */
#pragma once

#include "bench/suite/suite.h"

/* A key whose value is no plain option. */
typedef struct qb_suite_key {
    const char *name, *kind; /* "text", "list of names" */
    bool required;
    const char *initial; /* what stands where the key is missing, or NULL */
    int list;            /* index into qb_suite_lists, or -1 */
    const char *help;
} qb_suite_key;
extern const qb_suite_key qb_suite_keys[]; /* NULL name behind the last */
/* Of an entry of "models" that is an object, over qb_suite_model; of an entry of "methods" beside its
 * options.
 */
extern const qb_option qb_suite_model_options[];
extern const qb_suite_key qb_suite_method_keys[];

/* Members that are lists of words, in the order of their indices above. */
enum { QB_LIST_MODELS, QB_LIST_BACKENDS, QB_LIST_DATASETS, QB_LIST_PROTOCOLS, QB_LIST_METRICS, QB_LISTS };
qb_name_list *qb_suite_list(qb_suite *s, int list);
const char *qb_suite_list_name(int list);
/* Adds a checked word once; `word` lives as long as the suite. */
qb_status qb_suite_add_word(qb_suite *s, const char *where, int list, const char *word) QB_NODISCARD;

/* Every key that a suite file may hold at its top, and those of speed; how many. */
enum { QB_SUITE_KEYS_MAX = 256 };
size_t qb_suite_key_names(char shown[QB_SUITE_KEYS_MAX][48], const char *names[QB_SUITE_KEYS_MAX]);
qb_status qb_suite_unknown(const char *where, const char *what, const char *word, const char *const *names,
                           size_t n) QB_NODISCARD;
/* The suite's rule for special tokens is that of the calibrations that name none. */
void qb_suite_share_special_tokens(qb_suite *s);
/* A path beside the suite's file where there is one, else the word itself; *out lives as long as the suite.
 */
qb_status qb_suite_path(qb_suite *s, const char *word, const char **out) QB_NODISCARD;
bool qb_option_has(const qb_option *rows, const char *key);
