/* Data files: the first byte says how the rest is read (a
   compression, rows, JSON lines, a protocol's name). */
#include "base/memory.h"
#include "base/str.h"
#include "datasets/datasets.h"
#include "datasets/documents.h"
#include "datasets/rows.h"
#include "datasets/text.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 1 << 20 };

static void fuzz_rows(const char *bytes, size_t n, qb_join join) {
    qb_str out = {0};
    if (qb_utf8_check(bytes, n, "fuzz") != QB_OK) return;
    if (qb_rows_join(bytes, n, join, "", &out) == QB_OK && out.length > n)
        abort(); /* joining by nothing adds nothing */
    /* White space is taken away by whole characters. */
    if (qb_utf8_check(qb_str_get(&out), out.length, "joined") != QB_OK) abort();
    qb_str_free(&out);
}

static void fuzz_documents(const char *bytes, size_t n) {
    qb_text text;
    if (qb_text_open_memory(bytes, n, "fuzz.jsonl", NULL, MAX_BYTES, &text) != QB_OK) abort();
    qb_documents documents;
    qb_str out = {0};
    if (qb_documents_index(&text, &documents) == QB_OK &&
        qb_documents_join(&documents, 100, "\n", &out) == QB_OK &&
        qb_utf8_check(qb_str_get(&out), out.length, "documents") != QB_OK)
        abort();
    qb_str_free(&out);
    qb_documents_free(&documents);
    qb_text_close(&text);
}

static void fuzz_protocol(const char *bytes, size_t n) {
    qb_str name = {0};
    qb_protocol p, again;
    qb_str_append(&name, bytes, n);
    if (qb_protocol_parse(qb_str_get(&name), &p) == QB_OK) {
        if (qb_protocol_parse(p.name, &again) != QB_OK || strcmp(p.name, again.name) != 0) abort();
        if (p.window < 2 || p.stride < 1 || p.stride > p.window) abort();
        qb_ids ids = {0};
        qb_windows w;
        if (qb_grow(&ids.ids, &ids.capacity, n + 1, sizeof *ids.ids) != QB_OK) abort();
        for (; ids.count <= n; ids.count++) ids.ids[ids.count] = (int32_t)ids.count;
        if (qb_protocol_cut(&p, &ids, 1, 0, "fuzz", &w) == QB_OK) {
            for (int64_t i = 0; i < w.count; i++)
                if (w.windows[i].offset + w.windows[i].length > w.n_ids || w.windows[i].score_begin < 1)
                    abort();
            qb_windows_free(&w);
        }
    }
    qb_str_free(&name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"x.gz", "x.zst", "x.xz", "x.bz2", "x.zip", "x.tar.gz"};
    enum { N_NAMES = sizeof names / sizeof names[0] };
    if (size == 0) return 0;
    const char *bytes = (const char *)data + 1;
    size_t n = size - 1;
    switch (data[0]) {
    case 'w':
        fuzz_rows(bytes, n, QB_JOIN_WIKITEXT_ROWS);
        break;
    case 'p':
        fuzz_rows(bytes, n, QB_JOIN_STRIPPED_ROWS);
        break;
    case 'j':
        fuzz_documents(bytes, n);
        break;
    case 'n':
        fuzz_protocol(bytes, n);
        break;
    default: {
        qb_text text;
        const char *entry = data[0] & 0x80 ? "a" : NULL;
        if (qb_text_open_memory(bytes, n, names[data[0] % N_NAMES], entry, MAX_BYTES, &text) == QB_OK) {
            if (text.n > MAX_BYTES) abort();
            qb_text_close(&text);
        }
    }
    }
    return 0;
}
