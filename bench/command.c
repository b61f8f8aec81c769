#include "bench/command.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/text.h"
#include "bench/help/elsewhere.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { EXIT_CLOSED_PIPE = 141 }; /* 128 + SIGPIPE, what a shell shows for a program that the signal ended */

#define X(name) extern const qb_command qb_command_##name;
#include "bench/commands/commands.def"
#undef X

static const qb_command *const commands[] = {
#define X(name) &qb_command_##name,
#include "bench/commands/commands.def"
#undef X
};

const qb_command *qb_command_at(size_t index) {
    return index < sizeof commands / sizeof commands[0] ? commands[index] : NULL;
}

const qb_command *qb_command_find(const char *name) {
    for (size_t i = 0; qb_command_at(i); i++)
        if (!strcmp(commands[i]->name, name)) return commands[i];
    return NULL;
}

qb_status qb_command_unknown(const char *word) {
    const char *names[32];
    size_t n = 0;
    while (qb_command_at(n)) {
        names[n] = qb_command_at(n)->name;
        n++;
    }
    char hint[QB_HINT_CHARS];
    return qb_fail(QB_ERR_USAGE, "unknown command '%s': `bench --help` lists them%s", word,
                   qb_did_you_mean(word, names, n, hint));
}

const qb_option qb_common_options[] = {
    {"json", 0, QB_OPTION_BOOL, offsetof(qb_common, json), NULL, 0, 0, NULL, NULL,
     "write the result to standard output as JSON"},
    {"quiet", 'q', QB_OPTION_BOOL, offsetof(qb_common, quiet), NULL, 0, 0, NULL, NULL,
     "keep progress and notes off standard error; warnings and errors stay"},
    {"verbose", 'v', QB_OPTION_BOOL, offsetof(qb_common, verbose), NULL, 0, 0, NULL, NULL,
     "say more on standard error"},
    {"color", 0, QB_OPTION_CHOICE, offsetof(qb_common, color), "auto", 0, 0, "auto|always|never", "WHEN",
     "colours; auto: on a terminal, unless NO_COLOR is set"},
    {"help", 'h', QB_OPTION_BOOL, offsetof(qb_common, help), NULL, 0, 0, NULL, NULL, "show this page"},
    {0},
};

const qb_option qb_compute_options[] = {
    {"threads", 't', QB_OPTION_INT, offsetof(qb_compute, threads), "0", 0, 1024, NULL, "N",
     "threads to compute with; 0 takes every core this process may use. Results do not depend on it"},
    {"numa", 0, QB_OPTION_TEXT, offsetof(qb_compute, numa), "auto", 0, 0, NULL, "MODE",
     "on machines of several memory nodes (sockets): auto divides threads, weights and the cache of keys "
     "and values among them, node:N uses that node alone, off leaves all to the system. Results do not "
     "depend on it"},
    {"backend", 0, QB_OPTION_TEXT, offsetof(qb_compute, backend), "cpu", 0, 0, NULL, "NAME",
     "what computes; `bench list backends` names them"},
    {"device", 0, QB_OPTION_INT, offsetof(qb_compute, device), "0", 0, 1023, NULL, "N",
     "which device of the backend; the cpu has only 0"},
    {"device-gb", 0, QB_OPTION_REAL, offsetof(qb_compute, device_gb), "0", 0, 1e6, NULL, "GB",
     "use at most this much of the device's memory; 0: what there is"},
    {"offload", 0, QB_OPTION_BOOL, offsetof(qb_compute, offload), NULL, 0, 0, NULL, NULL,
     "let blocks that do not fit the device lie in host memory, which it reads over its bus; perplexity and "
     "quantizing go block by block without it"},
    {0},
};

static void indented(qb_str *out, const char *text) {
    while (*text) {
        size_t n = strcspn(text, "\n");
        qb_str_text(out, n ? "    " : "");
        qb_str_append(out, text, n);
        qb_str_text(out, "\n");
        text += n + (text[n] == '\n');
    }
}

static void synopsis(qb_str *out, const char *text) {
    while (*text) {
        size_t n = strcspn(text, "\n");
        qb_str_text(out, "    bench ");
        qb_str_append(out, text, n);
        qb_str_text(out, "\n");
        text += n + (text[n] == '\n');
    }
}

const char qb_usual_exit_status[] = "0   success\n"
                                    "1   the work failed; one line on standard error says why\n"
                                    "2   the command line or a suite file is wrong";

static qb_status print_text(void *user, const qb_page *page, const qb_option_set *sets, size_t n_sets) {
    (void)user;
    qb_str out = {0};
    qb_str_printf(&out, "NAME\n    bench %s - %s\n\nSYNOPSIS\n", page->name, page->summary);
    synopsis(&out, page->synopsis);
    qb_str_text(&out, "\nDESCRIPTION\n");
    indented(&out, page->description);
    qb_options_help(sets, n_sets, &out);
    qb_str_text(&out, "\nEXAMPLES\n");
    indented(&out, page->examples);
    qb_str_text(&out, "\nEXIT STATUS\n");
    indented(&out, page->exit_status ? page->exit_status : qb_usual_exit_status);
    qb_status st = qb_str_status(&out);
    if (st == QB_OK) qb_output_painted(qb_str_get(&out), out.length, NULL, true);
    qb_str_free(&out);
    return st;
}

