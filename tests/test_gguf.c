/* GGUF: blocks and models as the gguf package dequantizes them (tools/record_gguf_golden.py), the container
   and its lies. */
#include "tests/gguf_files.h"

#include "base/hash.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/layout.h"
#include "tests/view_support.h"

#define GOLDEN QB_SOURCE_DIR "/tests/golden/gguf"

static qb_json *golden(void) {
    qb_json *json;
    assert_ok(qb_json_read(GOLDEN "/golden.json", 1 << 20, &json));
    return json;
}

static int64_t int_of(const qb_json *object, const char *key) {
    int64_t v;
    assert_ok(qb_json_int(object, key, "golden", true, 0, INT32_MAX, &v));
    return v;
}
static const char *text_of(const qb_json *object, const char *key) {
    const char *v;
    assert_ok(qb_json_text(object, key, "golden", true, &v));
    return v;
}

static uint8_t *unhex(const char *text, size_t *n) {
    uint8_t *bytes;
    *n = strlen(text) / 2;
    assert_ok(qb_alloc(*n, 1, &bytes));
    for (size_t i = 0; i < *n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(text + 2 * i, "%2x", &byte), 1);
        bytes[i] = (uint8_t)byte;
    }
    return bytes;
}

static void assert_dequantizes_to(const qb_qweight *q, const char *sha256, const char *what) {
    char hex[QB_SHA256_HEX];
    float *values;
    assert_ok(qb_alloc((size_t)(q->rows * q->cols), 4, &values));
    qb_qweight_dequantize(q, values);
    assert_ok(qb_hash_bytes(values, (size_t)(q->rows * q->cols) * 4, hex));
    if (strcmp(hex, sha256) != 0) fail_msg("%s dequantizes to other values", what);
    qb_free(values);
}

static const qb_ggml_type *type_named(const char *name) {
    for (size_t i = 0; qb_ggml_type_at(i); i++)
        if (!strcmp(qb_ggml_type_at(i)->name, name)) return qb_ggml_type_at(i);
    fail_msg("no type %s", name);
    return NULL;
}

/* ---- blocks ---- */

static void test_gguf__blocks_dequantize_as_the_package_does(void **state) {
    (void)state;
    qb_json *json = golden();
    int n = 0;
    for (const qb_json *j = qb_json_first(qb_json_get(json, "blocks")); j; j = qb_json_next(j), n++) {
        const qb_ggml_type *t = type_named(text_of(j, "type"));
        size_t bytes;
        uint8_t *blocks = unhex(text_of(j, "blocks"), &bytes);
        int64_t rows = int_of(j, "rows"), cols = int_of(j, "cols");
        assert_int_equal(bytes, rows * (cols / t->block_columns) * t->block_bytes);
        qb_qweight q;
        assert_ok(qb_ggml_read(
            NULL, &(qb_ggml_matrix){.type = t, .blocks = blocks, .rows = rows, .cols = cols}, &q));
        assert_int_equal(q.bits, t->bits);
        assert_int_equal(t->has_book ? q.block_size : q.group_size, t->group_size);
        assert_int_equal(q.factor_groups, strstr(t->name, "_K") ? t->block_columns / t->group_size : 0);
        assert_dequantizes_to(&q, text_of(j, "sha256"), t->name);
        qb_qweight_free(&q);
        qb_free(blocks);
    }
    assert_int_equal(n, 13);
    qb_json_free(json);
}

static void test_gguf__damaged_scales_and_other_types_are_refused(void **state) {
    (void)state;
    uint8_t blocks[256] = {0};
    qb_qweight q;
    for (size_t i = 0; qb_ggml_type_at(i); i++) {
        const qb_ggml_type *t = qb_ggml_type_at(i);
        if (qb_ggml_type_is_packed(t)) {
            memset(blocks, 0xff, sizeof blocks); /* float16 NaN wherever it stands */
            assert_fails(
                qb_ggml_read(
                    NULL, &(qb_ggml_matrix){.type = t, .blocks = blocks, .rows = 1, .cols = t->block_columns},
                    &q),
                QB_ERR_NUMERIC, t->name);
            assert_fails(
                qb_ggml_read(
                    NULL,
                    &(qb_ggml_matrix){.type = t, .blocks = blocks, .rows = 1, .cols = t->block_columns - 1},
                    &q),
                QB_ERR_FORMAT, "no whole number");
        } else {
            assert_fails(
                qb_ggml_read(NULL, &(qb_ggml_matrix){.type = t, .blocks = blocks, .rows = 1, .cols = 256},
                             &q),
                QB_ERR_UNSUPPORTED,
                "is not supported (supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, "
                "Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4)");
            assert_non_null(strstr(qb_error_text(), t->name));
        }
        assert_null(q.codes);
    }
}

