/* Manual pages in roff (man(7)), made of the same pages and option rows as --help. */
#pragma once

#include "bench/command.h"

/* Appends bench-NAME(1) of a subcommand, or bench(1) where it is NULL. */
qb_status qb_manual_page(const qb_command *command, qb_str *out) QB_NODISCARD;
