/* Options that may be given several times, which option rows do not know: their words are taken out of the
   command line before the rows read it. */
#pragma once

#include "base/status.h"

typedef struct qb_settings {
    const char **values; /* owned array of words that belong to argv, in their order */
    size_t n;
} qb_settings;

/* Moves the values of the options names[i] ("--set"), written "--set VALUE" or "--set=VALUE", to lists[i];
   *argv_out (owned; free with qb_free) are the other words, NULL behind the last. Words behind "--" stay.
   Free the lists with qb_settings_free in any case. */
qb_status qb_settings_take(const char *const *names, qb_settings *const *lists, size_t n_names, int argc,
                           char **argv, int *argc_out, char ***argv_out) QB_NODISCARD;
void qb_settings_free(qb_settings *s);
