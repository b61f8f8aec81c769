#include "bench/card.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include "results/case.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { MAX_CARD_BYTES = 16 << 20 };
static const char mark[] = "| perplexity";

static bool is_perplexity(const qb_json *row) {
    const char *name = qb_json_string(qb_json_get(row, "name"));
    return name && !strcmp(name, "perplexity") && qb_json_is_number(qb_json_get(row, "value"));
}

/* "| perplexity, wikitext2, gptq-2048 |" */
static void put_label(const qb_json *row, qb_str *out) {
    qb_str_printf(out, "%s, ", mark);
    qb_text_clean(qb_json_string(qb_json_get(row, "dataset")), 0, out);
    qb_str_text(out, ", ");
    qb_text_clean(qb_json_string(qb_json_get(row, "protocol")), 0, out);
    qb_str_text(out, " |");
}

static void put_line(const qb_json *row, qb_str *out) {
    double error = qb_json_number(qb_json_get(row, "stderr")), part = qb_perplexity_part(row);
    const char *hash = qb_json_string(qb_json_get(row, "data_sha256"));
    put_label(row, out);
    qb_str_printf(out, " %.4f", qb_json_number(qb_json_get(row, "value")));
    if (isfinite(error)) qb_str_printf(out, " ± %.4f", error);
    qb_str_printf(out, " (%.0f windows, %.0f tokens scored", qb_json_number(qb_json_get(row, "windows")),
                  qb_json_number(qb_json_get(row, "scored_tokens")));
    if (part < 1) qb_str_printf(out, ", %.3g %% of the text", 100 * part);
    if (hash) qb_str_printf(out, ", SHA-256 of the token ids %s", hash);
    qb_str_text(out, ") |\n");
}

/* Whether a line of the card is replaced by what was measured now. */
static bool is_replaced(const char *line, size_t n, const qb_json *metrics) {
    static const char none[] = "| perplexity |";
    if (n >= sizeof none - 1 && !strncmp(line, none, sizeof none - 1)) return true;
    for (const qb_json *row = qb_json_first(metrics); row; row = qb_json_next(row)) {
        qb_str label = {0};
        if (!is_perplexity(row)) continue;
        put_label(row, &label);
        bool same = !label.failed && n >= label.length && !strncmp(line, label.text, label.length);
        qb_str_free(&label);
        if (same) return true;
    }
    return false;
}

static bool edit(const char *text, const qb_json *metrics, qb_str *out) {
    bool put = false;
    for (const char *line = text; *line;) {
        const char *end = strchr(line, '\n');
        size_t n = end ? (size_t)(end - line) + 1 : strlen(line);
        bool ours = !strncmp(line, mark, sizeof mark - 1);
        if (ours && !put) {
            for (const qb_json *row = qb_json_first(metrics); row; row = qb_json_next(row))
                if (is_perplexity(row)) put_line(row, out);
            put = true;
        }
        if (!ours || !is_replaced(line, n, metrics)) qb_str_append(out, line, n);
        line += n;
    }
    return put;
}

qb_status qb_card_put_perplexities(const char *dir, const qb_json *metrics) {
    char *path = qb_path_join(dir, "README.md"), *text = NULL;
    qb_str out = {0};
    size_t n;
    qb_status st = path ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK) st = qb_file_read(path, MAX_CARD_BYTES, &text, &n);
    if (st == QB_OK && !edit(text, metrics, &out))
        st = qb_fail(QB_ERR_NOT_FOUND, "%s has no line that begins \"%s\": is it the card that bench wrote?",
                     path, mark);
    if (st == QB_OK) st = qb_str_status(&out);
    if (st == QB_OK) st = qb_file_write_atomic(path, out.text, out.length);
    qb_str_free(&out);
    qb_free(text);
    qb_free(path);
    return st;
}
