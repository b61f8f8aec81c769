#include "base/memory.h"
#include "datasets/parquet/inner.h"
#include "datasets/parquet/snappy.h"

#include <string.h>
#include <zlib.h>
#include <zstd.h>

/* No page of a text column is larger; writers make them of a megabyte. */
enum { PAGE_MAX_BYTES = 1 << 30 };

static qb_status damaged(const qb_parquet *p, const char *what) {
    return qb_fail(QB_ERR_FORMAT, "%s: the Parquet data is damaged (%s): fetch the file again", p->name,
                   what);
}

/* ---- decompression ---- */

/* The first frame states how much it gives, but for gzip, which is counted. */
static bool inflate_all(const uint8_t *in, size_t n, uint8_t *out, size_t bytes) {
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)n, .next_out = out, .avail_out = (uInt)bytes};
    if (inflateInit2(&z, 15 + 32) != Z_OK) return false; /* gzip's head or zlib's */
    int rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return rc == Z_STREAM_END && z.total_out == bytes;
}

static qb_status unpack(int64_t codec, const uint8_t *in, size_t n, uint8_t *out, size_t bytes, bool *whole) {
    size_t got = bytes;
    *whole = false;
    if (codec == QB_CODEC_SNAPPY) {
        const qb_snappy *lib;
        qb_status st = qb_snappy_load(&lib);
        if (st != QB_OK) return st;
        *whole = lib->snappy_uncompressed_length((const char *)in, n, &got) == SNAPPY_OK && got == bytes &&
                 lib->snappy_uncompress((const char *)in, n, (char *)out, &got) == SNAPPY_OK && got == bytes;
    } else if (codec == QB_CODEC_ZSTD) {
        got = ZSTD_decompress(out, bytes, in, n);
        *whole = !ZSTD_isError(got) && got == bytes;
    } else if (codec == QB_CODEC_GZIP) {
        *whole = inflate_all(in, n, out, bytes);
    } else if (n == bytes) {
        memcpy(out, in, bytes);
        *whole = true;
    }
    return QB_OK;
}

/* A page's bytes, decompressed: new memory in *owned, of v2 without the levels, which stand before them. A
   length that no codec makes of so few bytes is a lie: a small file cannot ask for much memory. */
static qb_status open_page(const qb_parquet *p, const qb_chunk *c, const qb_page_head *h, const uint8_t *at,
                           uint8_t **owned, size_t *n) {
    enum { MOST_TIMES = 100000 };
    int64_t levels = h->type == QB_PAGE_DATA_V2 ? h->level_bytes + h->repeated_bytes : 0;
    int64_t stored = h->stored - levels, bytes = h->bytes - levels;
    int64_t codec = h->type == QB_PAGE_DATA_V2 && !h->compressed ? QB_CODEC_NONE : c->codec;
    *owned = NULL;
    *n = (size_t)bytes;
    if (bytes < 0 || bytes > PAGE_MAX_BYTES || stored > PAGE_MAX_BYTES || bytes / MOST_TIMES > stored)
        return damaged(p, "the length of a page");
    qb_status st = qb_alloc((size_t)bytes + 1, 1, owned);
    if (st != QB_OK) return st;
    if (bytes == 0 && stored == 0) return QB_OK;
    bool whole;
    st = unpack(codec, at + levels, (size_t)stored, *owned, (size_t)bytes, &whole);
    if (st != QB_OK) st = qb_fail_prefix(st, "%s", p->name);
    if (st == QB_OK && !whole) st = damaged(p, qb_codec_name(codec));
    if (st != QB_OK) {
        qb_free(*owned);
        *owned = NULL;
    }
    return st;
}

/* ---- runs of small numbers: levels and indices (parquet-format, Encodings.md, RLE/bit-packed hybrid) ----
 */

typedef struct {
    const uint8_t *p, *end;
    int width;          /* bits, at most 32 */
    uint64_t left;      /* of the run under way */
    bool packed;        /* it is bit-packed: */
    const uint8_t *run; /* from here, */
    uint64_t index;     /* at this value */
    uint32_t value;     /* else it is this */
    bool bad;
} runs;

