#include "datasets/datasets.h"

#include "base/memory.h"
#include "datasets/documents.h"
#include "datasets/draw.h"
#include "datasets/locate.h"
#include "datasets/reading.h"
#include "datasets/rows.h"
#include "datasets/text.h"
#include "datasets/windows.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- How a split becomes ids ---- */

/* datautils.py draws, or truncates to, this many windows of the c4 texts. */
enum { C4_WINDOWS = 256 };

qb_status qb_reading_encode(qb_reading *r, const char *bytes, size_t n, const char *name, qb_ids *out) {
    qb_encoding e = {.special = r->special, .ends = r->ends, .limit = r->limit};
    qb_status st = qb_tokenizer_encode_as(r->tokenizer, bytes, n, &e, out);
    r->found += e.found;
    r->part = e.part;
    return st == QB_OK ? st : qb_fail_prefix(st, "%s", name);
}

/* Appends the file as one text, with the dataset's joins; `limit` (0: none) is of documents. */
static qb_status join_text(const qb_dataset *d, const qb_text *text, int64_t limit, const char *separator,
                           qb_str *out) {
    if (!d->documents) return qb_rows_join(text->bytes, text->n, d->join, separator, out);
    qb_documents documents;
    qb_status st = qb_documents_index(text, &documents);
    if (st == QB_OK) st = qb_documents_join(&documents, limit, separator, out);
    qb_documents_free(&documents);
    return st;
}

static qb_status encode_joined(const qb_dataset *d, const qb_text *text, int64_t limit, const char *separator,
                               qb_reading *r, qb_ids *out) {
    if (!d->documents && d->join == QB_JOIN_NONE)
        return qb_reading_encode(r, text->bytes, text->n, text->name, out);
    qb_str joined = {0};
    qb_status st = join_text(d, text, limit, separator, &joined);
    if (st == QB_OK) st = qb_reading_encode(r, qb_str_get(&joined), joined.length, text->name, out);
    qb_str_free(&joined);
    return st;
}

static qb_status evaluate_text(const qb_dataset *d, const qb_text *text, qb_reading *r, int64_t window,
                               qb_ids *out) {
    (void)window;
    return encode_joined(d, text, 0, d->separator, r, out);
}

/* c4: the sampling of calibration, seeded with 0, its 256 windows one behind the other. */
static qb_status evaluate_drawn(const qb_dataset *d, const qb_text *text, qb_reading *r, int64_t window,
                                qb_ids *out) {
    (void)d;
    qb_draw draw = {.n_samples = C4_WINDOWS, .seqlen = window, .seed = 0};
    int64_t needed = r->limit ? ((int64_t)r->limit + window - 1) / window : C4_WINDOWS;
    if (needed < C4_WINDOWS) draw.n_samples = needed;
    qb_drawn drawn = {0};
    qb_documents documents;
    qb_status st = qb_documents_index(text, &documents);
    if (st == QB_OK) st = qb_draw_documents(&documents, r, &draw, &drawn);
    r->part = (double)draw.n_samples / C4_WINDOWS;
    if (st == QB_OK) st = qb_grow(&out->ids, &out->capacity, out->count + drawn.ids.count, sizeof *out->ids);
    if (st == QB_OK) {
        memcpy(out->ids + out->count, drawn.ids.ids, drawn.ids.count * sizeof *out->ids);
        out->count += drawn.ids.count;
    }
    qb_documents_free(&documents);
    qb_drawn_free(&drawn);
    return st;
}

/* c4-new: the first documents joined by spaces, cut behind 256 windows. */
static qb_status evaluate_first_documents(const qb_dataset *d, const qb_text *text, qb_reading *r,
                                          int64_t window, qb_ids *out) {
    qb_draw asked = {.n_samples = C4_WINDOWS, .seqlen = window};
    size_t before = out->count;
    qb_status st = qb_draw_check(&asked);
    size_t most = (size_t)(C4_WINDOWS * window), limit = r->limit;
    if (!limit || limit > most) r->limit = most;
    if (st == QB_OK) st = encode_joined(d, text, d->first_documents, " ", r, out);
    /* The whole is those windows, not the documents. */
    size_t read = out->count - before;
    r->part = limit && limit < most && read == limit ? (double)read / (double)most : 1;
    r->limit = limit;
    return st;
}

static qb_status calibrate_text(const qb_dataset *d, const qb_text *text, qb_reading *r, const qb_draw *draw,
                                qb_drawn *out) {
    qb_ids ids = {0};
    qb_status st = encode_joined(d, text, 0, d->separator, r, &ids);
    if (st == QB_OK) st = qb_draw_text(&ids, draw, text->name, out);
    qb_ids_free(&ids);
    return st;
}

static qb_status calibrate_documents(const qb_dataset *d, const qb_text *text, qb_reading *r,
                                     const qb_draw *draw, qb_drawn *out) {
    (void)d;
    qb_documents documents;
    qb_status st = qb_documents_index(text, &documents);
    if (st == QB_OK) st = qb_draw_documents(&documents, r, draw, out);
    qb_documents_free(&documents);
    return st;
}

/* ---- Registry ---- */

