/* bench manual: the pages of --help as manual pages. */
#include "base/file.h"
#include "base/memory.h"
#include "bench/manual.h"

#include <stdio.h>

typedef struct config {
    const char *output;
} config;

static const qb_page page = {
    .name = "manual",
    .summary = "print or write manual pages in roff",
    .synopsis = "manual [COMMAND]\n"
                "manual --output DIR",
    .description =
        "Prints bench(1), or bench-COMMAND(1): the text of --help, for `man`. With --output all of\n"
        "them are written into a directory; an installed bench brings them.",
    .examples = "bench manual quantize | man -l -\n"
                "bench manual --output man1",
};

static const qb_option rows[] = {
    {"output", 'o', QB_OPTION_TEXT, offsetof(config, output), NULL, 0, 0, NULL, "DIR",
     "write every page there, bench.1 and bench-COMMAND.1; made where it is not"},
    {0},
};

static qb_status write_page(const char *dir, const qb_command *command) {
    char name[64];
    qb_str text = {0};
    snprintf(name, sizeof name, command ? "bench-%s.1" : "bench.1", command ? command->name : "");
    char *path = qb_path_join(dir, name);
    qb_status st = path ? qb_manual_page(command, &text) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK) st = qb_file_write_atomic(path, qb_str_get(&text), text.length);
    qb_str_free(&text);
    qb_free(path);
    return st;
}

static qb_status write_all(const char *dir) {
    qb_status st;
    QB_TRY(st, qb_make_dirs(dir));
    QB_TRY(st, write_page(dir, NULL));
    for (size_t i = 0; qb_command_at(i); i++) QB_TRY(st, write_page(dir, qb_command_at(i)));
out:
    return st;
}

static qb_status manual_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    config options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *word = NULL;
    const qb_command *command = NULL;
    size_t n_words;
    bool done;
    qb_str text = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 2, argc, argv, &word, 1, &n_words, &done));
    if (done) return QB_OK;
    if (common.json) return qb_fail(QB_ERR_USAGE, "a manual page has no JSON form: leave --json away");
    if (options.output && word)
        return qb_fail(QB_ERR_USAGE, "--output writes every page: leave '%s' away", word);
    if (options.output) return write_all(options.output);
    if (word) {
        command = qb_command_find(word);
        if (!command) return qb_command_unknown(word);
    }
    QB_TRY(st, qb_manual_page(command, &text));
    qb_output_bytes(qb_str_get(&text), text.length);
out:
    qb_str_free(&text);
    return st;
}

const qb_command qb_command_manual = {"manual", "print or write manual pages in roff", manual_main};
