/* What other programs call options and keys of ours. */
#pragma once

#include <stddef.h>

/* The nth name here, with dashes, of what others call `theirs` (dashes or underscores); NULL behind the last.
   A word may mean one option in one command and another in the next. */
const char *qb_foreign_name(const char *theirs, size_t nth);
