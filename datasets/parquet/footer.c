#include "base/memory.h"
#include "base/str.h"
#include "datasets/parquet/inner.h"
#include "datasets/parquet/thrift.h"

#include <stdio.h>
#include <string.h>

enum { TYPE_BYTE_ARRAY = 6, REPEATED = 2, OPTIONAL = 1, CONVERTED_UTF8 = 0, NAMES_SHOWN = 8 };

static const char *name_at(const char *const *names, size_t n, int64_t i) {
    return i >= 0 && (size_t)i < n ? names[i] : "unknown";
}

const char *qb_codec_name(int64_t codec) {
    static const char *const names[] = {"no compression", "SNAPPY", "GZIP", "LZO",
                                        "BROTLI",         "LZ4",    "ZSTD", "LZ4_RAW"};
    return name_at(names, sizeof names / sizeof names[0], codec);
}

const char *qb_encoding_name(int64_t encoding) {
    static const char *const names[] = {"PLAIN",
                                        "1",
                                        "PLAIN_DICTIONARY",
                                        "RLE",
                                        "BIT_PACKED",
                                        "DELTA_BINARY_PACKED",
                                        "DELTA_LENGTH_BYTE_ARRAY",
                                        "DELTA_BYTE_ARRAY",
                                        "RLE_DICTIONARY",
                                        "BYTE_STREAM_SPLIT"};
    return name_at(names, sizeof names / sizeof names[0], encoding);
}

static qb_status damaged(const qb_parquet *p, const char *what) {
    return qb_fail(QB_ERR_FORMAT, "%s: the Parquet data is damaged or cut off (%s): fetch the file again",
                   p->name, what);
}

/* ---- the schema: a tree in the order in which it is walked ---- */

typedef struct {
    const char *name;
    size_t name_length;
    int64_t type, repetition, children, converted; /* -1: not said */
    bool string;                                   /* a logical type STRING */
} element;

static void read_logical(qb_thrift *t, qb_thrift_type type, element *e) {
    int id = 0;
    if (type != QB_THRIFT_STRUCT) t->bad = true;
    while (!t->bad && (type = qb_thrift_field(t, &id)) != QB_THRIFT_STOP) {
        e->string = e->string || id == 1;
        qb_thrift_skip(t, type);
    }
}

static element read_element(qb_thrift *t) {
    element e = {"", 0, -1, 0, 0, -1, false};
    int id = 0;
    for (qb_thrift_type type; (type = qb_thrift_field(t, &id)) != QB_THRIFT_STOP;) {
        switch (id) {
        case 1:
            e.type = qb_thrift_int(t, type);
            break;
        case 3:
            e.repetition = qb_thrift_int(t, type);
            break;
        case 4:
            qb_thrift_binary(t, type, &e.name, &e.name_length);
            break;
        case 5:
            e.children = qb_thrift_int(t, type);
            break;
        case 6:
            e.converted = qb_thrift_int(t, type);
            break;
        case 10:
            read_logical(t, type, &e);
            break;
        default:
            qb_thrift_skip(t, type);
        }
    }
    if (e.children < 0) t->bad = true;
    return e;
}

/* The columns of the top level, and which of them it is. */
typedef struct {
    const char *wanted; /* NULL: by the usual names */
    element best;
    int64_t best_leaf;
    int rank;      /* how good the best is; 0: none */
    int n_strings; /* that would do */
    qb_str names;
    int n_names;
} choice;

static bool is_called(const element *e, const char *name) {
    return e->name_length == strlen(name) && !memcmp(e->name, name, e->name_length);
}

static void consider(choice *c, const element *e, int64_t leaf) {
    bool plain = !e->children && e->repetition != REPEATED && e->type == TYPE_BYTE_ARRAY;
    bool text = plain && (e->string || e->converted == CONVERTED_UTF8 || e->converted < 0);
    c->n_strings += text;
    int rank = c->wanted                  ? (is_called(e, c->wanted) ? 3 : 0)
               : is_called(e, "text")     ? 3
               : is_called(e, "sentence") ? 2
               : text                     ? 1
                                          : 0;
    if (rank > c->rank) {
        c->rank = rank;
        c->best = *e;
        c->best_leaf = leaf;
    }
    if (c->n_names++ < NAMES_SHOWN)
        qb_str_printf(&c->names, "%s%.*s", c->n_names > 1 ? ", " : "",
                      (int)(e->name_length < 60 ? e->name_length : 60), e->name);
}

