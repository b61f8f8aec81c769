/* Completion scripts of shells, made of the subcommands' option rows. */
#pragma once

#include "bench/command.h"

/* Appends the script for "bash", "zsh" or "fish"; QB_ERR_USAGE for another shell. Names of methods, suites,
   data sets and so on are asked of the program when the user presses tab, so that they are those of the
   program then. */
qb_status qb_completion_script(const char *shell, qb_str *out) QB_NODISCARD;
extern const char qb_completion_shells[]; /* "bash|zsh|fish" */
