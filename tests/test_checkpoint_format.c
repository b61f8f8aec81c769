/* Hostile safetensors files, indexes and directories: one clear line each, and never a crash. */
#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"
#include "tests/checkpoint_files.h"
#include "tests/support.h"

/* Parses header + n data bytes in a buffer of just that size. */
static qb_status parse(const char *header, size_t n, qb_safetensors *out, qb_arena *arena, uint8_t **bytes) {
    uint64_t length = strlen(header);
    assert_ok(qb_alloc_zero(8 + length + n, 1, bytes));
    memcpy(*bytes, &length, 8);
    memcpy(*bytes + 8, header, length);
    return qb_safetensors_parse(*bytes, 8 + length + n, "f.safetensors", arena, out);
}

static void test_checkpoint_format__accepts_what_the_format_allows(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t n, count;
    } rows[] = {
        {"{}", 0, 0},
        {"{}      ", 0, 0},
        {"{\"__metadata__\":{\"format\":\"pt\"}}", 0, 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, 1},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]}}", 0, 1},
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[4,6]},\"a\":{\"shape\":[1],\"data_"
         "offsets\":[0,4],\"dtype\":\"F32\"}}",
         6, 2},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2, 1},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"z\":{\"dtype\":\"U8\",\"shape\":["
         "0],\"data_offsets\":[0,0]}}",
         1, 2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_safetensors s;
        qb_arena arena = {0};
        uint8_t *bytes;
        assert_ok(parse(rows[i].header, rows[i].n, &s, &arena, &bytes));
        assert_int_equal(s.count, rows[i].count);
        qb_arena_free(&arena);
        qb_free(bytes);
    }
}

#define T(body) "{\"a\":{" body "}}"
#define TWO(x, y)                                                                                            \
    "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" x                                             \
    "},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" y "}}"

static void test_checkpoint_format__refuses_lying_headers(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t n;
        const char *needle;
    } rows[] = {
        {"", 0, "not a JSON object"},
        {"[]", 0, "not a JSON object"},
        {" {}", 0, "not a JSON object"},
        {"{\"a\":", 0, "not valid JSON"},
        {"{} {}", 0, "text after the end"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"x\":1}}", 0, "\"x\" is not a string"},
        {"{\"a\":[]}", 0, "tensor a is not an object"},
        {"{\"\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "tensor name is empty"},
        {"{\"a\\nb\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "control characters"},
        {"{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
         "not a JSON object of tensors"},
        {T("\"shape\":[1],\"data_offsets\":[0,1]"), 1, "tensor a lacks \"dtype\""},
        {T("\"dtype\":\"U8\",\"data_offsets\":[0,1]"), 1, "tensor a lacks \"shape\""},
        {T("\"dtype\":\"U8\",\"shape\":[1]"), 1, "tensor a lacks \"data_offsets\""},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,1]"), 1,
         "repeated key \"shape\""},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"stride\":[1],\"data_offsets\":[0,1]"), 1,
         "unknown key \"stride\""},
        {T("\"dtype\":\"U8\",\"s\\nape\":[1],\"data_offsets\":[0,1]"), 1, "unknown key \"s?ape\""},
        {T("\"dtype\":\"F12\",\"shape\":[1],\"data_offsets\":[0,1]"), 1,
         "tensor a has the unknown dtype \"F12\""},
        {T("\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]"), 1, "unknown dtype"},
        {T("\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]"), 1, "\"shape\" must be an array"},
        {T("\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]"), 1,
         "dimension 0 of \"shape\" is not a size"},
        {T("\"dtype\":\"U8\",\"shape\":[1,1.5],\"data_offsets\":[0,1]"), 1, "dimension 1 of \"shape\""},
        {T("\"dtype\":\"U8\",\"shape\":[\"1\"],\"data_offsets\":[0,1]"), 1, "dimension 0 of \"shape\""},
        {T("\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]"), 1,
         "more than 8 dimensions"},
        {T("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), 0,
         "the size of F32 [4294967296, 4294967296] overflows"},
        {T("\"dtype\":\"F32\",\"shape\":[4503599627370496,1024],\"data_offsets\":[0,0]"), 0, "overflows"},
        {T("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]"), 1, "overflows"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]"), 1, "must be two byte positions"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]"), 1, "must be two byte positions"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1e300]"), 1, "must be two byte positions"},
        {T("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]"), 1, "do not lie in the 1 data bytes"},
        {T("\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]"), 8,
         "offsets 0..9 do not lie in the 8 data bytes (is the file cut short?)"},
        {T("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]"), 4,
         "F32 [2] takes 8 bytes, its offsets span 4"},
        {T("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]"), 5,
         "3 bytes at the end belong to no tensor"},
        {T("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]"), 5,
         "3 bytes before tensor a belong to no tensor"},
        {TWO("[0,4]", "[2,6]"), 6, "tensor b overlaps tensor a"},
        {TWO("[0,4]", "[0,4]"), 4, "overlaps"},
        {TWO("[0,4]", "[5,9]"), 9, "1 bytes before tensor b"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":["
         "1],\"data_offsets\":[1,2]}}",
         2, "tensor a is listed twice"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_safetensors s;
        qb_arena arena = {0};
        uint8_t *bytes;
        qb_status st = parse(rows[i].header, rows[i].n, &s, &arena, &bytes);
        if (st == QB_OK || !strstr(qb_error_text(), rows[i].needle) ||
            strncmp(qb_error_text(), "f.safetensors", 13) != 0 || strchr(qb_error_text(), '\n'))
            fail_msg("%s: %s: %s; expected \"%s\"", rows[i].header, qb_status_name(st), qb_error_text(),
                     rows[i].needle);
        assert_int_equal(s.count, 0);
        qb_arena_free(&arena);
        qb_free(bytes);
    }
}

