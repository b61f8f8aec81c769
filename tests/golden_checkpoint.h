/* The module that tests/golden/readers holds in many layouts (tools/record_reader_golden.py), and spoilt
   copies of it. */
#pragma once

#include "base/hash.h"
#include "checkpoint/writer.h"
#include "tests/checkpoint_files.h"
#include "tests/support.h"
#include "tests/view_support.h"

enum { ROWS = 32, COLS = 64 };

/* ---- helpers ---- */

static inline const char *golden_path(const char *name) {
    static char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/readers/%s", QB_SOURCE_DIR, name);
    return path;
}

static inline qb_checkpoint *open_ok(const char *dir) {
    qb_checkpoint *ck;
    assert_ok(qb_checkpoint_open(dir, &ck));
    return ck;
}

/* The bytes of a tensor, held until the checkpoint is closed. */
static inline const void *bytes_of(qb_checkpoint *ck, const char *name, int64_t *n) {
    const qb_tensor *t;
    const void *bytes;
    assert_ok(qb_checkpoint_need(ck, name, &t));
    assert_ok(qb_checkpoint_acquire(ck, t, &bytes));
    if (n) *n = t->bytes;
    return bytes;
}

static inline qb_qweight read_golden(const char *name, int64_t cols) {
    qb_checkpoint *ck = open_ok(golden_path(name));
    qb_weight w;
    assert_ok(qb_checkpoint_linear(ck, "m", ROWS, cols, &w));
    assert_non_null(w.packed);
    qb_qweight q = *w.packed;
    qb_free(w.packed);
    assert_view_is(ck, "m", &q);
    qb_checkpoint_close(ck);
    return q;
}

static inline void assert_dequantized(qb_checkpoint *ck, const qb_qweight *q) {
    char hex[QB_SHA256_HEX];
    float *dense;
    assert_ok(qb_alloc((size_t)(q->rows * q->cols), sizeof *dense, &dense));
    qb_qweight_dequantize(q, dense);
    assert_ok(qb_hash_bytes(dense, (size_t)(q->rows * q->cols) * sizeof *dense, hex));
    assert_memory_equal(hex, bytes_of(ck, "true.dequantized_sha256", NULL), 64);
    qb_free(dense);
}

/* ---- spoilt copies ---- */

/* One change to a tensor of a golden directory. */
typedef struct {
    const char *tensor; /* "qweight": of module m; NULL: none */
    enum { KEEP, DROP, RESHAPE, RETYPE, POKE } how;
    int64_t shape[2]; /* RESHAPE; the bytes are zeros */
    qb_dtype dtype;   /* RETYPE, of as many zero bytes as the shape takes */
    size_t at, n;     /* POKE */
    const void *bytes;
    const char *config; /* in place of config.json's text */
} spoil;

static inline bool changes(const spoil *s, const char *name) {
    return s->tensor && !strncmp(name, "m.", 2) && !strcmp(name + 2, s->tensor);
}

static inline void plan_copy(qb_writer *w, const qb_tensor *t, const spoil *s) {
    int64_t shape[QB_MAX_DIMS];
    memcpy(shape, t->shape, sizeof shape);
    if (changes(s, t->name) && s->how == DROP) return;
    if (changes(s, t->name) && s->how == RESHAPE) memcpy(shape, s->shape, sizeof s->shape);
    assert_ok(qb_writer_plan(w, t->name, changes(s, t->name) && s->how == RETYPE ? s->dtype : t->dtype,
                             t->n_dims, shape));
}

static inline void put_copy(qb_writer *w, qb_checkpoint *ck, const qb_tensor *t, const spoil *s) {
    int64_t planned = qb_writer_planned_bytes(w, t->name);
    if (planned < 0) return;
    uint8_t *bytes;
    assert_ok(qb_alloc_zero((size_t)planned, 1, &bytes));
    if (!changes(s, t->name) || s->how == POKE) memcpy(bytes, bytes_of(ck, t->name, NULL), (size_t)t->bytes);
    if (changes(s, t->name) && s->how == POKE) memcpy(bytes + s->at, s->bytes, s->n);
    assert_ok(qb_writer_put(w, t->name, bytes, planned));
    qb_free(bytes);
}

/* A copy of golden directory `name` at `target` with one thing changed. */
static inline void spoil_golden(const char *name, const spoil *s, const char *target) {
    qb_checkpoint *ck = open_ok(golden_path(name));
    qb_writer *w;
    qb_json *config;
    assert_ok(qb_writer_create(target, true, 0, &w));
    for (size_t i = 0; i < qb_checkpoint_count(ck); i++) plan_copy(w, qb_checkpoint_at(ck, i), s);
    assert_ok(qb_writer_begin(w));
    for (size_t i = 0; i < qb_checkpoint_count(ck); i++) put_copy(w, ck, qb_checkpoint_at(ck, i), s);
    if (s->config)
        assert_ok(qb_json_parse(s->config, strlen(s->config), "test", &config));
    else
        config = qb_json_copy(qb_checkpoint_config(ck));
    assert_ok(qb_writer_put_json(w, "config.json", config));
    qb_json_free(config);
    assert_ok(qb_writer_finish(w));
    qb_checkpoint_close(ck);
}

/* Reads module m of a spoilt copy; with QB_OK its weight must dequantize to what the golden says. */
static inline void check_spoilt(const char *name, const spoil *s, qb_status status, const char *needle) {
    char *dir = scratch_make();
    char *target = qb_path_join(dir, "out");
    spoil_golden(name, s, target);
    qb_checkpoint *ck;
    qb_weight w = {0};
    qb_status st = qb_checkpoint_open(target, &ck);
    if (st == QB_OK) st = qb_checkpoint_linear(ck, "m", ROWS, COLS, &w);
    if (status == QB_OK) {
        assert_ok(st);
        assert_dequantized(ck, w.packed);
    } else {
        assert_fails(st, status, needle);
        assert_null(strchr(qb_error_text(), '\n'));
    }
    qb_weight_free(&w);
    qb_checkpoint_close(ck);
    qb_free(target);
    scratch_remove(dir);
}

#define CONFIG(members) "{\"quantization_config\":{" members "}}"
