/* Options as rows. One row gives --help, parsing, range errors, the suite-file
   key and the `config` object of a result; a default is written nowhere else.
   Names use dashes on the command line and underscores in JSON. */
#pragma once

#include "base/json.h"
#include "base/status.h"
#include "base/str.h"

#include <stddef.h>
#include <stdint.h>

typedef enum {
    QB_OPTION_BOOL,     /* bool: --name and --no-name; JSON true/false */
    QB_OPTION_INT,      /* int64_t */
    QB_OPTION_REAL,     /* double */
    QB_OPTION_TEXT,     /* const char *: points into argv or the JSON document; NULL when unset */
    QB_OPTION_CHOICE,   /* const char *: one of `choices`, "a|b|c" */
    QB_OPTION_INT_LIST, /* qb_int_list: "1,2,4" or a JSON array */
} qb_option_type;

enum { QB_INT_LIST_MAX = 16 };
typedef struct qb_int_list {
    int n;
    int64_t values[QB_INT_LIST_MAX];
} qb_int_list;

typedef struct qb_option {
    const char *name; /* "group-size"; NULL ends a table */
    char letter;      /* 'o' for -o, or 0 */
    qb_option_type type;
    size_t offset;       /* of the field in the target struct */
    const char *initial; /* default, as the user would type it; NULL: unset, 0, false */
    double min, max;     /* INT, REAL and list items, inclusive; both 0: unbounded */
    const char *choices; /* CHOICE */
    const char *unit;    /* metavariable in --help ("N", "FILE", "tokens"); NULL for BOOL */
    const char *help;    /* one sentence, no full stop */
} qb_option;

/* A table together with the struct it fills. */
typedef struct qb_option_set {
    const char *title; /* heading in --help */
    const qb_option *rows;
    void *target;
} qb_option_set;

/* Writes every default into target. */
void qb_options_defaults(const qb_option *rows, void *target);
/* Sets one option from text ("true"/"false" for BOOL); `name`
   may use '-' or '_'. Unknown names suggest the nearest. */
qb_status qb_options_set(const qb_option_set *sets, size_t n_sets, const char *name,
                         const char *text) QB_NODISCARD;
/* Parses argv[1..argc): options in any order, "--name value" or "--name=value", "-o value", "--" ends
   options. Positional words are stored in words (at most max_words) and counted in *n_words. */
qb_status qb_options_parse(const qb_option_set *sets, size_t n_sets, int argc, char **argv,
                           const char **words, size_t max_words, size_t *n_words) QB_NODISCARD;
/* Takes the members of a JSON object. Keys in `ignore` (NULL-terminated, may be NULL) belong to someone else;
   other unknown keys fail with the nearest name, or with all that are known. */
qb_status qb_options_from_json(const qb_option *rows, void *target, const qb_json *object, const char *where,
                               const char *const *ignore) QB_NODISCARD;
/* Puts every option into the object under its JSON key, in row order; unset TEXT becomes null. */
void qb_options_to_json(const qb_option *rows, const void *target, qb_json *object);
/* The rows as an indented two-column help text with defaults, ranges and units. */
void qb_options_help(const qb_option_set *sets, size_t n_sets, qb_str *out);
/* What the help says of one row: its sentence, choices, range and default. */
void qb_option_describe(const qb_option *row, qb_str *out);
/* Renders one value as the user would type it. */
void qb_option_print(const qb_option *row, const void *target, qb_str *out);
