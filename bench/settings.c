#include "bench/settings.h"

#include "base/memory.h"

#include <stdbool.h>
#include <string.h>

/* Whether argv[*i] is the option `name`; then *value is its value, *i the last word that was used, and *value
   NULL where no word is left. */
static bool value_of(const char *name, int argc, char **argv, int *i, const char **value) {
    size_t n = strlen(name);
    *value = NULL;
    if (strncmp(argv[*i], name, n) != 0 || (argv[*i][n] && argv[*i][n] != '=')) return false;
    if (argv[*i][n] == '=')
        *value = argv[*i] + n + 1;
    else if (*i + 1 < argc)
        *value = argv[++*i];
    return true;
}

qb_status qb_settings_take(const char *const *names, qb_settings *const *lists, size_t n_names, int argc,
                           char **argv, int *argc_out, char ***argv_out) {
    bool open = true;
    qb_status st;
    *argv_out = NULL;
    *argc_out = 0;
    for (size_t k = 0; k < n_names; k++) *lists[k] = (qb_settings){0};
    QB_TRY(st, qb_alloc((size_t)argc + 1, sizeof **argv_out, argv_out));
    for (size_t k = 0; k < n_names; k++)
        QB_TRY(st, qb_alloc((size_t)argc + 1, sizeof(char *), &lists[k]->values));
    for (int i = 0; i < argc; i++) {
        const char *value = NULL;
        size_t k = 0;
        open = open && strcmp(argv[i], "--") != 0;
        while (k < n_names && !(open && value_of(names[k], argc, argv, &i, &value))) k++;
        if (k == n_names)
            (*argv_out)[(*argc_out)++] = argv[i];
        else if (value)
            lists[k]->values[lists[k]->n++] = value;
        else
            QB_TRY(st, qb_fail(QB_ERR_USAGE, "%s needs a value (KEY=VALUE)", names[k]));
    }
    (*argv_out)[*argc_out] = NULL;
out:
    return st;
}

void qb_settings_free(qb_settings *s) {
    qb_free(s->values);
    *s = (qb_settings){0};
}