static void read_schema(qb_thrift *t, qb_thrift_type type, choice *c) {
    qb_thrift_type of;
    int64_t n = qb_thrift_list(t, type, &of), leaf = 0, inner = 0; /* inner: elements left below a top one */
    if (of != QB_THRIFT_STRUCT) t->bad = true;
    for (int64_t i = 0; i < n && !t->bad; i++) {
        element e = read_element(t);
        if (i == 0) continue; /* the root */
        if (inner)
            inner--;
        else
            consider(c, &e, leaf);
        if (e.children > n - i) t->bad = true;
        inner += t->bad ? 0 : e.children;
        leaf += !e.children;
    }
    if (inner) t->bad = true;
}

static qb_status choose(const choice *c, qb_parquet *p) {
    const element *e = &c->best;
    const char *names = qb_str_get(&c->names);
    if (c->rank == 0 && c->wanted)
        return qb_fail(QB_ERR_FORMAT, "%s: no column \"%s\"; there are %s", p->name, c->wanted, names);
    if (c->rank == 0 || (c->rank == 1 && c->n_strings > 1))
        return qb_fail(
            QB_ERR_FORMAT,
            "%s: no column \"text\" or \"sentence\" (there are %s): write its text column under that name",
            p->name, c->n_names ? names : "none");
    int n = (int)(e->name_length < sizeof p->column - 1 ? e->name_length : sizeof p->column - 1);
    snprintf(p->column, sizeof p->column, "%.*s", n, e->name);
    if (e->children || e->repetition == REPEATED)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: column \"%s\" is nested: expected a column of strings at the top level: write "
                       "its text to one",
                       p->name, p->column);
    if (e->type != TYPE_BYTE_ARRAY)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: column \"%s\" holds no strings (physical type %d)", p->name,
                       p->column, (int)e->type);
    p->optional = e->repetition == OPTIONAL;
    p->leaf = c->best_leaf;
    return QB_OK;
}

/* ---- row groups ---- */

typedef struct {
    int64_t type, codec, values, stored, data_at, dictionary_at;
} column_meta;

static column_meta read_meta(qb_thrift *t, qb_thrift_type type) {
    column_meta m = {-1, -1, -1, -1, -1, -1};
    int id = 0;
    if (type != QB_THRIFT_STRUCT) t->bad = true;
    while (!t->bad && (type = qb_thrift_field(t, &id)) != QB_THRIFT_STOP) {
        switch (id) {
        case 1:
            m.type = qb_thrift_int(t, type);
            break;
        case 4:
            m.codec = qb_thrift_int(t, type);
            break;
        case 5:
            m.values = qb_thrift_int(t, type);
            break;
        case 7:
            m.stored = qb_thrift_int(t, type);
            break;
        case 9:
            m.data_at = qb_thrift_int(t, type);
            break;
        case 11:
            m.dictionary_at = qb_thrift_int(t, type);
            break;
        default:
            qb_thrift_skip(t, type);
        }
    }
    return m;
}

/* ColumnChunk; *foreign when its pages lie in another file, *secret when they are encrypted. */
static column_meta read_column(qb_thrift *t, bool *foreign, bool *secret) {
    column_meta m = {-1, -1, -1, -1, -1, -1};
    int id = 0;
    for (qb_thrift_type type; (type = qb_thrift_field(t, &id)) != QB_THRIFT_STOP;) {
        if (id == 3) {
            m = read_meta(t, type);
        } else {
            *foreign = *foreign || id == 1;
            *secret = *secret || id == 8 || id == 9;
            qb_thrift_skip(t, type);
        }
    }
    return m;
}

