/* An option that a command lacks: where it is to be found. */
#pragma once

#include "bench/command.h"

/* Called when the words of a command line were refused: if the reason is an option that the command lacks and
   that is near none of its own, the error says under which name, with which method, as which key of the suite
   or in which command it is. Nothing is offered that the command would refuse. */
void qb_option_elsewhere(const qb_page *page, const qb_option_set *sets, size_t n_sets, int argc,
                         char **argv);
