#include "bench/help/elsewhere.h"

#include "base/memory.h"
#include "bench/suite/foreign.h"
#include "bench/suite/keys.h"
#include "bench/suite/variant.h"

#include <stdio.h>
#include <string.h>

enum { NAME_MAX_CHARS = 64, COMMANDS_SHOWN = 3 };

static bool has(const qb_option_set *sets, size_t n_sets, const char *name) {
    for (size_t s = 0; s < n_sets; s++)
        for (const qb_option *row = sets[s].rows; row->name; row++)
            if (!strcmp(row->name, name)) return true;
    return false;
}

/* The first "--NAME" that the command lacks, with dashes; false when there is none. */
static bool find_word(const qb_option_set *sets, size_t n_sets, int argc, char **argv,
                      char name[NAME_MAX_CHARS]) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "--", 2) != 0) continue;
        size_t n = strcspn(argv[i] + 2, "=");
        if (n >= NAME_MAX_CHARS) continue;
        snprintf(name, NAME_MAX_CHARS, "%.*s", (int)n, argv[i] + 2);
        for (char *p = name; *p; p++)
            if (*p == '_') *p = '-';
        if (!has(sets, n_sets, !strncmp(name, "no-", 3) ? name + 3 : name) && !has(sets, n_sets, name))
            return true;
    }
    return false;
}

/* What the command itself calls it; NULL when that is no other name for an option of its. */
static const char *own_name(const qb_option_set *sets, size_t n_sets, const char *name) {
    const char *ours;
    for (size_t i = 0; (ours = qb_foreign_name(name, i)) != NULL; i++)
        if (has(sets, n_sets, ours)) return ours;
    return NULL;
}

static void add_word(const char *word, int nth, qb_str *out) {
    qb_str_printf(out, "%s%s", nth ? ", " : "", word);
}

/* "--bits belongs to the methods rtn, gptq", where the command takes --method. */
static bool of_methods(const qb_option_set *sets, size_t n_sets, const char *name, qb_str *out) {
    qb_str words = {0};
    int n = 0;
    for (size_t i = 0; has(sets, n_sets, "method") && qb_quant_method_at(i); i++) {
        const qb_quant_method *m = qb_quant_method_at(i);
        for (const qb_option *row = m->options; row->name; row++)
            if (!strcmp(row->name, name)) add_word(m->name, n++, &words);
    }
    if (n) qb_str_printf(out, "--%s belongs to the method%s %s", name, n == 1 ? "" : "s", qb_str_get(&words));
    out->failed |= words.failed;
    qb_str_free(&words);
    return n > 0;
}

/* "--set max_windows=VALUE", where the command takes settings of a suite. */
static bool of_suite(const qb_option_set *sets, size_t n_sets, const char *name, qb_str *out) {
    char key[48], shown[QB_SUITE_KEYS_MAX][48];
    const char *names[QB_SUITE_KEYS_MAX];
    bool found = qb_option_has(qb_speed_options, qb_option_key(name, key));
    if (!has(sets, n_sets, "set")) return false;
    for (size_t i = 0, n = qb_suite_key_names(shown, names); i < n; i++) found |= !strcmp(names[i], key);
    for (size_t i = 0; qb_quant_method_at(i); i++)
        found |= qb_option_has(qb_quant_method_at(i)->options, key);
    if (found) qb_str_printf(out, "a suite has it: --set %s=VALUE", key);
    return found;
}

typedef struct {
    const char *name;
    bool found;
} question;

static qb_status look(void *user, const qb_page *page, const qb_option_set *sets, size_t n_sets) {
    question *q = user;
    (void)page;
    q->found = has(sets, n_sets, q->name);
    return QB_OK;
}

/* "bench eval has it". */
static bool of_commands(const qb_page *page, const char *name, qb_str *out) {
    int n = 0;
    for (size_t i = 0; qb_command_at(i) && n < COMMANDS_SHOWN; i++) {
        question q = {name, false};
        if (!strcmp(qb_command_at(i)->name, page->name) ||
            qb_command_describe(qb_command_at(i), look, &q) != QB_OK || !q.found)
            continue;
        qb_str_printf(out, "%sbench %s", n++ ? ", " : "", qb_command_at(i)->name);
    }
    if (n) qb_str_printf(out, " ha%s --%s", n == 1 ? "s" : "ve", name);
    return n > 0;
}

void qb_option_elsewhere(const qb_page *page, const qb_option_set *sets, size_t n_sets, int argc,
                         char **argv) {
    static const char head[] = "unknown option --";
    char name[NAME_MAX_CHARS];
    qb_str hint = {0};
    if (strncmp(qb_error_text(), head, sizeof head - 1) != 0) return;
    if (!find_word(sets, n_sets, argc, argv, name)) return;
    const char *own = own_name(sets, n_sets, name), *foreign = qb_foreign_name(name, 0);
    char *error = qb_strdup(qb_error_text());
    char *end = error ? strstr(error, "; did you mean") : NULL;
    if (own)
        qb_str_printf(&hint, "here it is --%s", own);
    else if (!of_methods(sets, n_sets, name, &hint) && !of_suite(sets, n_sets, name, &hint) &&
             !of_commands(page, name, &hint) && foreign && !of_methods(sets, n_sets, foreign, &hint) &&
             !of_suite(sets, n_sets, foreign, &hint))
        (void)of_commands(page, foreign, &hint);
    if (hint.length && end) *end = 0; /* a name that means something elsewhere is no slip */
    if (error && hint.length) (void)!qb_fail(QB_ERR_USAGE, "%s; %s", error, qb_str_get(&hint));
    qb_free(error);
    qb_str_free(&hint);
}
