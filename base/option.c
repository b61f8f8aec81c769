#include "base/option.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_CHARS = 64, NAMES_MAX = 160, HELP_COLUMN = 28, HELP_WIDTH = 100 };

static void *field(const qb_option *row, void *target) {
    return (char *)target + row->offset;
}
static const void *const_field(const qb_option *row, const void *target) {
    return (const char *)target + row->offset;
}

static void with_dashes(const char *name, char out[NAME_MAX_CHARS], char from, char to) {
    size_t i = 0;
    for (; name[i] && i + 1 < NAME_MAX_CHARS; i++) out[i] = name[i] == from ? to : name[i];
    out[i] = 0;
}

static qb_status bad_value(const qb_option *row, const char *text, const char *expected) {
    return qb_fail(QB_ERR_USAGE, "--%s takes %s, found '%s'", row->name, expected, text);
}

static bool bounded(const qb_option *row) {
    return row->min != 0 || row->max != 0;
}

static qb_status check_range(const qb_option *row, double v) {
    if (bounded(row) && !(v >= row->min && v <= row->max))
        return qb_fail(QB_ERR_USAGE, "--%s must lie between %.15g and %.15g, found %.15g", row->name,
                       row->min, row->max, v);
    return QB_OK;
}

static qb_status parse_int(const qb_option *row, const char *text, int64_t *out) {
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno) return bad_value(row, text, "a whole number");
    *out = v;
    return check_range(row, (double)v);
}

static bool choice_known(const char *choices, const char *text) {
    size_t n = strlen(text);
    for (const char *p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL) {
        size_t length = strcspn(p, "|");
        if (length == n && !strncmp(p, text, n)) return true;
    }
    return false;
}

static qb_status set_text(const qb_option *row, void *target, const char *text) {
    void *f = field(row, target);
    switch (row->type) {
    case QB_OPTION_BOOL:
        if (!strcmp(text, "true") || !strcmp(text, "1") || !strcmp(text, "yes"))
            *(bool *)f = true;
        else if (!strcmp(text, "false") || !strcmp(text, "0") || !strcmp(text, "no"))
            *(bool *)f = false;
        else
            return bad_value(row, text, "true or false");
        return QB_OK;
    case QB_OPTION_INT:
        return parse_int(row, text, f);
    case QB_OPTION_REAL: {
        char *end;
        double v = strtod(text, &end);
        if (end == text || *end || !isfinite(v)) return bad_value(row, text, "a number");
        *(double *)f = v;
        return check_range(row, v);
    }
    case QB_OPTION_TEXT:
        *(const char **)f = text;
        return QB_OK;
    case QB_OPTION_CHOICE:
        if (!choice_known(row->choices, text))
            return qb_fail(QB_ERR_USAGE, "--%s takes one of %s, found '%s'", row->name, row->choices, text);
        *(const char **)f = text;
        return QB_OK;
    case QB_OPTION_INT_LIST: {
        qb_int_list list = {0};
        for (const char *p = text; *p;) {
            char item[32];
            size_t n = strcspn(p, ",");
            if (n == 0 || n >= sizeof item) return bad_value(row, text, "whole numbers separated by commas");
            if (list.n == QB_INT_LIST_MAX)
                return qb_fail(QB_ERR_USAGE, "--%s takes at most %d numbers", row->name, QB_INT_LIST_MAX);
            memcpy(item, p, n);
            item[n] = 0;
            qb_status st = parse_int(row, item, &list.values[list.n++]);
            if (st != QB_OK) return st;
            p += n + (p[n] == ',');
        }
        *(qb_int_list *)f = list;
        return QB_OK;
    }
    }
    return qb_fail(QB_ERR_INTERNAL, "option --%s has an unknown type", row->name);
}

static void clear_field(const qb_option *row, void *target) {
    void *f = field(row, target);
    switch (row->type) {
    case QB_OPTION_BOOL:
        *(bool *)f = false;
        break;
    case QB_OPTION_INT:
        *(int64_t *)f = 0;
        break;
    case QB_OPTION_REAL:
        *(double *)f = 0;
        break;
    case QB_OPTION_TEXT:
    case QB_OPTION_CHOICE:
        *(const char **)f = NULL;
        break;
    case QB_OPTION_INT_LIST:
        *(qb_int_list *)f = (qb_int_list){0};
        break;
    }
}