static void next_run(runs *r) {
    uint64_t head = 0;
    int shift = 0;
    for (;; shift += 7) {
        if (r->p >= r->end || shift > 63) {
            r->bad = true;
            return;
        }
        head |= (uint64_t)(*r->p & 127) << shift;
        if (!(*r->p++ & 128)) break;
    }
    r->packed = head & 1;
    if (r->packed) {
        uint64_t groups = head >> 1, room = (uint64_t)(r->end - r->p);
        /* The last group may be cut behind the last value. */
        if (groups == 0 || groups > (room + 4) * 8) r->bad = true;
        r->left = groups * 8;
        r->run = r->p;
        r->index = 0;
        uint64_t bytes = groups * (uint64_t)r->width;
        r->p += bytes < room ? bytes : room;
        return;
    }
    r->left = head >> 1;
    int bytes = (r->width + 7) / 8;
    if (r->end - r->p < bytes || r->left == 0) {
        r->bad = true;
        return;
    }
    r->value = 0;
    for (int i = 0; i < bytes; i++) r->value |= (uint32_t)r->p[i] << (8 * i);
    r->p += bytes;
}

static uint32_t take_number(runs *r) {
    if (!r->left && !r->bad) next_run(r);
    if (r->bad) return 0;
    r->left--;
    if (!r->packed) return r->value;
    uint64_t bit = r->index++ * (uint64_t)r->width, value = 0;
    const uint8_t *at = r->run + bit / 8;
    int need = (int)(bit % 8) + r->width, bytes = (need + 7) / 8;
    if (bytes > r->end - r->run || bit / 8 > (uint64_t)(r->end - r->run - bytes)) {
        r->bad = true;
        return 0;
    }
    for (int i = 0; i < bytes; i++) value |= (uint64_t)at[i] << (8 * i);
    return (uint32_t)(value >> (bit % 8) & (((uint64_t)1 << r->width) - 1));
}

/* ---- values ---- */

typedef struct {
    const char *text;
    uint32_t n;
} value;

typedef struct {
    const qb_parquet *p;
    const qb_chunk *c;
    qb_parquet_row row;
    void *user;
    int64_t done; /* rows of the chunk */
    uint8_t *dictionary_bytes;
    value *dictionary;
    size_t n_dictionary;
} reading;

/* The string at *at: its length, then its bytes. */
static bool take_plain(const uint8_t **at, const uint8_t *end, value *out) {
    if (end - *at < 4) return false;
    uint32_t n =
        (uint32_t)(*at)[0] | (uint32_t)(*at)[1] << 8 | (uint32_t)(*at)[2] << 16 | (uint32_t)(*at)[3] << 24;
    if (n > (uint64_t)(end - *at - 4)) return false;
    *out = (value){(const char *)*at + 4, n};
    *at += 4 + (size_t)n;
    return true;
}

static qb_status read_dictionary(reading *r, const qb_page_head *h, const uint8_t *at) {
    size_t n;
    if (r->dictionary_bytes) return damaged(r->p, "two dictionaries in a row group");
    if (h->encoding != QB_ENCODING_PLAIN && h->encoding != QB_ENCODING_PLAIN_DICTIONARY)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: a dictionary in the encoding %s is not read", r->p->name,
                       qb_encoding_name(h->encoding));
    qb_status st = open_page(r->p, r->c, h, at, &r->dictionary_bytes, &n);
    if (st != QB_OK) return st;
    if (h->values > (int64_t)n / 4) return damaged(r->p, "a dictionary");
    if ((st = qb_alloc((size_t)h->values + 1, sizeof *r->dictionary, &r->dictionary)) != QB_OK) return st;
    const uint8_t *p = r->dictionary_bytes, *end = p + n;
    for (; r->n_dictionary < (size_t)h->values; r->n_dictionary++)
        if (!take_plain(&p, end, &r->dictionary[r->n_dictionary])) return damaged(r->p, "a dictionary");
    return QB_OK;
}