static struct {
    qb_page_printer print;
    void *user;
} printing = {print_text, NULL};

qb_status qb_command_describe(const qb_command *command, qb_page_printer print, void *user) {
    char name[32], help[] = "--help";
    char *words[] = {name, help, NULL};
    int exit_code = 0;
    snprintf(name, sizeof name, "%s", command->name);
    printing.print = print;
    printing.user = user;
    qb_status st = command->run(2, words, &exit_code);
    printing.print = print_text;
    printing.user = NULL;
    return st;
}

static bool asks_help(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return true;
    return false;
}

void qb_command_colour(int argc, char **argv) {
    static const char name[] = "--color";
    size_t n = sizeof name - 1;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], name, n) != 0) continue;
        const char *value = argv[i][n] == '='             ? argv[i] + n + 1
                            : !argv[i][n] && i + 1 < argc ? argv[i + 1]
                                                          : "";
        if (!strcmp(value, "always")) qb_colour_set(QB_COLOUR_ALWAYS);
        if (!strcmp(value, "never")) qb_colour_set(QB_COLOUR_NEVER);
    }
}

qb_status qb_command_parse(const qb_page *page, const qb_option_set *sets, size_t n_sets, int argc,
                           char **argv, const char **words, size_t max_words, size_t *n_words, bool *done) {
    *done = asks_help(argc, argv);
    *n_words = 0;
    for (size_t s = 0; s < n_sets; s++) qb_options_defaults(sets[s].rows, sets[s].target);
    if (*done) return printing.print(printing.user, page, sets, n_sets);
    qb_status st = qb_options_parse(sets, n_sets, argc, argv, words, max_words, n_words);
    if (st == QB_ERR_USAGE) qb_option_elsewhere(page, sets, n_sets, argc, argv);
    if (st != QB_OK) return st;
    const qb_common *common = sets[n_sets - 1].target;
    if (common->quiet && common->verbose)
        return qb_fail(QB_ERR_USAGE, "--quiet and --verbose exclude each other");
    qb_log_set_level(common->quiet ? QB_LOG_QUIET : common->verbose ? QB_LOG_VERBOSE : QB_LOG_NORMAL);
    return QB_OK;
}

qb_status qb_command_missing(const qb_page *page, const char *what) {
    return qb_fail(QB_ERR_USAGE, "%s is missing; try `bench %s --help`", what, page->name);
}

static int output_errno; /* of the first failed write */

static void note_failure(void) {
    if (!output_errno) output_errno = errno ? errno : EIO;
}

void qb_output(const char *fmt, ...) {
    qb_str text = {0};
    va_list args;
    va_start(args, fmt);
    qb_str_vprintf(&text, fmt, args);
    va_end(args);
    if (text.failed) {
        errno = ENOMEM;
        note_failure();
    }
    qb_output_bytes(qb_str_get(&text), text.length);
    qb_str_free(&text);
}

/* A terminal obeys control characters, which files and a model's own words may hold; a file gets the data as
 * it is. */
void qb_output_bytes(const void *bytes, size_t n) {
    static int terminal = -1;
    qb_str clean = {0};
    if (terminal < 0) terminal = isatty(STDOUT_FILENO);
    if (terminal) {
        qb_text_clean_lines(bytes, n, &clean);
        bytes = qb_str_get(&clean);
        n = clean.length;
    }
    if (fwrite(bytes, 1, n, stdout) != n) note_failure();
    qb_str_free(&clean);
}

void qb_output_painted(const char *text, size_t n, const qb_painted_word *words, bool heads) {
    qb_str clean = {0}, painted = {0};
    if (!qb_colour_wanted(STDOUT_FILENO)) {
        qb_output_bytes(text, n);
        return;
    }
    qb_text_clean_lines(text, n, &clean); /* the colours alone steer the terminal */
    qb_colour_text(qb_str_get(&clean), clean.length, words, heads, &painted);
    if (clean.failed || painted.failed ||
        fwrite(qb_str_get(&painted), 1, painted.length, stdout) != painted.length)
        note_failure();
    qb_str_free(&clean);
    qb_str_free(&painted);
}

int qb_output_columns(void) {
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || !size.ws_col) return 100;
    return size.ws_col < 40 ? 40 : size.ws_col > 120 ? 120 : size.ws_col;
}

qb_status qb_output_json(const qb_json *json) {
    char *text;
    qb_status st = qb_json_print(json, true, &text);
    if (st != QB_OK) return st;
    qb_output_bytes(text, strlen(text));
    qb_free(text);
    return QB_OK;
}

bool qb_output_broken(void) {
    if (fflush(stdout) != 0) note_failure();
    return output_errno != 0;
}

qb_status qb_output_finish(int *exit_code) {
    if (!qb_output_broken()) return QB_OK;
    if (output_errno == EPIPE) {
        *exit_code = EXIT_CLOSED_PIPE;
        return QB_OK;
    }
    return qb_fail(QB_ERR_IO, "cannot write to standard output: %s", strerror(output_errno));
}