static void test_checkpoint_format__refuses_a_lying_header_length(void **state) {
    (void)state;
    uint8_t bytes[16] = {0};
    qb_arena arena = {0};
    qb_safetensors s;
    assert_fails(qb_safetensors_parse(bytes, 7, "f", &arena, &s), QB_ERR_FORMAT, "7 bytes are too few");
    assert_fails(qb_safetensors_parse(bytes, 8, "f", &arena, &s), QB_ERR_FORMAT, "not a JSON object");
    bytes[0] = 9;
    assert_fails(qb_safetensors_parse(bytes, 16, "f", &arena, &s), QB_ERR_FORMAT,
                 "should take 9 bytes, the file ends after 8");
    memset(bytes, 0xff, 8);
    assert_fails(qb_safetensors_parse(bytes, 16, "f", &arena, &s), QB_ERR_FORMAT,
                 "18446744073709551615 bytes is above the format's limit");
    qb_arena_free(&arena);
}

/* Every prefix of a small real file is refused, and none reads outside it (the buffer is exact: ASan
 * watches). */
static void test_checkpoint_format__refuses_every_truncation(void **state) {
    (void)state;
    char path[1024], *whole;
    size_t size;
    snprintf(path, sizeof path, "%s/tests/golden/layouts/gptq-3bit/model.safetensors", QB_SOURCE_DIR);
    assert_ok(qb_file_read(path, 1 << 20, &whole, &size));
    for (size_t n = 0; n < size; n++) {
        uint8_t *cut;
        qb_safetensors s;
        qb_arena arena = {0};
        assert_ok(qb_alloc(n, 1, &cut));
        if (n) memcpy(cut, whole, n);
        assert_int_equal(qb_safetensors_parse(cut, n, "f", &arena, &s), QB_ERR_FORMAT);
        qb_arena_free(&arena);
        qb_free(cut);
    }
    qb_free(whole);
}

/* ---- directories ---- */

#define ONE_A "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}"
#define ONE_B "{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}"

static qb_status open_dir(const char *dir) {
    qb_checkpoint *ck;
    qb_status st = qb_checkpoint_open(dir, &ck);
    qb_checkpoint_close(ck);
    return st;
}