/* The page's rows: levels in `levels` (where the column is optional), values from p to end. */
static qb_status read_values(reading *r, const qb_page_head *h, runs *levels, const uint8_t *p,
                             const uint8_t *end) {
    bool plain = h->encoding == QB_ENCODING_PLAIN;
    runs indices = {.bad = true};
    if (!plain && h->encoding != QB_ENCODING_RLE_DICTIONARY && h->encoding != QB_ENCODING_PLAIN_DICTIONARY)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: the encoding %s is not read; PLAIN and dictionaries are: write it anew",
                       r->p->name, qb_encoding_name(h->encoding));
    if (!plain && p < end && *p <= 32) indices = (runs){.p = p + 1, .end = end, .width = *p};
    for (int64_t i = 0; i < h->values; i++) {
        value v;
        if (levels && !take_number(levels) && !levels->bad)
            return qb_fail(
                QB_ERR_UNSUPPORTED,
                "%s: column \"%s\" has a row without a value (the %lld. of a row group): write it without",
                r->p->name, r->p->column, (long long)r->done + 1);
        if (levels && levels->bad) return damaged(r->p, "the levels of a page");
        if (plain) {
            if (!take_plain(&p, end, &v)) return damaged(r->p, "the strings of a page");
        } else {
            uint32_t index = take_number(&indices);
            if (indices.bad || index >= r->n_dictionary) return damaged(r->p, "the indices of a page");
            v = r->dictionary[index];
        }
        qb_status st = r->row(r->user, v.text, v.n);
        if (st != QB_OK) return st;
        r->done++;
    }
    return QB_OK;
}

static qb_status read_data(reading *r, const qb_page_head *h, const uint8_t *at) {
    bool v2 = h->type == QB_PAGE_DATA_V2;
    uint8_t *owned = NULL;
    size_t n;
    if (h->values > r->c->rows - r->done) return damaged(r->p, "more rows than the footer says");
    if (h->repeated_bytes || (!v2 && h->level_encoding != QB_ENCODING_RLE))
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: levels in the encoding %s are not read", r->p->name,
                       qb_encoding_name(h->level_encoding));
    qb_status st = open_page(r->p, r->c, h, at, &owned, &n);
    if (st != QB_OK) return st;
    const uint8_t *p = owned, *end = owned + n;
    runs levels = {.p = at, .end = at + h->level_bytes, .width = 1};
    if (r->p->optional && !v2) { /* their length stands before them */
        value packed;
        if (!take_plain(&p, end, &packed)) {
            st = damaged(r->p, "the levels of a page");
            goto out;
        }
        levels = (runs){
            .p = (const uint8_t *)packed.text, .end = (const uint8_t *)packed.text + packed.n, .width = 1};
    }
    st = read_values(r, h, r->p->optional ? &levels : NULL, p, end);
out:
    qb_free(owned);
    return st;
}

static qb_status read_chunk(reading *r) {
    int64_t at = r->c->begin, end = r->c->begin + r->c->bytes;
    while (r->done < r->c->rows) {
        qb_page_head h;
        int64_t head;
        if (at >= end) return damaged(r->p, "fewer rows than the footer says");
        qb_status st = qb_page_head_read(r->p, at, end, &h, &head);
        if (st != QB_OK) return st;
        const uint8_t *body = r->p->bytes + at + head;
        if (h.type == QB_PAGE_DICTIONARY)
            st = read_dictionary(r, &h, body);
        else if (h.type == QB_PAGE_DATA || h.type == QB_PAGE_DATA_V2)
            st = read_data(r, &h, body);
        if (st != QB_OK) return st;
        at += head + h.stored;
    }
    return QB_OK;
}

qb_status qb_parquet_read(const qb_parquet *p, qb_parquet_row row, void *user) {
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < p->n_chunks; i++) {
        reading r = {.p = p, .c = &p->chunks[i], .row = row, .user = user};
        st = read_chunk(&r);
        qb_free(r.dictionary);
        qb_free(r.dictionary_bytes);
    }
    return st;
}
