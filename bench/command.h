/* What every subcommand shares: its row in the command table, its manual page, the options that all take, and
   the writing of standard output. */
#pragma once

#include "base/colour.h"
#include "base/option.h"

typedef struct qb_command {
    const char *name, *summary;
    /* argv[0] is the subcommand's name. *exit_code is what the process returns when the status is QB_OK. */
    qb_status (*run)(int argc, char **argv, int *exit_code);
} qb_command;

const qb_command *qb_command_at(size_t index); /* NULL behind the last */
const qb_command *qb_command_find(const char *name);
qb_status qb_command_unknown(const char *word) QB_NODISCARD; /* the usage error, with the nearest name */

/* The prose of a manual page; the options come from their rows. Lines are pre-wrapped. */
typedef struct qb_page {
    const char *name, *summary;
    const char *synopsis; /* one line a form, without "bench " */
    const char *description;
    const char *examples;
    const char *exit_status; /* NULL: the usual three */
    const char *words;       /* "a|b|c" where the words are of a closed set; NULL: files, or none */
} qb_page;

/* What becomes of a page and its option rows; the text of --help unless somebody else asks. */
typedef qb_status (*qb_page_printer)(void *user, const qb_page *page, const qb_option_set *sets,
                                     size_t n_sets);
/* Gives a subcommand's page and rows to `print`; the subcommand does not run. */
qb_status qb_command_describe(const qb_command *command, qb_page_printer print, void *user) QB_NODISCARD;
extern const char qb_usual_exit_status[];
/* The program's own page, without options, and the environment variables that it reads; NULL name at the end.
 */
extern const qb_page qb_program_page;
typedef struct qb_variable {
    const char *name, *meaning;
} qb_variable;
extern const qb_variable qb_program_variables[];

/* Options of every subcommand. */
typedef struct qb_common {
    const char *color; /* read by qb_command_colour before anything else */
    bool json, quiet, verbose, help;
} qb_common;
extern const qb_option qb_common_options[];

/* Options of the subcommands that compute. */
typedef struct qb_compute {
    int64_t threads;     /* 0: all cores */
    const char *backend; /* registry name */
    int64_t device;      /* which device of the backend */
    double device_gb;    /* use at most this much of its memory; 0: what there is */
    bool offload;        /* blocks that do not fit the device may lie in host memory */
    const char *numa;    /* what qb_numa_parse takes */
} qb_compute;
extern const qb_option qb_compute_options[];

/* Heeds --color among the words of a command line; a wrong value is left to the rows. */
void qb_command_colour(int argc, char **argv);
/* Sets every default, prints the page and sets *done when --help is among the words, else parses and sets the
   log level. The sets must hold qb_common_options as the last one. Words beyond max_words are a usage error.
 */
qb_status qb_command_parse(const qb_page *page, const qb_option_set *sets, size_t n_sets, int argc,
                           char **argv, const char **words, size_t max_words, size_t *n_words,
                           bool *done) QB_NODISCARD;
/* The usage error for a missing positional word, naming --help. */
qb_status qb_command_missing(const qb_page *page, const char *what) QB_NODISCARD;

/* Standard output: data only. What could not be written is told by qb_output_finish. */
void qb_output(const char *fmt, ...) QB_PRINTF(1, 2);
void qb_output_bytes(const void *bytes, size_t n);
/* The same, in colours where they are wanted (base/colour.h). */
void qb_output_painted(const char *text, size_t n, const qb_painted_word *words, bool heads);
int qb_output_columns(void); /* of the terminal, between 40 and 120; 100 where there is none */
qb_status qb_output_json(const qb_json *json) QB_NODISCARD;
bool qb_output_broken(void);                             /* a write failed already */
qb_status qb_output_finish(int *exit_code) QB_NODISCARD; /* a closed pipe ends quietly with exit code 141 */