static void test_checkpoint_format__opens_shards_through_their_index(void **state) {
    (void)state;
    char *dir = scratch_make();
    char hex[QB_SHA256_HEX], again[QB_SHA256_HEX];
    qb_checkpoint *ck;
    write_text(dir, "config.json", "{}");
    write_safetensors(dir, "model-1.safetensors", ONE_A, 2);
    write_safetensors(dir, "model-2.safetensors", ONE_B, 3);
    write_text(dir, "model.safetensors.index.json",
               "{\"weight_map\":{\"b\":\"model-2.safetensors\",\"a\":\"model-1.safetensors\"}}");
    assert_ok(qb_checkpoint_open(dir, &ck));
    assert_int_equal(qb_checkpoint_count(ck), 2);
    assert_int_equal(qb_checkpoint_tensor_bytes(ck), 5);
    const void *bytes;
    assert_ok(qb_checkpoint_acquire(ck, qb_checkpoint_find(ck, "b"), &bytes));
    assert_memory_equal(bytes, "\0\1\2", 3);
    qb_checkpoint_release(ck, qb_checkpoint_find(ck, "b"));
    assert_ok(qb_checkpoint_sha256(ck, hex));
    assert_ok(qb_checkpoint_sha256(ck, again));
    assert_string_equal(hex, again);
    qb_checkpoint_close(ck);
    /* The identity follows the bytes. */
    write_safetensors(dir, "model-2.safetensors",
                      "{\"b\":{\"dtype\":\"I8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3);
    assert_ok(qb_checkpoint_open(dir, &ck));
    assert_ok(qb_checkpoint_sha256(ck, again));
    assert_string_not_equal(hex, again);
    qb_checkpoint_close(ck);
    scratch_remove(dir);
}

static void test_checkpoint_format__refuses_lying_indexes(void **state) {
    (void)state;
    static const struct {
        const char *map;
        qb_status status;
        const char *needle;
    } rows[] = {
        {"{\"a\":\"model-1.safetensors\",\"b\":\"model-3.safetensors\"}", QB_ERR_NOT_FOUND,
         "shard 2 of 2: cannot open"},
        {"{\"a\":\"../model-1.safetensors\"}", QB_ERR_FORMAT,
         "\"../model-1.safetensors\" is not a plain file name"},
        {"{\"a\":\"..\"}", QB_ERR_FORMAT, "not a plain file name"},
        {"{\"a\":\"/etc/passwd\"}", QB_ERR_FORMAT, "not a plain file name"},
        {"{\"a\":7}", QB_ERR_FORMAT, "not a plain file name"},
        {"{}", QB_ERR_FORMAT, "\"weight_map\" must name the file of every tensor"},
        {"3", QB_ERR_FORMAT, "\"weight_map\" must name the file of every tensor"},
    };
    char *dir = scratch_make();
    write_text(dir, "config.json", "{}");
    write_safetensors(dir, "model-1.safetensors", ONE_A, 2);
    write_safetensors(dir, "model-2.safetensors", ONE_B, 3);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[512];
        snprintf(text, sizeof text, "{\"weight_map\":%s}", rows[i].map);
        write_text(dir, "model.safetensors.index.json", text);
        assert_fails(open_dir(dir), rows[i].status, rows[i].needle);
    }
    scratch_remove(dir);
}

static void test_checkpoint_format__says_what_a_directory_lacks(void **state) {
    (void)state;
    char *dir = scratch_make();
    char *file = qb_path_join(dir, "config.json"), *absent = qb_path_join(dir, "absent");
    assert_fails(open_dir(absent), QB_ERR_NOT_FOUND, "does not exist");
    assert_fails(open_dir(dir), QB_ERR_NOT_FOUND, "config.json");
    write_text(dir, "config.json", "[]");
    assert_fails(open_dir(dir), QB_ERR_FORMAT, "expected a JSON object");
    write_text(dir, "config.json", "{}");
    assert_fails(open_dir(file), QB_ERR_FORMAT, "is no GGUF file (a model is a Hugging Face directory");
    assert_fails(open_dir(dir), QB_ERR_NOT_FOUND,
                 "neither model.safetensors nor model.safetensors.index.json");
    write_text(dir, "pytorch_model.bin", "x");
    assert_fails(open_dir(dir), QB_ERR_FORMAT, "pytorch_model.bin is no file of torch.save");
    write_safetensors(dir, "gptq_model-4bit.safetensors", ONE_A, 2);
    assert_ok(open_dir(dir)); /* the one file of an older repository */
    write_safetensors(dir, "other.safetensors", ONE_B, 3);
    assert_fails(open_dir(dir), QB_ERR_FORMAT, "holds 2 safetensors files but neither");
    write_bytes(dir, "model.safetensors", "", 0);
    assert_fails(open_dir(dir), QB_ERR_FORMAT, "0 bytes are too few");
    qb_free(file);
    qb_free(absent);
    scratch_remove(dir);
}