/* ---- whole files ---- */

static void check_tensor(qb_checkpoint *ck, const char *module, const qb_json *expected) {
    const qb_json *shape = qb_json_get(expected, "shape");
    const char *sha256 = text_of(expected, "sha256"), *type = text_of(expected, "type");
    char name[128], hex[QB_SHA256_HEX];
    const qb_tensor *t;
    snprintf(name, sizeof name, "%s.weight", module);
    assert_ok(qb_checkpoint_need(ck, name, &t));
    assert_string_equal(qb_checkpoint_dtype_name(ck, t), type);
    assert_int_equal(t->n_dims, qb_json_count(shape));
    int64_t rows = (int64_t)qb_json_number(qb_json_first(shape)), cols = 0;
    if (t->n_dims == 2) cols = (int64_t)qb_json_number(qb_json_next(qb_json_first(shape)));
    assert_int_equal(t->shape[0], rows);
    float *values;
    if (cols && t->dtype == QB_DTYPE_U8) {
        qb_weight w;
        assert_true(qb_layout_find("gguf")->present(ck, module));
        assert_ok(qb_checkpoint_linear(ck, module, rows, cols, &w));
        assert_non_null(w.packed);
        assert_dequantizes_to(w.packed, sha256, module);
        assert_view_is(ck, module, w.packed);
        qb_checkpoint_free_linear(ck, module, &w);
        assert_fails(qb_checkpoint_linear(ck, module, rows, cols + 32, &w), QB_ERR_FORMAT, type);
        return;
    }
    assert_ok(qb_checkpoint_read_f32(ck, name, rows, cols, &values));
    assert_ok(qb_hash_bytes(values, (size_t)(rows * (cols ? cols : 1)) * 4, hex));
    if (strcmp(hex, sha256) != 0) fail_msg("%s reads as other values", name);
    qb_free(values);
}

static void test_gguf__models_read_as_the_package_reads_them(void **state) {
    (void)state;
    qb_json *json = golden();
    for (const qb_json *m = qb_json_first(qb_json_get(json, "models")); m; m = qb_json_next(m)) {
        char path[512];
        qb_checkpoint *ck;
        size_t n = 0;
        snprintf(path, sizeof path, GOLDEN "/%s", text_of(m, "file"));
        assert_ok(qb_checkpoint_open(path, &ck));
        for (const qb_json *t = qb_json_first(qb_json_get(m, "tensors")); t; t = qb_json_next(t), n++)
            check_tensor(ck, qb_json_key(t), t);
        assert_int_equal(qb_checkpoint_count(ck), n);
        qb_checkpoint_close(ck);
    }
    qb_json_free(json);
}

static void test_gguf__quantization_is_named(void **state) {
    (void)state;
    static const struct {
        const char *file, *method;
        int bits;
        int64_t group_size;
        bool symmetric;
    } rows[] = {{"k.gguf", "q4_1", 4, 32, false}, {"legacy.gguf", "q4_1", 4, 32, false}};
    for (size_t i = 0; i < 2; i++) {
        char path[512];
        qb_checkpoint *ck;
        snprintf(path, sizeof path, GOLDEN "/%s", rows[i].file);
        assert_ok(qb_checkpoint_open(path, &ck));
        const qb_quantization *q = qb_checkpoint_quantization(ck);
        assert_string_equal(q->method, rows[i].method);
        assert_string_equal(q->layout, "gguf");
        assert_int_equal(q->bits, rows[i].bits);
        assert_int_equal(q->group_size, rows[i].group_size);
        assert_int_equal(q->symmetric, rows[i].symmetric);
        qb_checkpoint_close(ck);
    }
    assert_false(qb_layout_is_writable(qb_layout_find("gguf")));
    assert_fails(qb_layout_need_writer(qb_layout_find("gguf")), QB_ERR_UNSUPPORTED, "gguf is only read");
}

/* The same model in two containers: every tensor equal to the bit, rows put back, though one ties its head
   and the other holds it twice. */
