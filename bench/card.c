#include "bench/card.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { MAX_CARD_BYTES = 16 << 20 };
static const char mark[] = "| perplexity";

static bool is_perplexity(const qb_row *row) {
    return !strcmp(row->name, "perplexity") && row->status == QB_ROW_OK;
}

/* "| perplexity, wikitext2, gptq-2048 |" */
static void put_label(const qb_row *row, qb_str *out) {
    qb_str_printf(out, "%s, ", mark);
    qb_text_clean(row->dataset, 0, out);
    qb_str_text(out, ", ");
    qb_text_clean(row->protocol, 0, out);
    qb_str_text(out, " |");
}

static void put_line(const qb_row *row, qb_str *out) {
    put_label(row, out);
    qb_str_printf(out, " %.4f", row->value);
    if (isfinite(row->stderr_value)) qb_str_printf(out, " ± %.4f", row->stderr_value);
    qb_str_printf(out, " (%.0f windows, %.0f tokens scored", row->windows, row->scored_tokens);
    if (row->part < 1) qb_str_printf(out, ", %.3g %% of the text", 100 * row->part);
    if (row->data_sha256) qb_str_printf(out, ", SHA-256 of the token ids %s", row->data_sha256);
    qb_str_text(out, ") |\n");
}

/* Whether a line of the card is replaced by what was measured now. */
static bool is_replaced(const char *line, size_t n, const qb_row_case *c) {
    static const char none[] = "| perplexity |";
    if (n >= sizeof none - 1 && !strncmp(line, none, sizeof none - 1)) return true;
    for (int i = 0; i < c->n_rows; i++) {
        qb_str label = {0};
        if (!is_perplexity(&c->rows[i])) continue;
        put_label(&c->rows[i], &label);
        bool same = !label.failed && n >= label.length && !strncmp(line, label.text, label.length);
        qb_str_free(&label);
        if (same) return true;
    }
    return false;
}

static bool edit(const char *text, const qb_row_case *c, qb_str *out) {
    bool put = false;
    for (const char *line = text; *line;) {
        const char *end = strchr(line, '\n');
        size_t n = end ? (size_t)(end - line) + 1 : strlen(line);
        bool ours = !strncmp(line, mark, sizeof mark - 1);
        if (ours && !put) {
            for (int i = 0; i < c->n_rows; i++)
                if (is_perplexity(&c->rows[i])) put_line(&c->rows[i], out);
            put = true;
        }
        if (!ours || !is_replaced(line, n, c)) qb_str_append(out, line, n);
        line += n;
    }
    return put;
}

qb_status qb_card_put_perplexities(const char *dir, const qb_row_case *c) {
    char *path = qb_path_join(dir, "README.md"), *text = NULL;
    qb_str out = {0};
    size_t n;
    qb_status st = path ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK) st = qb_file_read(path, MAX_CARD_BYTES, &text, &n);
    if (st == QB_OK && !edit(text, c, &out))
        st = qb_fail(QB_ERR_NOT_FOUND, "%s has no line that begins \"%s\": is it the card that bench wrote?",
                     path, mark);
    if (st == QB_OK) st = qb_str_status(&out);
    if (st == QB_OK) st = qb_file_write_atomic(path, out.text, out.length);
    qb_str_free(&out);
    qb_free(text);
    qb_free(path);
    return st;
}
