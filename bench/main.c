/* bench: quantizes language models and measures what it costs. This file only finds the subcommand. */
#include "bench/command.h"

#include "base/log.h"
#include "base/lost_map.h"
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

static void print_usage(void) {
    qb_output(
        "NAME\n    bench - quantize language models and measure perplexity, speed and memory\n\n"
        "SYNOPSIS\n    bench COMMAND [options]\n    bench COMMAND --help\n    bench --version\n\nCOMMANDS\n");
    for (size_t i = 0; qb_command_at(i); i++)
        qb_output("    %-10s %s\n", qb_command_at(i)->name, qb_command_at(i)->summary);
    qb_output("\nDESCRIPTION\n"
              "    MODEL is a Hugging Face directory, quantized or not; a GGUF file; \"demo\", the little "
              "model that\n"
              "    comes with the program; a known name or hub id in the local hub cache (`bench list "
              "models`); or\n"
              "    synthetic:NAME, random weights of that model's shapes. Data goes to standard output,\n"
              "    progress and warnings to standard error.\n\n"
              "ENVIRONMENT\n"
              "    BENCH_DATA    where dataset files are looked for besides --data DIR\n"
              "    BENCH_CACHE   quantized checkpoints and data; else $XDG_CACHE_HOME/quantbench or "
              "~/.cache/quantbench\n"
              "    BENCH_MAX_TEXT_GB  the most that a dataset file may take, decompressed (8 GB)\n"
              "    BENCH_SHARE   suites, plot scripts and the demo model, when not beside the program\n\n"
              "EXAMPLES\n"
              "    bench run --suite demo -o demo.json --plots plots\n"
              "    bench quantize ./Llama-2-7b-hf --method gptq --bits 4 --group-size 128 -o ./llama2-7b-w4\n"
              "    bench eval ./llama2-7b-w4 --dataset wikitext2 --protocol gptq-2048\n\n"
              "EXIT STATUS\n    0 success, 1 failure, 2 usage error, 130 interrupted\n");
}

static qb_status unknown_command(const char *word) {
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

static qb_status dispatch(int argc, char **argv, int *exit_code) {
    const char *word = argc > 1 ? argv[1] : NULL;
    if (!word) return qb_fail(QB_ERR_USAGE, "a command is missing; `bench --help` lists them");
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || (!strcmp(word, "help") && argc == 2)) {
        print_usage();
        return QB_OK;
    }
    if (!strcmp(word, "--version")) {
        qb_output("bench %s\n", qb_program_version());
        return QB_OK;
    }
    if (!strcmp(word, "help")) { /* `bench help run` reads as `bench run --help` */
        static char help[] = "--help";
        const qb_command *asked = qb_command_find(argv[2]);
        if (!asked) return unknown_command(argv[2]);
        char *words[] = {argv[2], help, NULL};
        return asked->run(2, words, exit_code);
    }
    const qb_command *command = qb_command_find(word);
    return command ? command->run(argc - 1, argv + 1, exit_code) : unknown_command(word);
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