static qb_status add_chunk(qb_parquet *p, const column_meta *m, int64_t rows, bool foreign, bool secret) {
    int64_t begin = m->dictionary_at > 0 && m->dictionary_at < m->data_at ? m->dictionary_at : m->data_at;
    if (foreign || secret)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: column \"%s\" %s", p->name, p->column,
                       secret ? "is encrypted" : "lies in another file");
    if (m->type != TYPE_BYTE_ARRAY || m->values != rows || rows < 0 || begin < 4 || m->stored < 0 ||
        begin > (int64_t)p->n || m->stored > (int64_t)p->n - begin)
        return damaged(p, "a row group lies outside the file");
    if (m->codec != QB_CODEC_NONE && m->codec != QB_CODEC_SNAPPY && m->codec != QB_CODEC_GZIP &&
        m->codec != QB_CODEC_ZSTD)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: compressed with %s; snappy, gzip and zstd are read: write it anew", p->name,
                       qb_codec_name(m->codec));
    qb_status st = qb_grow(&p->chunks, &p->capacity, p->n_chunks + 1, sizeof *p->chunks);
    if (st == QB_OK) p->chunks[p->n_chunks++] = (qb_chunk){rows, m->codec, begin, m->stored};
    return st;
}

static qb_status read_group(qb_thrift *t, qb_parquet *p) {
    column_meta mine = {-1, -1, -1, -1, -1, -1};
    int64_t rows = -1, columns = 0;
    bool foreign = false, secret = false;
    int id = 0;
    for (qb_thrift_type type; (type = qb_thrift_field(t, &id)) != QB_THRIFT_STOP;) {
        if (id == 1) {
            qb_thrift_type of;
            columns = qb_thrift_list(t, type, &of);
            if (of != QB_THRIFT_STRUCT && columns) t->bad = true;
            for (int64_t i = 0; i < columns && !t->bad; i++) {
                bool f = false, s = false;
                column_meta m = read_column(t, &f, &s);
                if (i != p->leaf) continue;
                mine = m;
                foreign = f;
                secret = s;
            }
        } else if (id == 3) {
            rows = qb_thrift_int(t, type);
        } else {
            qb_thrift_skip(t, type);
        }
    }
    if (t->bad || columns <= p->leaf) return damaged(p, "a row group of the footer");
    return add_chunk(p, &mine, rows, foreign, secret);
}

/* The groups stand behind the schema in every file, but nothing in the format says so: they are read second.
 */
static qb_status read_groups(qb_thrift *t, qb_parquet *p) {
    int id = 0;
    for (qb_thrift_type type; (type = qb_thrift_field(t, &id)) != QB_THRIFT_STOP;) {
        if (id == 3) {
            p->rows = qb_thrift_int(t, type);
        } else if (id == 4) {
            qb_thrift_type of;
            int64_t n = qb_thrift_list(t, type, &of);
            if (n && of != QB_THRIFT_STRUCT) t->bad = true;
            for (int64_t i = 0; i < n && !t->bad; i++) {
                qb_status st = read_group(t, p);
                if (st != QB_OK) return st;
            }
        } else {
            qb_thrift_skip(t, type);
        }
    }
    int64_t rows = 0;
    for (size_t i = 0; i < p->n_chunks && rows >= 0 && rows <= p->rows; i++) rows += p->chunks[i].rows;
    return t->bad || rows != p->rows ? damaged(p, "the footer's row groups") : QB_OK;
}

static qb_status find_column(qb_thrift t, const char *column, qb_parquet *p) {
    choice c = {.wanted = column};
    int id = 0;
    for (qb_thrift_type type; (type = qb_thrift_field(&t, &id)) != QB_THRIFT_STOP;) {
        if (id == 2)
            read_schema(&t, type, &c);
        else
            qb_thrift_skip(&t, type);
    }
    qb_status st = t.bad ? damaged(p, "the footer") : qb_str_status(&c.names);
    if (st == QB_OK) st = choose(&c, p);
    qb_str_free(&c.names);
    return st;
}

static uint32_t little32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