void qb_options_defaults(const qb_option *rows, void *target) {
    for (const qb_option *row = rows; row->name; row++) {
        clear_field(row, target);
        /* A default outside its own range is our bug; a test walks every table. */
        if (row->initial && set_text(row, target, row->initial) != QB_OK) clear_field(row, target);
    }
}

static const qb_option *find(const qb_option_set *sets, size_t n_sets, const char *name, void **target) {
    char dashed[NAME_MAX_CHARS];
    with_dashes(name, dashed, '_', '-');
    for (size_t s = 0; s < n_sets; s++)
        for (const qb_option *row = sets[s].rows; row->name; row++)
            if (!strcmp(row->name, dashed)) {
                *target = sets[s].target;
                return row;
            }
    return NULL;
}

static qb_status unknown(const qb_option_set *sets, size_t n_sets, const char *where, const char *prefix,
                         const char *name) {
    const char *names[NAMES_MAX];
    size_t n = 0;
    for (size_t s = 0; s < n_sets; s++)
        for (const qb_option *row = sets[s].rows; row->name && n < NAMES_MAX; row++) names[n++] = row->name;
    char dashed[NAME_MAX_CHARS];
    with_dashes(name, dashed, '_', '-');
    const char *near = qb_nearest(dashed, names, n);
    char shown[NAME_MAX_CHARS], hint[QB_HINT_CHARS];
    if (near) with_dashes(near, shown, '-', *prefix ? '-' : '_');
    return qb_fail(QB_ERR_USAGE, "%sunknown %s %s%s%s", where, *prefix ? "option" : "key", prefix, name,
                   qb_hint(prefix, near ? shown : NULL, hint));
}

/* Of an object in a file, which has no --help: with no key near, those that it may hold. */
static qb_status unknown_key(const qb_option *rows, const char *where, const char *key,
                             const char *const *ignore) {
    qb_option_set set = {"", rows, NULL};
    qb_str known = {0};
    char shown[NAME_MAX_CHARS];
    qb_status st = unknown(&set, 1, where, "", key);
    if (strstr(qb_error_text(), "; did you mean")) return st;
    for (const char *const *name = ignore; name && *name; name++)
        qb_str_printf(&known, "%s%s", known.length ? ", " : "", *name);
    for (const qb_option *row = rows; row->name; row++) {
        with_dashes(row->name, shown, '-', '_');
        qb_str_printf(&known, "%s%s", known.length ? ", " : "", shown);
    }
    st = qb_fail(QB_ERR_USAGE, "%sunknown key %s; known here: %s", where, key, qb_str_get(&known));
    qb_str_free(&known);
    return st;
}

qb_status qb_options_set(const qb_option_set *sets, size_t n_sets, const char *name, const char *text) {
    void *target;
    const qb_option *row = find(sets, n_sets, name, &target);
    return row ? set_text(row, target, text) : unknown(sets, n_sets, "", "", name);
}

static qb_status parse_long(const qb_option_set *sets, size_t n_sets, char **argv, int argc, int *i) {
    const char *word = argv[*i] + 2;
    char name[NAME_MAX_CHARS];
    size_t n = strcspn(word, "=");
    if (n >= sizeof name) return qb_fail(QB_ERR_USAGE, "unknown option --%s", word);
    memcpy(name, word, n);
    name[n] = 0;
    const char *value = word[n] == '=' ? word + n + 1 : NULL;
    void *target;
    const qb_option *row = find(sets, n_sets, name, &target);
    if (!row && !strncmp(name, "no-", 3)) {
        row = find(sets, n_sets, name + 3, &target);
        if (row && row->type == QB_OPTION_BOOL && !value) return set_text(row, target, "false");
        row = NULL;
    }
    if (!row) return unknown(sets, n_sets, "", "--", name);
    if (row->type == QB_OPTION_BOOL) return set_text(row, target, value ? value : "true");
    if (!value) {
        if (*i + 1 >= argc)
            return qb_fail(QB_ERR_USAGE, "--%s needs a value (%s)", name, row->unit ? row->unit : "value");
        value = argv[++*i];
    }
    return set_text(row, target, value);
}

static qb_status parse_short(const qb_option_set *sets, size_t n_sets, char **argv, int argc, int *i) {
    const char *word = argv[*i];
    for (size_t s = 0; s < n_sets; s++)
        for (const qb_option *row = sets[s].rows; row->name; row++) {
            if (row->letter != word[1]) continue;
            if (row->type == QB_OPTION_BOOL && !word[2]) return set_text(row, sets[s].target, "true");
            if (word[2]) return set_text(row, sets[s].target, word + 2);
            if (*i + 1 >= argc) return qb_fail(QB_ERR_USAGE, "-%c needs a value", word[1]);
            return set_text(row, sets[s].target, argv[++*i]);
        }
    return qb_fail(QB_ERR_USAGE, "unknown option %s; --help lists them", word);
}

