/* bench: quantizes language models and measures what it costs. This file only finds the subcommand. */
#include "bench/command.h"

#include "base/log.h"
#include "base/lost_map.h"
#include "base/memory.h"
#include "base/text.h"
#include "bench/help/topics.h"
#include "bench/machine/machine.h"
#include "bench/measure/record.h"
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_INTERRUPTED = 130 };

static void put_lines(const char *indent, const char *text, qb_str *out) {
    while (*text) {
        size_t n = strcspn(text, "\n");
        qb_str_printf(out, "%s%.*s\n", indent, (int)n, text);
        text += n + (text[n] == '\n');
    }
}

enum { VARIABLE_COLUMN = 24, PAGE_COLUMNS = 110 };

static qb_status print_usage(void) {
    const qb_page *page = &qb_program_page;
    qb_str out = {0};
    qb_str_printf(&out, "NAME\n    bench - %s\n\nSYNOPSIS\n", page->summary);
    put_lines("    bench ", page->synopsis, &out);
    qb_str_text(&out, "\nCOMMANDS\n");
    for (size_t i = 0; qb_command_at(i); i++)
        qb_str_printf(&out, "    %-12s %s\n", qb_command_at(i)->name, qb_command_at(i)->summary);
    qb_str_text(&out, "\nTOPICS (bench help TOPIC)\n");
    for (size_t i = 0; qb_topic_at(i); i++)
        qb_str_printf(&out, "    %-12s %s\n", qb_topic_at(i)->name, qb_topic_at(i)->summary);
    qb_str_text(&out, "\nDESCRIPTION\n");
    put_lines("    ", page->description, &out);
    qb_str_text(&out, "\nENVIRONMENT\n");
    for (const qb_variable *v = qb_program_variables; v->name; v++) {
        qb_str_printf(&out, "    %-*s", VARIABLE_COLUMN - 4, v->name);
        qb_text_wrap(v->meaning, VARIABLE_COLUMN, PAGE_COLUMNS, &out);
    }
    qb_str_text(&out, "\nEXAMPLES\n");
    put_lines("    ", page->examples, &out);
    qb_str_text(&out, "\nEXIT STATUS\n");
    put_lines("    ", page->exit_status, &out);
    qb_status st = qb_str_status(&out);
    if (st == QB_OK) qb_output_painted(qb_str_get(&out), out.length, NULL, true);
    qb_str_free(&out);
    return st;
}

static qb_status print_topic(const qb_topic *topic, bool markdown) {
    qb_str text = {0};
    qb_status st = qb_topic_print(topic, markdown, qb_output_columns(), &text);
    if (st == QB_OK && markdown) qb_output_bytes(qb_str_get(&text), text.length);
    if (st == QB_OK && !markdown) qb_output_painted(qb_str_get(&text), text.length, NULL, true);
    qb_str_free(&text);
    return st;
}

static qb_status unknown_help(const char *word) {
    const char *names[64];
    char hint[QB_HINT_CHARS];
    size_t n = 0;
    for (size_t i = 0; qb_command_at(i) && n < 64; i++) names[n++] = qb_command_at(i)->name;
    for (size_t i = 0; qb_topic_at(i) && n < 64; i++) names[n++] = qb_topic_at(i)->name;
    return qb_fail(QB_ERR_USAGE, "no help for '%s': `bench --help` lists commands and topics%s", word,
                   qb_did_you_mean(word, names, n, hint));
}

/* `bench help run` reads as `bench run --help`. */
static qb_status help(int argc, char **argv, int *exit_code) {
    static char option[] = "--help";
    const qb_topic *topic = qb_topic_find(argv[2]);
    const qb_command *command = qb_command_find(argv[2]);
    if (topic && !command) {
        bool markdown = argc > 3 && !strcmp(argv[3], "markdown");
        if (argc > 3 && !markdown && strncmp(argv[3], "--color", 7) != 0)
            return qb_fail(QB_ERR_USAGE, "unexpected '%s': a topic is printed as text, or as `markdown`",
                           argv[3]);
        return print_topic(topic, markdown);
    }
    if (!command) return unknown_help(argv[2]);
    char *words[] = {argv[2], option, NULL};
    return command->run(2, words, exit_code);
}

static qb_status dispatch(int argc, char **argv, int *exit_code) {
    const char *word = argc > 1 ? argv[1] : NULL;
    if (!word) return qb_fail(QB_ERR_USAGE, "a command is missing; `bench --help` lists them");
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || (!strcmp(word, "help") && argc == 2))
        return print_usage();
    if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
        qb_output("bench %s\n", qb_program_version());
        return QB_OK;
    }
    if (!strcmp(word, "help")) return help(argc, argv, exit_code);
    const qb_command *command = qb_command_find(word);
    return command ? command->run(argc - 1, argv + 1, exit_code) : qb_command_unknown(word);
}

/* A standard stream that the caller closed would lend its number to the next file that is opened, and
 * progress would be written into a checkpoint. In its place stands what refuses every write, so that a result
 * that cannot be printed is still an error. */
static void hold_standard_streams(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
            _exit(1);
}

int main(int argc, char **argv) {
    hold_standard_streams();
    qb_keep_heap();
    qb_blas_ensure_core(argv);
    /* A reader that goes away shows as a failed write, which must not end a run of hours that also writes a
     * file. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit of file sizes fails and names its file */
    qb_lost_map_watch(NULL);
    qb_record_command(argc, argv);
    int exit_code = 0;
    qb_command_colour(argc, argv);
    qb_status st = dispatch(argc, argv, &exit_code);
    if (st == QB_OK) st = qb_output_finish(&exit_code);
    if (st == QB_OK) return exit_code;
    (void)qb_output_broken(); /* what was printed comes before the error */
    qb_log_error(*qb_error_text() ? qb_error_text() : qb_status_text(st));
    return st == QB_ERR_INTERRUPTED ? EXIT_INTERRUPTED : qb_status_exit_code(st);
}