qb_status qb_parquet_open(const void *bytes, size_t n, const char *name, const char *column,
                          qb_parquet **out) {
    qb_parquet *p;
    *out = NULL;
    qb_status st = qb_alloc_zero(1, sizeof *p, &p);
    if (st != QB_OK) return st;
    *p = (qb_parquet){.bytes = bytes, .n = n, .name = name};
    if (n >= 4 && !memcmp(p->bytes + n - 4, "PARE", 4))
        QB_TRY(st, qb_fail(QB_ERR_UNSUPPORTED, "%s: an encrypted Parquet file", name));
    if (n < 12 || memcmp(bytes, "PAR1", 4) != 0 || memcmp(p->bytes + n - 4, "PAR1", 4) != 0)
        QB_TRY(
            st,
            qb_fail(QB_ERR_FORMAT,
                    "%s is no Parquet file, or is cut off: expected PAR1 at both ends: fetch the file again",
                    name));
    uint32_t footer = little32(p->bytes + n - 8);
    if (footer > n - 12) QB_TRY(st, damaged(p, "the length of the footer"));
    qb_thrift t = {p->bytes + n - 8 - footer, p->bytes + n - 8, false};
    QB_TRY(st, find_column(t, column, p));
    QB_TRY(st, read_groups(&t, p));
out:
    if (st == QB_OK)
        *out = p;
    else
        qb_parquet_close(p);
    return st;
}

void qb_parquet_close(qb_parquet *p) {
    if (!p) return;
    qb_free(p->chunks);
    qb_free(p);
}

int64_t qb_parquet_rows(const qb_parquet *p) {
    return p->rows;
}

const char *qb_parquet_column(const qb_parquet *p) {
    return p->column;
}

/* ---- heads of pages ---- */

static void read_data_head(qb_thrift *t, qb_thrift_type type, qb_page_head *h) {
    int id = 0;
    if (type != QB_THRIFT_STRUCT) t->bad = true;
    while (!t->bad && (type = qb_thrift_field(t, &id)) != QB_THRIFT_STOP) {
        if (id == 1)
            h->values = qb_thrift_int(t, type);
        else if (id == 2)
            h->encoding = qb_thrift_int(t, type);
        else if (id == 3 && h->type != QB_PAGE_DICTIONARY)
            h->level_encoding = qb_thrift_int(t, type);
        else
            qb_thrift_skip(t, type);
    }
}

static void read_data_head_v2(qb_thrift *t, qb_thrift_type type, qb_page_head *h) {
    int id = 0;
    if (type != QB_THRIFT_STRUCT) t->bad = true;
    while (!t->bad && (type = qb_thrift_field(t, &id)) != QB_THRIFT_STOP) {
        switch (id) {
        case 1:
            h->values = qb_thrift_int(t, type);
            break;
        case 4:
            h->encoding = qb_thrift_int(t, type);
            break;
        case 5:
            h->level_bytes = qb_thrift_int(t, type);
            break;
        case 6:
            h->repeated_bytes = qb_thrift_int(t, type);
            break;
        case 7:
            h->compressed = qb_thrift_int(t, type) != 0;
            break;
        default:
            qb_thrift_skip(t, type);
        }
    }
}

qb_status qb_page_head_read(const qb_parquet *p, int64_t at, int64_t end, qb_page_head *out,
                            int64_t *length) {
    qb_thrift t = {p->bytes + at, p->bytes + end, false};
    int id = 0;
    *out = (qb_page_head){.type = -1, .encoding = -1, .level_encoding = QB_ENCODING_RLE, .compressed = true};
    for (qb_thrift_type type; (type = qb_thrift_field(&t, &id)) != QB_THRIFT_STOP;) {
        switch (id) {
        case 1:
            out->type = qb_thrift_int(&t, type);
            break;
        case 2:
            out->bytes = qb_thrift_int(&t, type);
            break;
        case 3:
            out->stored = qb_thrift_int(&t, type);
            break;
        case 5:
        case 7:
            read_data_head(&t, type, out);
            break;
        case 8:
            read_data_head_v2(&t, type, out);
            break;
        default:
            qb_thrift_skip(&t, type);
        }
    }
    *length = t.p - (p->bytes + at);
    if (t.bad || out->stored < 0 || out->bytes < 0 || out->values < 0 || out->stored > end - at - *length ||
        out->level_bytes < 0 || out->repeated_bytes < 0 ||
        out->level_bytes > out->stored - out->repeated_bytes)
        return damaged(p, "the head of a page");
    return QB_OK;
}