/* Data that is not aligned for its dtype, and a dtype that nothing here reads. */
static void test_checkpoint_format__copies_what_is_not_aligned(void **state) {
    (void)state;
    char *dir = scratch_make();
    qb_checkpoint *ck;
    const void *bytes;
    float *values;
    write_text(dir, "config.json", "{}");
    write_safetensors(dir, "model.safetensors",
                      "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"f\":{\"dtype\":"
                      "\"F32\",\"shape\":[3],\"data_offsets\":[1,13]},"
                      "\"e\":{\"dtype\":\"F8_E5M2\",\"shape\":[2],\"data_offsets\":[13,15]}}",
                      15);
    assert_ok(qb_checkpoint_open(dir, &ck));
    const qb_tensor *t = qb_checkpoint_find(ck, "f");
    assert_ok(qb_checkpoint_acquire(ck, t, &bytes));
    assert_int_equal((uintptr_t)bytes % 4, 0);
    assert_memory_equal(bytes, "\1\2\3\4\5\6\7\10\11\12\13\14", 12);
    qb_checkpoint_release(ck, t);
    assert_ok(qb_checkpoint_read_f32(ck, "f", 3, 0, &values));
    assert_true(values[0] == qb_f32_of_bits(0x04030201));
    qb_free(values);
    assert_fails(qb_checkpoint_acquire(ck, qb_checkpoint_find(ck, "e"), &bytes), QB_ERR_UNSUPPORTED,
                 "tensor e has dtype F8_E5M2, which is not supported yet");
    assert_fails(qb_checkpoint_read_f32(ck, "e", 2, 0, &values), QB_ERR_UNSUPPORTED,
                 "expected F32, F16 or BF16 [2], found F8_E5M2 [2]");
    assert_fails(qb_checkpoint_read_f32(ck, "a", 1, 0, &values), QB_ERR_FORMAT, "found U8 [1]");
    qb_checkpoint_close(ck);
    scratch_remove(dir);
}

/* Look-ups must not be linear: 40000 tensors open and are found again in well under a second. */
static void test_checkpoint_format__handles_many_tensors(void **state) {
    (void)state;
    enum { N = 40000 };
    char *dir = scratch_make();
    qb_str header = {0};
    qb_checkpoint *ck;
    qb_str_text(&header, "{");
    for (int i = 0; i < N; i++)
        qb_str_printf(&header,
                      "%s\"model.layers.%d.mlp.experts.%d.w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_"
                      "offsets\":[%d,%d]}",
                      i ? "," : "", i / 512, i % 512, i, i + 1);
    qb_str_text(&header, "}");
    write_text(dir, "config.json", "{}");
    write_safetensors(dir, "model.safetensors", header.text, N);
    qb_str_free(&header);
    assert_ok(qb_checkpoint_open(dir, &ck));
    assert_int_equal(qb_checkpoint_count(ck), N);
    for (int i = 0; i < N; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.w", i / 512, i % 512);
        const qb_tensor *t = qb_checkpoint_find(ck, name);
        assert_non_null(t);
        assert_int_equal(*(const uint8_t *)t->data, i & 255);
    }
    qb_checkpoint_close(ck);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint_format__accepts_what_the_format_allows),
        cmocka_unit_test(test_checkpoint_format__refuses_lying_headers),
        cmocka_unit_test(test_checkpoint_format__refuses_a_lying_header_length),
        cmocka_unit_test(test_checkpoint_format__refuses_every_truncation),
        cmocka_unit_test(test_checkpoint_format__opens_shards_through_their_index),
        cmocka_unit_test(test_checkpoint_format__refuses_lying_indexes),
        cmocka_unit_test(test_checkpoint_format__says_what_a_directory_lacks),
        cmocka_unit_test(test_checkpoint_format__copies_what_is_not_aligned),
        cmocka_unit_test(test_checkpoint_format__handles_many_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
