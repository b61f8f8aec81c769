#include "datasets/text.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "datasets/archive.h"
#include "datasets/datasets.h"
#include "datasets/parquet/parquet.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool ends_with(const char *name, size_t n, const char *suffix) {
    size_t s = strlen(suffix);
    return n >= s && strncasecmp(name + n - s, suffix, s) == 0;
}

/* JSON lines by name: "x.jsonl", and the same under a compression suffix, or as an archive's entry. */
static bool names_documents(const char *name) {
    size_t n;
    (void)qb_stored_by_name(name, &n);
    return ends_with(name, n, ".jsonl") || ends_with(name, n, ".json") || ends_with(name, n, ".ndjson");
}

qb_status qb_text_open_memory(const void *stored, size_t n, const char *name, const char *entry,
                              size_t max_bytes, qb_text *out) {
    *out = (qb_text){0};
    qb_status st = QB_OK;
    char *found = NULL;
    qb_stored kind = qb_stored_by_name(name, NULL);
    if (kind == QB_STORED_PLAIN) {
        if (n > max_bytes)
            QB_TRY(st, qb_fail(QB_ERR_FORMAT,
                               "%s: %zu bytes are more than the %zu a dataset file may have: "
                               "BENCH_MAX_TEXT_GB=N allows N GB",
                               name, n, max_bytes));
        out->bytes = n ? stored : "";
        out->n = n;
    } else {
        QB_TRY(st, qb_archive_read(stored, n, kind, name, entry, max_bytes, &out->owned, &out->n, &found));
        out->bytes = out->owned;
    }
    out->documents = names_documents(name) || (found && names_documents(found));
    qb_str title = {0};
    qb_str_printf(&title, found ? "%s (%s)" : "%s", name, found ? found : "");
    QB_TRY(st, qb_str_status(&title));
    out->name = title.text;
out:
    qb_free(found);
    if (st != QB_OK) qb_text_close(out);
    return st;
}

/* A file that is not there, or is a folder, deserves more than the system's word for it. */
static qb_status check_path(const char *path) {
    bool there, is_dir;
    qb_status st = qb_path_look(path, &there);
    if (st == QB_OK) st = qb_path_look_dir(path, &is_dir);
    if (st != QB_OK) return st;
    if (!there) return qb_fail(QB_ERR_NOT_FOUND, "%s: no such file", path);
    if (is_dir)
        return qb_fail(QB_ERR_USAGE,
                       "%s is a folder: give the file in it, or a dataset's name with --data %s", path, path);
    return QB_OK;
}