static void test_gguf__equals_the_same_model_in_safetensors(void **state) {
    (void)state;
    qb_checkpoint *a, *b;
    assert_ok(qb_checkpoint_open(shared_path("fixtures/stories260K-f32.gguf"), &a));
    assert_ok(qb_checkpoint_open(shared_path("models/stories260K-hf"), &b));
    assert_int_equal(qb_checkpoint_gguf(a)->version, 1);
    assert_null(qb_checkpoint_gguf(b));
    for (size_t i = 0; i < qb_checkpoint_count(a); i++) {
        const qb_tensor *x = qb_checkpoint_at(a, i), *y;
        const void *xs, *ys;
        bool head = !strcmp(x->name, "lm_head.weight");
        assert_ok(qb_checkpoint_need(b, head ? "model.embed_tokens.weight" : x->name, &y));
        assert_int_equal(x->bytes, y->bytes);
        assert_ok(qb_checkpoint_acquire(a, x, &xs));
        assert_ok(qb_checkpoint_acquire(b, y, &ys));
        if (memcmp(xs, ys, (size_t)x->bytes) != 0) fail_msg("%s differs", x->name);
        qb_checkpoint_release(a, x);
        qb_checkpoint_release(b, y);
    }
    assert_int_equal(qb_checkpoint_count(a), qb_checkpoint_count(b) + 1);
    qb_checkpoint_close(a);
    qb_checkpoint_close(b);
}

/* ---- the container ---- */

static qb_status parse(const gguf_file *f) {
    qb_arena arena = {0};
    qb_gguf g;
    qb_status st = qb_gguf_parse((const uint8_t *)f->bytes.text, f->bytes.length, "x.gguf", &arena, &g);
    if (st != QB_OK) assert_null(g.values);
    qb_gguf_free(&g);
    qb_arena_free(&arena);
    return st;
}

/* Two tensors, metadata of several kinds, alignment 64. */
static gguf_file sound(uint32_t version) {
    gguf_file f = gguf_begin(version, 2, 6);
    uint16_t half = 7;
    gguf_int(&f, "general.alignment", 64);
    gguf_text(&f, "general.architecture", "llama");
    gguf_real(&f, "a.real", 0.5f);
    gguf_key(&f, "a.small", QB_GGUF_I16);
    gguf_put(&f, &half, 2);
    gguf_array(&f, "a.strings", QB_GGUF_STRING, 2);
    gguf_string(&f, "one");
    gguf_string(&f, "");
    gguf_array(&f, "a.nested", QB_GGUF_ARRAY, 1);
    gguf_u32(&f, QB_GGUF_U8);
    gguf_size(&f, 3);
    gguf_put(&f, "abc", 3);
    gguf_info(&f, "first", 2, (uint64_t[]){4, 3}, 0, 0);
    gguf_info(&f, "second", 1, (uint64_t[]){32}, 8, 64);
    gguf_data(&f, 64, 64 + 34);
    return f;
}

static void test_gguf__every_version_reads_the_same(void **state) {
    (void)state;
    for (uint32_t version = 1; version <= 3; version++) {
        gguf_file f = sound(version);
        qb_arena arena = {0};
        qb_gguf g;
        qb_gguf_string *strings;
        size_t n;
        double real;
        int64_t small;
        const char *text;
        bool flag = true;
        assert_ok(qb_gguf_parse((const uint8_t *)f.bytes.text, f.bytes.length, "x.gguf", &arena, &g));
        assert_int_equal(g.version, version);
        assert_int_equal(g.n_tensors, 2);
        assert_int_equal(g.tensors[0].shape[0], 3); /* outermost first */
        assert_int_equal(g.tensors[0].shape[1], 4);
        assert_int_equal(g.tensors[0].bytes, 48);
        assert_string_equal(g.tensors[1].type->name, "Q8_0");
        assert_int_equal(g.tensors[1].data[0], 64); /* counted from the start of the data */
        assert_ok(qb_gguf_real(&g, "a.real", true, 0, 1, &real));
        assert_true(real == 0.5);
        assert_ok(qb_gguf_int(&g, "a.small", true, 0, 10, &small));
        assert_int_equal(small, 7);
        assert_ok(qb_gguf_text(&g, "general.architecture", true, &text));
        assert_string_equal(text, "llama");
        assert_ok(qb_gguf_strings(&g, "a.strings", true, &strings, &n));
        assert_int_equal(n, 2);
        assert_int_equal(strings[0].n, 3);
        assert_memory_equal(strings[0].bytes, "one", 3);
        assert_int_equal(strings[1].n, 0);
        assert_ok(qb_gguf_bool(&g, "absent", false, &flag));
        assert_true(flag);
        assert_fails(qb_gguf_bool(&g, "absent", true, &flag), QB_ERR_FORMAT, "absent is missing");
        assert_fails(qb_gguf_bool(&g, "a.real", true, &flag), QB_ERR_FORMAT, "expected bool, found float32");
        assert_fails(qb_gguf_int(&g, "a.small", true, 8, 10, &small), QB_ERR_FORMAT,
                     "is 7, expected 8 .. 10");
        assert_fails(qb_gguf_int(&g, "a.strings", true, 8, 10, &small), QB_ERR_FORMAT, "an array of string");
        qb_free(strings);
        qb_gguf_free(&g);
        qb_arena_free(&arena);
        gguf_free(&f);
    }
}