/* As the loaders at the hub took their files apart: wikitext keeps a line with its newline and empties one of
   white space, ptb_text_only strips each. */
static const qb_row_form wikitext_rows = {"", "", " \n"}, ptb_rows = {" ", " \n", NULL};

static const qb_dataset datasets[] = {
#define QB_DATASET(...) {__VA_ARGS__},
#include "datasets/datasets.def"
#undef QB_DATASET
};
enum { N_DATASETS = sizeof datasets / sizeof datasets[0] };

/* The user's own files are no rows: their name is their path. */
static const qb_dataset own_text = {.name = "own text",
                                    .evaluation_role = "file",
                                    .calibration_role = "file",
                                    .join = QB_JOIN_NONE,
                                    .separator = "",
                                    .evaluate = evaluate_text,
                                    .calibrate = calibrate_text};
static const qb_dataset own_documents = {.name = "own documents",
                                         .evaluation_role = "file",
                                         .calibration_role = "file",
                                         .documents = true,
                                         .separator = "\n\n",
                                         .evaluate = evaluate_text,
                                         .calibrate = calibrate_documents};

const qb_dataset *qb_dataset_at(size_t index) {
    return index < N_DATASETS ? &datasets[index] : NULL;
}

const qb_dataset *qb_dataset_find(const char *name) {
    for (size_t i = 0; i < N_DATASETS; i++)
        if (strcmp(datasets[i].name, name) == 0) return &datasets[i];
    return NULL;
}

static qb_status fail_unknown(const char *name) {
    const char *names[N_DATASETS];
    qb_str list = {0};
    for (size_t i = 0; i < N_DATASETS; i++) {
        names[i] = datasets[i].name;
        qb_str_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    char hint[QB_HINT_CHARS];
    qb_status st =
        qb_fail(QB_ERR_USAGE,
                "unknown dataset \"%.256s\": expected one of %s, or the path of a text or JSON lines file%s",
                name, qb_str_get(&list), qb_did_you_mean(name, names, N_DATASETS, hint));
    qb_str_free(&list);
    return st;
}

/* ---- A split, opened ---- */

typedef struct split {
    const qb_dataset *dataset;
    qb_text text;
    char shown[64]; /* what results call it */
} split;

/* Says why figures on this file would not be the published ones. */
static qb_status note_differences(const split *s, bool calibration, bool substitute, char note[160]) {
    const qb_dataset *d = s->dataset;
    int64_t expected = calibration ? d->calibration_documents : d->evaluation_documents;
    note[0] = 0;
    if (substitute) {
        snprintf(note, 160, "a substitute for the canonical file: not comparable with published numbers");
    } else if (!calibration && d->evaluation_sha256) {
        char hex[QB_SHA256_HEX];
        qb_status st = qb_hash_bytes(s->text.bytes, s->text.n, hex);
        if (st != QB_OK) return st;
        if (strcmp(hex, d->evaluation_sha256) != 0)
            snprintf(note, 160,
                     "its text is not that of the canonical file: not comparable with published numbers");
    } else if (expected > 0) {
        qb_documents documents;
        qb_status st = qb_documents_index(&s->text, &documents);
        if (st != QB_OK) return st;
        if (documents.count != expected)
            snprintf(note, 160,
                     "%" PRId64 " documents, the canonical file has %" PRId64
                     ": not comparable with published numbers",
                     documents.count, expected);
        qb_documents_free(&documents);
    }
    return QB_OK;
}

static qb_status describe_file(const split *s, bool calibration, const qb_located *l, qb_data_files *files) {
    if (!files) return QB_OK;
    assert(l->path); /* locate() either finds a file or fails */
    files->n = 1;
    qb_data_file *f = &files->files[0];
    *f = (qb_data_file){0};
    qb_status st = qb_file_size(l->path, &f->bytes);
    if (st != QB_OK) return st;
    if (strlen(l->path) >= sizeof f->path)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: the path is longer than the %zu bytes a result can hold",
                       l->path, sizeof f->path - 1);
    snprintf(f->path, sizeof f->path, "%s", l->path);
    snprintf(f->role, sizeof f->role, "%s",
             calibration ? s->dataset->calibration_role : s->dataset->evaluation_role);
    st = qb_hash_file(l->path, f->sha256);
    return st == QB_OK ? note_differences(s, calibration, l->substitute, f->note) : st;
}

static qb_status locate(const char *name, bool calibration, const char *data_dir, const qb_dataset **dataset,
                        qb_located *out) {
    *out = (qb_located){0};
    *dataset = qb_dataset_find(name);
    if (*dataset) return qb_dataset_locate(*dataset, calibration, data_dir, out);
    bool there;
    qb_status st = qb_path_look(name, &there);
    if (st != QB_OK) return st;
    if (!there && !strpbrk(name, "./")) return fail_unknown(name);
    out->path = qb_strdup(name);
    return out->path ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
}

static void split_close(split *s) {
    qb_text_close(&s->text);
}