/* What a file is by its first bytes, where its name says plain text. */
static qb_status check_magic(const char *bytes, size_t n, const char *path) {
    static const struct {
        const char *magic;
        size_t n;
        const char *what, *advice;
    } kinds[] = {
        {"ARROW1", 6, "an Arrow file", "write its text column to a .txt or .jsonl file"},
        {"\xff\xff\xff\xff", 4, "an Arrow stream, as datasets.save_to_disk writes it",
         "write its text column to a .txt or .jsonl file"},
        {"PAR1", 4, "a Parquet file", "give it a name that ends in .parquet"},
        {"\x1f\x8b", 2, "gzip", "give it a name that ends in .gz"},
        {"\x28\xb5\x2f\xfd", 4, "Zstandard", "give it a name that ends in .zst"},
        {"\xfd"
         "7zXZ",
         5, "xz", "give it a name that ends in .xz"},
        {"BZh", 3, "bzip2", "give it a name that ends in .bz2"},
        {"PK\x03\x04", 4, "a zip archive", "give it a name that ends in .zip"},
        {"\x89HDF", 4, "an HDF5 file", "write its text to a .txt or .jsonl file"},
        {"SQLite format 3", 15, "an SQLite database", "write its text to a .txt or .jsonl file"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (n >= kinds[i].n && !memcmp(bytes, kinds[i].magic, kinds[i].n))
            return qb_fail(QB_ERR_UNSUPPORTED, "%s is %s, not text: %s", path, kinds[i].what,
                           kinds[i].advice);
    return QB_OK;
}

static qb_status text_bound(size_t *out) {
    const char *word = getenv("BENCH_MAX_TEXT_GB");
    char *end;
    *out = QB_TEXT_MAX_BYTES;
    if (!word || !*word) return QB_OK;
    long gb = strtol(word, &end, 10);
    if (*end || gb < 1 || gb > 100)
        return qb_fail(QB_ERR_USAGE, "BENCH_MAX_TEXT_GB is \"%.40s\": expected a number from 1 to 100", word);
    *out = (size_t)gb * 1000000000;
    return QB_OK;
}

/* ---- tables ---- */

typedef struct {
    qb_str text;
    const qb_row_form *form;
    const char *name;
    size_t max_bytes;
} table;

/* {"text":"..."}: what must be escaped, is; all else stays as it is. */
static void add_document(qb_str *out, const char *text, size_t n) {
    qb_str_text(out, "{\"text\":\"");
    for (size_t i = 0, kept = 0; i <= n; i++) {
        unsigned char c = i < n ? (unsigned char)text[i] : 0;
        if (i < n && c >= 0x20 && c != '"' && c != '\\') continue;
        qb_str_append(out, text + kept, i - kept);
        kept = i + 1;
        if (i == n) break;
        if (c < 0x20)
            qb_str_printf(out, "\\u%04x", c);
        else
            qb_str_printf(out, "\\%c", c);
    }
    qb_str_text(out, "\"}\n");
}

static qb_status add_row(void *user, const char *text, size_t n) {
    table *t = user;
    if (!t->form) {
        add_document(&t->text, text, n);
    } else if (n == 0 && t->form->empty) {
        qb_str_text(&t->text, t->form->empty);
    } else {
        qb_str_text(&t->text, t->form->before);
        qb_str_append(&t->text, text, n);
        qb_str_text(&t->text, t->form->behind);
    }
    if (t->text.length > t->max_bytes)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: its text is larger than %zu bytes, the most a dataset file may have: "
                       "BENCH_MAX_TEXT_GB=N allows N GB (10^9 bytes)",
                       t->name, t->max_bytes);
    return qb_str_status(&t->text);
}

static qb_status open_table(const qb_map *map, const char *path, const qb_row_form *form, size_t max_bytes,
                            qb_text *out) {
    table t = {.form = form, .name = path, .max_bytes = max_bytes};
    qb_parquet *p;
    qb_str title = {0};
    qb_status st = qb_parquet_open(map->bytes, map->size, path, NULL, &p);
    if (st != QB_OK) return st;
    QB_TRY(st, qb_parquet_read(p, add_row, &t));
    qb_str_text(&t.text, ""); /* a table without rows */
    qb_str_printf(&title, "%s (column %s)", path, qb_parquet_column(p));
    st = t.text.failed ? qb_str_status(&t.text) : qb_str_status(&title);
out:
    if (st == QB_OK) {
        *out = (qb_text){.bytes = t.text.text ? t.text.text : "",
                         .n = t.text.length,
                         .name = title.text,
                         .documents = !form,
                         .owned = t.text.text};
    } else {
        qb_str_free(&t.text);
        qb_str_free(&title);
    }
    qb_parquet_close(p);
    return st;
}

qb_status qb_text_open(const char *path, const char *entry, const qb_row_form *rows, qb_text *out) {
    *out = (qb_text){0};
    qb_map map = {0};
    qb_status st = check_path(path);
    if (st != QB_OK) return st;
    if ((st = qb_map_open(path, &map)) != QB_OK) return st;
    bool is_table = ends_with(path, strlen(path), ".parquet");
    if (!is_table && qb_stored_by_name(path, NULL) == QB_STORED_PLAIN &&
        (st = check_magic((const char *)map.bytes, map.size, path)) != QB_OK) {
        qb_map_close(&map);
        return st;
    }
    if (ends_with(path, strlen(path), ".csv") || ends_with(path, strlen(path), ".tsv"))
        qb_warn(
            "%s is a table, and is read as plain text, commas and all: write its text column to a .txt or "
            ".jsonl file to score the text alone",
            path);
    size_t most = 0;
    st = text_bound(&most);
    if (st == QB_OK)
        st = is_table ? open_table(&map, path, rows, most, out)
                      : qb_text_open_memory(map.bytes, map.size, path, entry, most, out);
    if (st == QB_OK && !out->owned && !is_table)
        out->map = map;
    else
        qb_map_close(&map);
    return st;
}

void qb_text_close(qb_text *text) {
    qb_map_close(&text->map);
    qb_free(text->owned);
    qb_free(text->name);
    *text = (qb_text){0};
}

qb_status qb_text_read(const char *path, char **out, size_t *n) {
    *out = NULL;
    *n = 0;
    static const qb_row_form lines = {"", "\n", NULL};
    qb_text text;
    qb_status st = qb_text_open(path, NULL, &lines, &text);
    if (st != QB_OK) return st;
    if (text.owned) {
        *out = text.owned;
        text.owned = NULL;
    } else {
        QB_TRY(st, qb_alloc(text.n + 1, 1, out));
        memcpy(*out, text.bytes, text.n);
        (*out)[text.n] = 0;
    }
    *n = text.n;
out:
    qb_text_close(&text);
    return st;
}

/* Length of the UTF-8 sequence at p, 0 when it is none (RFC 3629, the table of section 4). */
static size_t sequence_length(const unsigned char *p, size_t left) {
    unsigned char a = p[0];
    size_t n = a < 0x80 ? 1 : a < 0xc2 ? 0 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : a < 0xf5 ? 4 : 0;
    if (n == 0 || n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((a == 0xe0 && p[1] < 0xa0) || (a == 0xed && p[1] > 0x9f) || (a == 0xf0 && p[1] < 0x90) ||
        (a == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

qb_status qb_utf8_check(const char *bytes, size_t n, const char *name) {
    const unsigned char *p = (const unsigned char *)bytes;
    size_t i = 0, line = 1;
    while (i < n) {
        uint64_t eight;
        if (n - i >= 8 && (memcpy(&eight, p + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        size_t length = sequence_length(p + i, n - i);
        if (length == 0) {
            for (size_t j = 0; j < i; j++) line += p[j] == '\n';
            bool utf16 = n >= 2 && ((p[0] == 0xff && p[1] == 0xfe) || (p[0] == 0xfe && p[1] == 0xff));
            return qb_fail(
                QB_ERR_FORMAT,
                "%s: not UTF-8 text: byte 0x%02x at offset %zu (line %zu): convert it, for example "
                "with iconv -f %s -t UTF-8",
                name, p[i], i, line, utf16 ? "UTF-16" : "WINDOWS-1252");
        }
        i += length;
    }
    return QB_OK;
}