static void test_gguf__whole_numbers_of_every_width(void **state) {
    (void)state;
    static const struct {
        qb_gguf_kind kind;
        size_t bytes;
        int64_t value;
    } rows[] = {{QB_GGUF_U8, 1, 200},          {QB_GGUF_I8, 1, -100},       {QB_GGUF_I8, 1, 100},
                {QB_GGUF_U16, 2, 40000},       {QB_GGUF_I16, 2, -30000},    {QB_GGUF_U32, 4, 4000000000},
                {QB_GGUF_I32, 4, -2000000000}, {QB_GGUF_U64, 8, INT64_MAX}, {QB_GGUF_I64, 8, INT64_MIN}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gguf_file f = gguf_begin(3, 0, 2);
        gguf_key(&f, "n", rows[i].kind);
        gguf_put(&f, &rows[i].value, rows[i].bytes);
        gguf_key(&f, "huge", QB_GGUF_U64);
        gguf_put(&f, (uint64_t[]){UINT64_MAX}, 8);
        qb_arena arena = {0};
        qb_gguf g;
        int64_t n = 0;
        assert_ok(qb_gguf_parse((const uint8_t *)f.bytes.text, f.bytes.length, "x.gguf", &arena, &g));
        assert_ok(qb_gguf_int(&g, "n", true, INT64_MIN, INT64_MAX, &n));
        assert_true(n == rows[i].value);
        assert_fails(qb_gguf_int(&g, "huge", true, INT64_MIN, INT64_MAX, &n), QB_ERR_FORMAT, "huge");
        qb_gguf_free(&g);
        qb_arena_free(&arena);
        gguf_free(&f);
    }
}

/* Whatever the length at which a file ends, it is refused by one sentence. */
static void test_gguf__a_file_cut_anywhere_is_refused(void **state) {
    (void)state;
    for (uint32_t version = 1; version <= 3; version++) {
        gguf_file f = sound(version);
        size_t whole = f.bytes.length;
        assert_ok(parse(&f));
        while (f.bytes.length > 0) {
            f.bytes.length--;
            if (parse(&f) == QB_OK) fail_msg("%zu of %zu bytes are accepted", f.bytes.length, whole);
            assert_null(strchr(qb_error_text(), '\n'));
        }
        gguf_free(&f);
    }
}

static void refuse(gguf_file f, qb_status status, const char *needle) {
    assert_fails(parse(&f), status, needle);
    gguf_free(&f);
}

static void test_gguf__headers_that_lie_are_refused(void **state) {
    (void)state;
    gguf_file f = {0};
    gguf_put(&f, "GGML\3\0\0\0", 8);
    refuse(f, QB_ERR_FORMAT, "is no GGUF file");
    refuse(gguf_begin(4, 0, 0), QB_ERR_UNSUPPORTED, "version 4 is not supported (1, 2 and 3 are)");
    refuse(gguf_begin(0, 0, 0), QB_ERR_UNSUPPORTED, "version 0");
    refuse(gguf_begin(3u << 24, 0, 0), QB_ERR_UNSUPPORTED, "big-endian");
    refuse(gguf_begin(3, UINT64_MAX, 0), QB_ERR_FORMAT, "more than its 24 bytes can hold");
    refuse(gguf_begin(3, 0, 1ull << 40), QB_ERR_FORMAT, "more than its 24 bytes can hold");
}

