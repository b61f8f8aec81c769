/* bench completion: what a shell completes. */
#include "bench/completion.h"

static const qb_page page = {
    .name = "completion",
    .summary = "print the completion script of a shell",
    .synopsis = "completion bash|zsh|fish",
    .description =
        "Commands, options and their values are completed; names of methods, suites, data sets and\n"
        "so on are asked of the program at the time. An installed bench brings the three scripts\n"
        "where the shells look for them.",
    .examples = "source <(bench completion bash)\n"
                "bench completion zsh > ~/.zfunc/_bench\n"
                "bench completion fish > ~/.config/fish/completions/bench.fish",
    .words = "bash|zsh|fish",
};

static qb_status completion_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", qb_common_options, &common}};
    const char *shell = NULL;
    size_t n_words;
    bool done;
    qb_str out = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 1, argc, argv, &shell, 1, &n_words, &done));
    if (done) return QB_OK;
    if (!shell) return qb_command_missing(&page, "the shell's name");
    if (common.json) return qb_fail(QB_ERR_USAGE, "a script has no JSON form: leave --json away");
    QB_TRY(st, qb_completion_script(shell, &out));
    qb_output_bytes(qb_str_get(&out), out.length);
out:
    qb_str_free(&out);
    return st;
}

const qb_command qb_command_completion = {"completion", "print the completion script of a shell",
                                          completion_main};