static qb_status split_open(const char *name, bool calibration, const char *data_dir, split *out,
                            qb_data_files *files) {
    *out = (split){0};
    if (files) *files = (qb_data_files){0};
    qb_located l;
    qb_status st;
    QB_TRY(st, locate(name, calibration, data_dir, &out->dataset, &l));
    QB_TRY(st, qb_text_open(l.path, l.entry, out->dataset ? out->dataset->rows : NULL, &out->text));
    if (!out->dataset) {
        out->dataset = out->text.documents ? &own_documents : &own_text;
        name = qb_path_base(l.path);
    }
    snprintf(out->shown, sizeof out->shown, "%s", name);
    if (out->text.n == 0) QB_TRY(st, qb_fail(QB_ERR_FORMAT, "%s: the text is empty", out->text.name));
    /* Documents are checked one by one, when they are used. */
    if (!out->dataset->documents) QB_TRY(st, qb_utf8_check(out->text.bytes, out->text.n, out->text.name));
    QB_TRY(st, describe_file(out, calibration, &l, files));
out:
    qb_located_free(&l);
    if (st != QB_OK) split_close(out);
    return st;
}

/* llama.cpp reads the file as it is: no rows, no joins. */
static qb_status evaluate_raw(const split *s, qb_reading *r, qb_ids *out) {
    const qb_dataset *d = s->dataset;
    if (!d->documents) return qb_reading_encode(r, s->text.bytes, s->text.n, s->text.name, out);
    return encode_joined(d, &s->text, d->first_documents, "\n", r, out);
}

/* ---- What the other rooms ask for ---- */

static qb_reading reading_of(const qb_source *s) {
    return (qb_reading){
        .tokenizer = s->tokenizer, .special = s->special, .ends = QB_ENDS_TEMPLATE, .part = 1};
}

static void describe_reading(const qb_reading *r, bool bos, qb_windows *out) {
    snprintf(out->special_tokens, sizeof out->special_tokens, "%s", qb_special_tokens_name(r->special));
    out->special_found = r->found;
    out->part = r->part;
    out->bos = bos;
}

qb_status qb_dataset_windows(const qb_source *source, const qb_protocol *p, int64_t max_windows,
                             qb_windows *out, qb_data_files *files) {
    *out = (qb_windows){0};
    split s;
    qb_ids ids = {0};
    bool raw = p->kind == QB_PROTOCOL_LLAMACPP;
    const qb_tokenizer *t = source->tokenizer;
    qb_reading r = reading_of(source);
    if (raw) r.ends = QB_ENDS_KEYS;
    r.limit = (size_t)qb_protocol_tokens(p, max_windows);
    qb_status st = split_open(source->dataset, false, source->data_dir, &s, files);
    if (st != QB_OK) return st;
    if (raw)
        QB_TRY(st, evaluate_raw(&s, &r, &ids));
    else
        QB_TRY(st, s.dataset->evaluate(s.dataset, &s.text, &r, p->window, &ids));
    bool bos = qb_tokenizer_adds_bos(t, r.ends);
    QB_TRY(st, qb_protocol_cut(p, &ids, bos ? qb_tokenizer_bos(t) : -1, max_windows, s.text.name, out));
    snprintf(out->dataset, sizeof out->dataset, "%s", s.shown);
    describe_reading(&r, bos, out);
out:
    qb_ids_free(&ids);
    split_close(&s);
    return st;
}

qb_status qb_dataset_calibration(const qb_source *source, int64_t n_samples, int64_t seqlen, uint64_t seed,
                                 qb_windows *out, qb_data_files *files, int64_t **starts,
                                 int64_t **documents) {
    *out = (qb_windows){0};
    if (starts) *starts = NULL;
    if (documents) *documents = NULL;
    qb_draw draw = {.n_samples = n_samples, .seqlen = seqlen, .seed = seed};
    qb_drawn drawn = {0};
    qb_reading r = reading_of(source);
    split s;
    qb_status st = qb_draw_check(&draw);
    if (st == QB_OK) st = split_open(source->dataset, true, source->data_dir, &s, files);
    if (st != QB_OK) return st;
    QB_TRY(st, s.dataset->calibrate(s.dataset, &s.text, &r, &draw, &drawn));
    QB_TRY(st, qb_windows_for_calibration(&drawn.ids, seqlen, drawn.total_tokens, s.shown, out));
    describe_reading(&r, qb_tokenizer_adds_bos(r.tokenizer, r.ends), out);
    if (starts) {
        *starts = drawn.starts;
        drawn.starts = NULL;
    }
    if (documents) {
        *documents = drawn.documents;
        drawn.documents = NULL;
    }
out:
    qb_drawn_free(&drawn);
    split_close(&s);
    return st;
}

qb_status qb_dataset_ids(const qb_source *source, bool calibration_split, int64_t window, qb_ids *out,
                         int64_t *found, qb_data_files *files) {
    split s;
    qb_reading r = reading_of(source);
    qb_status st = split_open(source->dataset, calibration_split, source->data_dir, &s, files);
    if (st != QB_OK) return st;
    st = calibration_split ? encode_joined(s.dataset, &s.text, 0, s.dataset->separator, &r, out)
                           : s.dataset->evaluate(s.dataset, &s.text, &r, window, out);
    if (found) *found = r.found;
    split_close(&s);
    return st;
}
