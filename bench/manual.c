#include "bench/manual.h"

#include "bench/help/topics.h"
#include "bench/machine/machine.h"

#include <ctype.h>
#include <string.h>

/* Text that roff takes as it is: its escapes are spelled out, and so are the signs that it would print as
 * others. */
static void plain(qb_str *out, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        bool starts = i == 0 || text[i - 1] == '\n';
        if (text[i] == '\\')
            qb_str_text(out, "\\(rs");
        else if (text[i] == '-')
            qb_str_text(out, "\\-");
        else if (text[i] == '\'')
            qb_str_text(out, "\\(aq");
        else if (text[i] == '`')
            qb_str_text(out, "\\(ga");
        else if (text[i] == '.' && starts)
            qb_str_text(out, "\\&.");
        else
            qb_str_append(out, text + i, 1);
    }
}

static void upper(qb_str *out, const char *text) {
    for (; *text; text++) {
        char c = (char)toupper((unsigned char)*text);
        qb_str_append(out, &c, 1);
    }
}

static void as_it_stands(qb_str *out, const char *text) {
    qb_str_text(out, ".nf\n");
    plain(out, text, strlen(text));
    qb_str_text(out, "\n.fi\n");
}

/* Paragraphs are filled; one with an indented line is a table and stays as it is. */
static void paragraphs(qb_str *out, const char *text) {
    for (bool first = true; *text; first = false) {
        const char *end = strstr(text, "\n\n");
        size_t n = end ? (size_t)(end - text) : strlen(text);
        bool table = *text == ' ';
        for (size_t i = 0; i + 1 < n; i++) table = table || (text[i] == '\n' && text[i + 1] == ' ');
        qb_str_printf(out, "%s%s", first ? "" : ".PP\n", table ? ".nf\n" : "");
        plain(out, text, n);
        qb_str_text(out, table ? "\n.fi\n" : "\n");
        text += n;
        while (*text == '\n') text++;
    }
}

static void synopsis(qb_str *out, const char *text) {
    for (bool first = true; *text; first = false) {
        size_t n = strcspn(text, "\n");
        qb_str_printf(out, "%s.B bench\n", first ? "" : ".br\n");
        plain(out, text, n);
        qb_str_text(out, "\n");
        text += n + (text[n] == '\n');
    }
}

static void head(qb_str *out, const char *name, const char *summary) {
    qb_str_text(out, ".TH \"");
    upper(out, name);
    qb_str_printf(out, "\" \"1\" \"\" \"bench %s\" \"QuantBench\"\n.SH NAME\n", QB_VERSION);
    plain(out, name, strlen(name));
    qb_str_text(out, " \\- ");
    plain(out, summary, strlen(summary));
    qb_str_text(out, "\n");
}

static void options(qb_str *out, const qb_option_set *set) {
    qb_str_text(out, ".SH ");
    plain(out, set->title, strlen(set->title));
    qb_str_text(out, "\n");
    for (const qb_option *row = set->rows; row->name; row++) {
        qb_str said = {0};
        qb_str_text(out, ".TP\n");
        if (row->letter) qb_str_printf(out, "\\fB\\-%c\\fR, ", row->letter);
        qb_str_text(out, "\\fB\\-\\-");
        plain(out, row->name, strlen(row->name));
        qb_str_text(out, "\\fR");
        if (row->type != QB_OPTION_BOOL) qb_str_printf(out, " \\fI%s\\fR", row->unit ? row->unit : "VALUE");
        qb_str_text(out, "\n");
        qb_option_describe(row, &said);
        plain(out, qb_str_get(&said), said.length);
        qb_str_text(out, "\n");
        if (said.failed) out->failed = true;
        qb_str_free(&said);
    }
}

static qb_status print(void *user, const qb_page *page, const qb_option_set *sets, size_t n_sets) {
    qb_str *out = user, name = {0};
    qb_str_printf(&name, "bench-%s", page->name);
    head(out, qb_str_get(&name), page->summary);
    qb_str_free(&name);
    qb_str_text(out, ".SH SYNOPSIS\n");
    synopsis(out, page->synopsis);
    qb_str_text(out, ".SH DESCRIPTION\n");
    paragraphs(out, page->description);
    for (size_t s = 0; s < n_sets; s++) options(out, &sets[s]);
    qb_str_text(out, ".SH EXAMPLES\n");
    as_it_stands(out, page->examples);
    qb_str_text(out, ".SH EXIT STATUS\n");
    as_it_stands(out, page->exit_status ? page->exit_status : qb_usual_exit_status);
    qb_str_text(out, ".SH SEE ALSO\n.BR bench (1)\n");
    return qb_str_status(out);
}

static void rows(qb_str *out, const char *name, const char *meaning) {
    qb_str_text(out, ".TP\n.B ");
    plain(out, name, strlen(name));
    qb_str_text(out, "\n");
    plain(out, meaning, strlen(meaning));
    qb_str_text(out, "\n");
}

static qb_status program(qb_str *out) {
    const qb_page *page = &qb_program_page;
    head(out, page->name, page->summary);
    qb_str_text(out, ".SH SYNOPSIS\n");
    synopsis(out, page->synopsis);
    qb_str_text(out, ".SH COMMANDS\n");
    for (size_t i = 0; qb_command_at(i); i++) rows(out, qb_command_at(i)->name, qb_command_at(i)->summary);
    qb_str_text(out, ".SH TOPICS\n");
    plain(out, "Of bench help TOPIC:\n", strlen("Of bench help TOPIC:\n"));
    for (size_t i = 0; qb_topic_at(i); i++) rows(out, qb_topic_at(i)->name, qb_topic_at(i)->summary);
    qb_str_text(out, ".SH DESCRIPTION\n");
    paragraphs(out, page->description);
    qb_str_text(out, ".SH ENVIRONMENT\n");
    for (const qb_variable *v = qb_program_variables; v->name; v++) rows(out, v->name, v->meaning);
    qb_str_text(out, ".SH EXAMPLES\n");
    as_it_stands(out, page->examples);
    qb_str_text(out, ".SH EXIT STATUS\n");
    as_it_stands(out, page->exit_status);
    qb_str_text(out, ".SH SEE ALSO\n");
    for (size_t i = 0; qb_command_at(i); i++)
        qb_str_printf(out, ".BR bench\\-%s (1)%s\n", qb_command_at(i)->name, qb_command_at(i + 1) ? "," : "");
    return qb_str_status(out);
}

qb_status qb_manual_page(const qb_command *command, qb_str *out) {
    return command ? qb_command_describe(command, print, out) : program(out);
}