static void test_gguf__metadata_that_lies_is_refused(void **state) {
    (void)state;
    gguf_file f = gguf_begin(3, 0, 2);
    gguf_int(&f, "twice", 1);
    gguf_int(&f, "twice", 2);
    refuse(f, QB_ERR_FORMAT, "twice is there twice");
    f = gguf_begin(3, 0, 1);
    gguf_key(&f, "odd", (qb_gguf_kind)13);
    gguf_u32(&f, 0);
    refuse(f, QB_ERR_FORMAT, "value type 13");
    f = gguf_begin(3, 0, 1);
    gguf_array(&f, "long", QB_GGUF_U32, UINT64_MAX / 2);
    refuse(f, QB_ERR_FORMAT, "items");
    f = gguf_begin(3, 0, 1);
    gguf_array(&f, "strings", QB_GGUF_STRING, 1);
    gguf_size(&f, UINT64_MAX);
    refuse(f, QB_ERR_FORMAT, "says that it has 18446744073709551615 bytes");
    f = gguf_begin(3, 0, 1);
    gguf_array(&f, "deep", QB_GGUF_ARRAY, 1);
    for (int i = 0; i < 6; i++) gguf_u32(&f, QB_GGUF_ARRAY), gguf_size(&f, 1);
    refuse(f, QB_ERR_UNSUPPORTED, "nest deeper");
    f = gguf_begin(3, 0, 1);
    gguf_key(&f, "flag", QB_GGUF_BOOL);
    gguf_put(&f, "\2", 1);
    refuse(f, QB_ERR_FORMAT, "a truth value is 2");
    f = gguf_begin(3, 0, 1);
    gguf_int(&f, "line\nbreak", 1);
    refuse(f, QB_ERR_FORMAT, "control characters");
    f = gguf_begin(3, 0, 1);
    gguf_int(&f, "general.alignment", 24);
    refuse(f, QB_ERR_FORMAT, "expected a power of two");
    f = gguf_begin(3, 0, 1);
    gguf_int(&f, "general.alignment", 0);
    refuse(f, QB_ERR_FORMAT, "general.alignment is 0");
}

static gguf_file one_tensor(int n_dims, const uint64_t *ne, uint32_t type, uint64_t offset, size_t data) {
    gguf_file f = gguf_begin(3, 1, 0);
    gguf_info(&f, "t", n_dims, ne, type, offset);
    gguf_data(&f, 32, data);
    return f;
}

static void test_gguf__tensors_that_lie_are_refused(void **state) {
    (void)state;
    refuse(one_tensor(5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 0, 4), QB_ERR_FORMAT, "5 dimensions");
    refuse(one_tensor(1, (uint64_t[]){1}, 99, 0, 4), QB_ERR_UNSUPPORTED, "type 99, which is not known");
    refuse(one_tensor(1, (uint64_t[]){32}, 31, 0, 64), QB_ERR_UNSUPPORTED, "Q4_0_4_4, which left the format");
    refuse(one_tensor(1, (uint64_t[]){33}, 8, 0, 64), QB_ERR_FORMAT, "no whole number of Q8_0 blocks of 32");
    refuse(one_tensor(2, (uint64_t[]){1ull << 40, 1ull << 40}, 0, 0, 4), QB_ERR_FORMAT, "beyond 64 bits");
    refuse(one_tensor(2, (uint64_t[]){0, UINT64_MAX}, 0, 0, 4), QB_ERR_FORMAT, "beyond 63 bits");
    refuse(one_tensor(1, (uint64_t[]){16}, 0, 0, 63), QB_ERR_FORMAT, "reach beyond the end");
    refuse(one_tensor(1, (uint64_t[]){8}, 0, 16, 64), QB_ERR_FORMAT, "no multiple of the alignment 32");
    refuse(one_tensor(1, (uint64_t[]){8}, 0, UINT64_MAX - 31, 64), QB_ERR_FORMAT, "reach beyond the end");
    gguf_file f = gguf_begin(3, 2, 0);
    gguf_info(&f, "a", 1, (uint64_t[]){16}, 0, 0);
    gguf_info(&f, "b", 1, (uint64_t[]){8}, 0, 32);
    gguf_data(&f, 32, 64);
    refuse(f, QB_ERR_FORMAT, "tensor b overlaps tensor a");
    f = gguf_begin(3, 2, 0);
    gguf_info(&f, "a", 1, (uint64_t[]){8}, 0, 0);
    gguf_info(&f, "a", 1, (uint64_t[]){8}, 0, 32);
    gguf_data(&f, 32, 64);
    refuse(f, QB_ERR_FORMAT, "tensor a is there twice");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf__blocks_dequantize_as_the_package_does),
        cmocka_unit_test(test_gguf__damaged_scales_and_other_types_are_refused),
        cmocka_unit_test(test_gguf__models_read_as_the_package_reads_them),
        cmocka_unit_test(test_gguf__quantization_is_named),
        cmocka_unit_test(test_gguf__equals_the_same_model_in_safetensors),
        cmocka_unit_test(test_gguf__every_version_reads_the_same),
        cmocka_unit_test(test_gguf__whole_numbers_of_every_width),
        cmocka_unit_test(test_gguf__a_file_cut_anywhere_is_refused),
        cmocka_unit_test(test_gguf__headers_that_lie_are_refused),
        cmocka_unit_test(test_gguf__metadata_that_lies_is_refused),
        cmocka_unit_test(test_gguf__tensors_that_lie_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
