#include "tokenizer/charsmap.h"

#include "base/memory.h"
#include "tokenizer/unicode.h"

#include <string.h>

qb_status qb_charsmap_parse(const uint8_t *bytes, size_t n, const char *name, qb_charsmap *out) {
    uint32_t trie_bytes = 0;
    *out = (qb_charsmap){0};
    if (n >= 4) memcpy(&trie_bytes, bytes, 4);
    if (n < 8 || trie_bytes < 4 || trie_bytes % 4 || trie_bytes > n - 4)
        return qb_fail(QB_ERR_FORMAT, "%s: the precompiled character map of %zu bytes is damaged", name, n);
    out->n_units = trie_bytes / 4;
    out->n_texts = n - 4 - trie_bytes;
    qb_status st = qb_alloc(out->n_units, sizeof *out->units, &out->units);
    if (st == QB_OK) st = qb_alloc(out->n_texts + 1, 1, &out->texts);
    if (st != QB_OK) {
        qb_charsmap_free(out);
        return st;
    }
    memcpy(out->units, bytes + 4, trie_bytes);
    memcpy(out->texts, bytes + 4 + trie_bytes, out->n_texts);
    out->texts[out->n_texts] = 0;
    return QB_OK;
}

void qb_charsmap_free(qb_charsmap *m) {
    qb_free(m->units);
    qb_free(m->texts);
    *m = (qb_charsmap){0};
}

static uint32_t offset_of(uint32_t unit) {
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* Length and value of the shortest or the longest key at p; 0: none. */
static size_t find(const qb_charsmap *m, const char *p, size_t n, bool shortest, uint32_t *value) {
    size_t found = 0;
    uint32_t at = offset_of(m->units[0]);
    for (size_t i = 0; i < n && p[i]; i++) {
        at ^= (uint8_t)p[i];
        if (at >= m->n_units) break;
        uint32_t unit = m->units[at];
        if ((unit & (1u << 31 | 0xFF)) != (uint8_t)p[i]) break;
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1)) continue;
        if (at >= m->n_units) break;
        *value = m->units[at] & ((1u << 31) - 1);
        found = i + 1;
        if (shortest) break;
    }
    return found && *value < m->n_texts ? found : 0;
}

size_t qb_charsmap_longest(const qb_charsmap *m, const char *p, size_t n, const char **text, size_t *n_text) {
    uint32_t value = 0;
    size_t length = find(m, p, n, false, &value);
    if (!length) return 0;
    *text = m->texts + value;
    *n_text = strlen(*text);
    return length;
}

static bool put(const qb_charsmap *m, const char *p, size_t n, qb_str *out) {
    uint32_t value = 0;
    if (!find(m, p, n, true, &value)) return false;
    qb_str_text(out, m->texts + value);
    return true;
}

void qb_charsmap_apply(const qb_charsmap *m, const char *text, size_t n, qb_str *out) {
    for (size_t at = 0, cluster; at < n; at += cluster) {
        cluster = qb_unicode_grapheme(text + at, n - at);
        if (cluster < 6 && put(m, text + at, cluster, out)) continue;
        for (size_t i = 0, length; i < cluster; i += length) {
            length = qb_utf8_length((const uint8_t *)text + at + i, cluster - i);
            if (!length) length = 1;
            if (!put(m, text + at + i, length, out)) qb_str_append(out, text + at + i, length);
        }
    }
}
