/* bench: quantizes language models and measures what it costs. This file only finds the subcommand. */
#include "bench/command.h"

#include "base/log.h"
#include "base/lost_map.h"
#include "bench/machine/machine.h"
#include "bench/measure/record.h"
#include "bench/suite/suite.h"
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_INTERRUPTED = 130 };

static void print_lines(const char *indent, const char *text) {
    while (*text) {
        size_t n = strcspn(text, "\n");
        qb_output("%s%.*s\n", indent, (int)n, text);
        text += n + (text[n] == '\n');
    }
}

static void print_usage(void) {
    const qb_page *page = &qb_program_page;
    qb_output("NAME\n    bench - %s\n\nSYNOPSIS\n", page->summary);
    print_lines("    bench ", page->synopsis);
    qb_output("\nCOMMANDS\n");
    for (size_t i = 0; qb_command_at(i); i++)
        qb_output("    %-10s %s\n", qb_command_at(i)->name, qb_command_at(i)->summary);
    qb_output("\nDESCRIPTION\n");
    print_lines("    ", page->description);
    qb_output("\nENVIRONMENT\n");
    for (const qb_variable *v = qb_program_variables; v->name; v++)
        qb_output("    %-17s  %s\n", v->name, v->meaning);
    qb_output("\nEXAMPLES\n");
    print_lines("    ", page->examples);
    qb_output("\nEXIT STATUS\n");
    print_lines("    ", page->exit_status);
}

static qb_status print_suite_help(bool markdown) {
    qb_str text = {0};
    qb_status st = qb_suite_help(markdown, &text);
    if (st == QB_OK) qb_output_bytes(qb_str_get(&text), text.length);
    qb_str_free(&text);
    return st;
}

static qb_status dispatch(int argc, char **argv, int *exit_code) {
    const char *word = argc > 1 ? argv[1] : NULL;
    if (!word) return qb_fail(QB_ERR_USAGE, "a command is missing; `bench --help` lists them");
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || (!strcmp(word, "help") && argc == 2)) {
        print_usage();
        return QB_OK;
    }
    if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
        qb_output("bench %s\n", qb_program_version());
        return QB_OK;
    }
    if (!strcmp(word, "help")) { /* `bench help run` reads as `bench run --help` */
        static char help[] = "--help";
        if (!strcmp(argv[2], "suite")) return print_suite_help(argc > 3 && !strcmp(argv[3], "markdown"));
        const qb_command *asked = qb_command_find(argv[2]);
        if (!asked) return qb_command_unknown(argv[2]);
        char *words[] = {argv[2], help, NULL};
        return asked->run(2, words, exit_code);
    }
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
    qb_blas_ensure_core(argv);
    /* A reader that goes away shows as a failed write, which must not end a run of hours that also writes a
     * file. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit of file sizes fails and names its file */
    qb_lost_map_watch(NULL);
    qb_record_command(argc, argv);
    int exit_code = 0;
    qb_status st = dispatch(argc, argv, &exit_code);
    if (st == QB_OK) st = qb_output_finish(&exit_code);
    if (st == QB_OK) return exit_code;
    (void)qb_output_broken(); /* what was printed comes before the error */
    qb_log_error(*qb_error_text() ? qb_error_text() : qb_status_text(st));
    return st == QB_ERR_INTERRUPTED ? EXIT_INTERRUPTED : qb_status_exit_code(st);
}
