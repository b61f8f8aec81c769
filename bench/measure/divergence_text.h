/* A kl_divergence row as the text of `bench eval --base`. */
#pragma once

#include "results/rows.h"

void qb_divergence_print(const qb_row *row); /* to standard output */