qb_status qb_options_parse(const qb_option_set *sets, size_t n_sets, int argc, char **argv,
                           const char **words, size_t max_words, size_t *n_words) {
    *n_words = 0;
    bool options_ended = false;
    for (int i = 1; i < argc; i++) {
        qb_status st = QB_OK;
        const char *word = argv[i];
        bool number = word[0] == '-' && isdigit((unsigned char)word[1]);
        if (!options_ended && !strcmp(word, "--"))
            options_ended = true;
        else if (!options_ended && !strncmp(word, "--", 2))
            st = parse_long(sets, n_sets, argv, argc, &i);
        else if (!options_ended && word[0] == '-' && word[1] && !number)
            st = parse_short(sets, n_sets, argv, argc, &i);
        else if (*n_words == max_words)
            st = qb_fail(QB_ERR_USAGE, "unexpected argument '%s'", word);
        else
            words[(*n_words)++] = word;
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

static qb_status wrong_json(const char *where, const char *key, const char *expected) {
    return qb_fail(QB_ERR_USAGE, "%s: \"%s\" must be %s", where, key, expected);
}

static qb_status from_json(const qb_option *row, void *target, const qb_json *j, const char *where) {
    const char *key = qb_json_key(j);
    void *f = field(row, target);
    switch (row->type) {
    case QB_OPTION_BOOL: {
        const char *expected = "true or false";
        if (qb_json_is_null(j) || qb_json_is_number(j) || qb_json_is_string(j) || qb_json_is_array(j) ||
            qb_json_is_object(j))
            return wrong_json(where, key, expected);
        *(bool *)f = qb_json_true(j);
        return QB_OK;
    }
    case QB_OPTION_INT:
    case QB_OPTION_REAL: {
        if (!qb_json_is_number(j)) return wrong_json(where, key, "a number");
        double v = qb_json_number(j);
        if (row->type == QB_OPTION_INT && (v != floor(v) || fabs(v) > 9007199254740992.0))
            return wrong_json(where, key, "a whole number");
        qb_status st = check_range(row, v);
        if (st != QB_OK) return qb_fail_prefix(st, "%s", where);
        if (row->type == QB_OPTION_INT)
            *(int64_t *)f = (int64_t)v;
        else
            *(double *)f = v;
        return QB_OK;
    }
    case QB_OPTION_TEXT:
    case QB_OPTION_CHOICE: {
        if (!qb_json_is_string(j)) return wrong_json(where, key, "a string");
        qb_status st = set_text(row, target, qb_json_string(j));
        return st == QB_OK ? st : qb_fail_prefix(st, "%s", where);
    }
    case QB_OPTION_INT_LIST: {
        if (!qb_json_is_array(j)) return wrong_json(where, key, "an array of whole numbers");
        qb_int_list list = {0};
        for (const qb_json *item = qb_json_first(j); item; item = qb_json_next(item)) {
            double v = qb_json_number(item);
            if (!qb_json_is_number(item) || v != floor(v))
                return wrong_json(where, key, "an array of whole numbers");
            if (list.n == QB_INT_LIST_MAX)
                return wrong_json(where, key, "a shorter array (16 items at most)");
            qb_status st = check_range(row, v);
            if (st != QB_OK) return qb_fail_prefix(st, "%s", where);
            list.values[list.n++] = (int64_t)v;
        }
        *(qb_int_list *)f = list;
        return QB_OK;
    }
    }
    return qb_fail(QB_ERR_INTERNAL, "option --%s has an unknown type", row->name);
}

qb_status qb_options_from_json(const qb_option *rows, void *target, const qb_json *object, const char *where,
                               const char *const *ignore) {
    if (!qb_json_is_object(object)) return qb_fail(QB_ERR_USAGE, "%s: expected an object", where);
    qb_option_set set = {"", rows, target};
    for (const qb_json *j = qb_json_first(object); j; j = qb_json_next(j)) {
        const char *key = qb_json_key(j);
        bool skip = false;
        for (const char *const *name = ignore; name && *name; name++) skip = skip || !strcmp(*name, key);
        if (skip) continue;
        void *unused;
        const qb_option *row = find(&set, 1, key, &unused);
        char prefix[256];
        snprintf(prefix, sizeof prefix, "%s: ", where);
        if (!row || strchr(key, '-')) return unknown_key(rows, prefix, key, ignore);
        qb_status st = from_json(row, target, j, where);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

void qb_options_to_json(const qb_option *rows, const void *target, qb_json *object) {
    for (const qb_option *row = rows; row->name; row++) {
        char key[NAME_MAX_CHARS];
        with_dashes(row->name, key, '-', '_');
        const void *f = const_field(row, target);
        switch (row->type) {
        case QB_OPTION_BOOL:
            qb_json_put_bool(object, key, *(const bool *)f);
            break;
        case QB_OPTION_INT:
            qb_json_put_int(object, key, *(const int64_t *)f);
            break;
        case QB_OPTION_REAL:
            qb_json_put_real(object, key, *(const double *)f);
            break;
        case QB_OPTION_TEXT:
        case QB_OPTION_CHOICE:
            qb_json_put_text(object, key, *(const char *const *)f);
            break;
        case QB_OPTION_INT_LIST: {
            const qb_int_list *list = f;
            qb_json *array = qb_json_array();
            for (int i = 0; i < list->n; i++) qb_json_push_int(array, list->values[i]);
            qb_json_put(object, key, array);
            break;
        }
        }
    }
}

void qb_option_print(const qb_option *row, const void *target, qb_str *out) {
    const void *f = const_field(row, target);
    switch (row->type) {
    case QB_OPTION_BOOL:
        qb_str_text(out, *(const bool *)f ? "true" : "false");
        break;
    case QB_OPTION_INT:
        qb_str_printf(out, "%" PRId64, *(const int64_t *)f);
        break;
    case QB_OPTION_REAL:
        qb_str_printf(out, "%.15g", *(const double *)f);
        break;
    case QB_OPTION_TEXT:
    case QB_OPTION_CHOICE: {
        const char *text = *(const char *const *)f;
        qb_str_text(out, text ? text : "");
        break;
    }
    case QB_OPTION_INT_LIST: {
        const qb_int_list *list = f;
        for (int i = 0; i < list->n; i++) qb_str_printf(out, i ? ",%" PRId64 : "%" PRId64, list->values[i]);
        break;
    }
    }
}

/* Appends `text` wrapped at HELP_WIDTH, continuation lines indented to HELP_COLUMN. */
static void wrapped(qb_str *out, const char *text) {
    int column = HELP_COLUMN;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + (int)n > HELP_WIDTH) {
            qb_str_printf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (column > HELP_COLUMN) {
            qb_str_text(out, " ");
            column++;
        }
        qb_str_append(out, text, n);
        column += (int)n;
        text += n + (text[n] == ' ');
    }
    qb_str_text(out, "\n");
}

void qb_option_describe(const qb_option *row, qb_str *out) {
    qb_str_text(out, row->help);
    if (row->choices) qb_str_printf(out, "; one of %s", row->choices);
    if (bounded(row) && row->max >= 1e15)
        qb_str_printf(out, " (at least %.15g)", row->min);
    else if (bounded(row))
        qb_str_printf(out, " (%.15g to %.15g)", row->min, row->max);
    if (row->initial && row->type == QB_OPTION_BOOL && !strcmp(row->initial, "true"))
        qb_str_printf(out, " [on; --no-%s turns it off]", row->name);
    else if (row->initial && row->type != QB_OPTION_BOOL)
        qb_str_printf(out, " [default: %s]", row->initial);
}

void qb_options_help(const qb_option_set *sets, size_t n_sets, qb_str *out) {
    for (size_t s = 0; s < n_sets; s++) {
        qb_str_printf(out, "\n%s:\n", sets[s].title);
        for (const qb_option *row = sets[s].rows; row->name; row++) {
            qb_str head = {0}, body = {0};
            if (row->letter)
                qb_str_printf(&head, "  -%c, --%s", row->letter, row->name);
            else
                qb_str_printf(&head, "  --%s", row->name);
            if (row->type != QB_OPTION_BOOL) qb_str_printf(&head, " %s", row->unit ? row->unit : "VALUE");
            qb_option_describe(row, &body);
            if (head.length + 2 > HELP_COLUMN)
                qb_str_printf(out, "%s\n%*s", qb_str_get(&head), HELP_COLUMN, "");
            else
                qb_str_printf(out, "%-*s", HELP_COLUMN, qb_str_get(&head));
            wrapped(out, qb_str_get(&body));
            qb_str_free(&head);
            qb_str_free(&body);
        }
    }
}
