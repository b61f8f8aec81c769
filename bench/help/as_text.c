/* The part of Markdown that docs/ is written in, as text. */
#include "base/text.h"
#include "bench/help/topics.h"

#include <ctype.h>
#include <string.h>

enum { BODY = 4, DEEP = 8, MAX_CELLS = 24, HTTP = 4 };

typedef struct {
    qb_str *out;
    int columns;
    qb_str paragraph;        /* being gathered; wrapped when it ends */
    int indent;              /* of its lines after the first */
    bool code;               /* between fences */
    qb_str heads[MAX_CELLS]; /* of the table that is being read */
    int n_heads;             /* 0: no table */
    bool blank;              /* the last line that was put is empty */
} page;

static void end_line(page *p) {
    qb_str_text(p->out, "\n");
    p->blank = false;
}

static void put_gap(page *p) {
    if (!p->blank && p->out->length) qb_str_text(p->out, "\n");
    p->blank = true;
}

/* "[words](target)": its words; the target too when it leads out of the pages. Pictures vanish. Returns what
   is behind it, or NULL when no link begins here. */
static const char *link(const char *text, qb_str *out) {
    bool picture = *text == '!';
    const char *words = text + picture;
    if (*words++ != '[') return NULL;
    const char *end = strstr(words, "](");
    const char *close = end ? strchr(end, ')') : NULL;
    const char *target = end ? end + 2 : NULL;
    if (!close || memchr(words, '[', (size_t)(end - words))) return NULL;
    if (!picture) qb_str_append(out, words, (size_t)(end - words));
    if (!picture && !strncmp(target, "http", HTTP))
        qb_str_printf(out, " (%.*s)", (int)(close - target), target);
    return close + 1;
}

/* Marks within a line. What stands in backticks stays as it is, with them. */
static void put_inline(const char *text, size_t n, qb_str *out) {
    const char *end = text + n;
    bool code = false;
    while (text < end) {
        const char *behind = code ? NULL : link(text, out);
        if (behind && behind <= end) {
            text = behind;
        } else if (!code && !strncmp(text, "**", 2)) {
            text += 2;
        } else if (!code && !strncmp(text, "<br>", 4)) {
            qb_str_text(out, " ");
            text += 4;
        } else if (*text == '\\' && text + 1 < end && ispunct((unsigned char)text[1])) {
            qb_str_append(out, ++text, 1);
            text++;
        } else {
            code ^= *text == '`';
            qb_str_append(out, text++, 1);
        }
    }
}

static void end_paragraph(page *p) {
    if (!p->paragraph.length) return;
    int first = p->indent;
    const char *text = p->paragraph.text;
    if (text[0] == '-' && text[1] == ' ') first -= 2;
    for (int i = 0; i < first; i++) qb_str_text(p->out, " ");
    qb_text_wrap_from(text, first, p->indent, p->columns, p->out);
    p->blank = false;
    p->out->failed |= p->paragraph.failed;
    qb_str_free(&p->paragraph);
}

/* ---- tables ---- */

/* The cells of "| a | b |"; a '|' behind a backslash or within backticks ends none. */
static int split(const char *line, size_t n, qb_str cells[MAX_CELLS]) {
    const char *end = line + n;
    int count = 0;
    bool code = false;
    if (*line == '|') line++;
    while (line < end && count < MAX_CELLS) {
        const char *stop = line;
        while (stop < end && (*stop != '|' || code)) {
            if (*stop == '\\' && stop + 1 < end) stop++;
            code ^= *stop == '`';
            stop++;
        }
        const char *from = line, *to = stop < end ? stop : end;
        while (from < to && *from == ' ') from++;
        while (to > from && to[-1] == ' ') to--;
        cells[count] = (qb_str){0};
        put_inline(from, (size_t)(to - from), &cells[count++]);
        line = stop + 1;
        while (line < end && *line == ' ') line++;
    }
    return count;
}

static void free_cells(qb_str *cells, int n) {
    for (int i = 0; i < n; i++) qb_str_free(&cells[i]);
}

static bool is_rule(const char *line, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strchr("|-: ", line[i])) return false;
    return true;
}

/* A row: its first cell, then the others below, each under its column's name where there are several. */
static void put_row(page *p, const qb_str *cells, int n) {
    for (int i = 0; i < n; i++) {
        qb_str text = {0};
        if (!cells[i].length) continue;
        if (i > 0 && p->n_heads > 2 && i < p->n_heads && p->heads[i].length)
            qb_str_printf(&text, "%s: ", qb_str_get(&p->heads[i]));
        qb_str_text(&text, qb_str_get(&cells[i]));
        int indent = i ? DEEP : BODY;
        for (int k = 0; k < indent; k++) qb_str_text(p->out, " ");
        qb_text_wrap(qb_str_get(&text), indent, p->columns, p->out);
        p->out->failed |= text.failed;
        qb_str_free(&text);
    }
    p->blank = false;
}

static void table_line(page *p, const char *line, size_t n) {
    if (is_rule(line, n)) return;
    if (!p->n_heads) {
        p->n_heads = split(line, n, p->heads);
        return;
    }
    qb_str cells[MAX_CELLS];
    int count = split(line, n, cells);
    put_row(p, cells, count);
    free_cells(cells, count);
}

static void end_table(page *p) {
    free_cells(p->heads, p->n_heads);
    p->n_heads = 0;
}

/* ---- lines ---- */

static void text_line(page *p, const char *line, size_t n) {
    size_t lead = strspn(line, " ");
    bool item = n >= lead + 2 && line[lead] == '-' && line[lead + 1] == ' ';
    if (item) end_paragraph(p);
    if (!p->paragraph.length) p->indent = item ? BODY + (int)lead + 2 : BODY;
    if (p->paragraph.length) qb_str_text(&p->paragraph, " ");
    put_inline(line + lead, n - lead, &p->paragraph);
}

static void put_line(page *p, const char *line, size_t n) {
    if (n >= 3 && !strncmp(line, "```", 3)) {
        end_paragraph(p);
        p->code = !p->code;
        put_gap(p);
    } else if (p->code) {
        if (n) qb_str_printf(p->out, "        %.*s", (int)n, line);
        end_line(p);
    } else if (*line == '|') {
        end_paragraph(p);
        table_line(p, line, n);
    } else if (*line == '#') {
        end_paragraph(p);
        put_gap(p);
        while (*line == '#' || *line == ' ') line++, n--;
        put_inline(line, n, p->out);
        end_line(p);
    } else if (!n || !strncmp(line, "<!--", 4)) {
        end_paragraph(p);
        put_gap(p);
    } else {
        text_line(p, line, n);
    }
    if (*line != '|' || p->code) end_table(p);
}

void qb_markdown_as_text(const char *markdown, int columns, qb_str *out) {
    page p = {.out = out, .columns = columns};
    while (*markdown) {
        size_t n = strcspn(markdown, "\n");
        put_line(&p, markdown, n);
        markdown += n + (markdown[n] == '\n');
    }
    end_paragraph(&p);
    end_table(&p);
}
