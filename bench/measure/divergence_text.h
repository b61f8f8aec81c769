/* A kl_divergence row as the text of `bench eval --base`. */
#pragma once

#include "base/json.h"

void qb_divergence_print(const qb_json *row); /* to standard output */
