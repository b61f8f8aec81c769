/* Ids and texts against tokenizer_hostile.json, recorded from the reference libraries by
   tools/record_tokenizer_golden.py. The two forms differ where the libraries do: tokenizer.json finds added
   tokens such as
   "<s>" in the text, SentencePiece does not; bytes that are no UTF-8 become byte tokens with tokenizer.json,
   whose library takes none, and U+FFFD with SentencePiece, whose library defines it so. */
#include "base/hash.h"
#include "base/json.h"
#include "tests/support.h"
#include "tokenizer/tokenizer.h"

static qb_json *golden;

static int load_golden(void **state) {
    (void)state;
    return qb_json_read(QB_SOURCE_DIR "/tests/golden/tokenizer_hostile.json", 16 << 20, &golden) == QB_OK
               ? 0
               : -1;
}
static int free_golden(void **state) {
    (void)state;
    qb_json_free(golden);
    return 0;
}

static int nibble(char c) {
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* Hexadecimal text to bytes; free with qb_free. */
static char *unhex(const char *hex, size_t *n) {
    *n = strlen(hex) / 2;
    char *bytes;
    assert_ok(qb_alloc(*n + 1, 1, &bytes));
    for (size_t i = 0; i < *n; i++) bytes[i] = (char)(nibble(hex[2 * i]) * 16 + nibble(hex[2 * i + 1]));
    bytes[*n] = 0;
    return bytes;
}

static void assert_ids(const qb_ids *found, const qb_json *expected, const char *where, const char *text) {
    size_t i = 0;
    bool same = (int64_t)found->count == qb_json_count(expected);
    for (const qb_json *c = qb_json_first(expected); same && c; c = qb_json_next(c), i++)
        same = found->ids[i] == (int32_t)qb_json_number(c);
    if (same) return;
    char *printed;
    assert_ok(qb_json_print(expected, false, &printed));
    print_error("%s, text \"%s\": expected %s, found [", where, text, printed);
    for (i = 0; i < found->count; i++) print_error("%s%d", i ? "," : "", found->ids[i]);
    print_error("]\n");
    qb_free(printed);
    fail();
}

static void assert_decodes(const qb_tokenizer *t, const int32_t *ids, size_t n, const char *hex,
                           const char *where, const char *text) {
    qb_str found = {0};
    size_t n_expected;
    char *expected = unhex(hex, &n_expected);
    assert_ok(qb_tokenizer_decode(t, ids, n, &found));
    if (found.length != n_expected || memcmp(qb_str_get(&found), expected, n_expected) != 0)
        fail_msg("%s, text \"%s\": decodes to \"%s\", expected \"%s\"", where, text, qb_str_get(&found),
                 expected);
    qb_free(expected);
    qb_str_free(&found);
}

static void check_texts(const qb_tokenizer *t, const qb_json *row, const char *where, bool add_special) {
    const qb_json *texts = qb_json_get(golden, "texts"), *decoded = qb_json_get(row, "decoded");
    int checked = 0;
    for (const qb_json *c = qb_json_first(qb_json_get(row, "ids")); c; c = qb_json_next(c)) {
        if (qb_json_is_null(c)) continue;
        const char *key = qb_json_key(c), *back = qb_json_string(qb_json_get(decoded, key));
        size_t n;
        char *text = unhex(qb_json_string(qb_json_get(texts, key)), &n);
        qb_ids ids = {0};
        /* SentencePiece knows text alone. */
        qb_encoding e = {.special = add_special ? QB_SPECIAL_FILE : QB_SPECIAL_TEXT,
                         .ends = add_special ? QB_ENDS_TEMPLATE : QB_ENDS_NONE};
        assert_ok(qb_tokenizer_encode_as(t, text, n, &e, &ids));
        assert_ids(&ids, c, where, key);
        if (back) assert_decodes(t, ids.ids, ids.count, back, where, key);
        qb_ids_free(&ids);
        qb_free(text);
        checked++;
    }
    assert_true(checked >= 60);
}

static void check_random_ids(const qb_tokenizer *t, const qb_json *row, const char *where) {
    for (const qb_json *c = qb_json_first(qb_json_get(row, "random")); c; c = qb_json_next(c)) {
        int32_t ids[64];
        size_t n = 0;
        for (const qb_json *id = qb_json_first(qb_json_get(c, "ids")); id; id = qb_json_next(id))
            ids[n++] = (int32_t)qb_json_number(id);
        assert_decodes(t, ids, n, qb_json_string(qb_json_get(c, "text")), where, "random ids");
    }
}

static void check_large(const qb_tokenizer *t, const qb_json *row, const char *where, bool add_special) {
    for (const qb_json *c = qb_json_first(qb_json_get(row, "large")); c; c = qb_json_next(c)) {
        const qb_json *recipe = qb_json_get(qb_json_get(golden, "large"), qb_json_key(c));
        const char *unit = qb_json_string(qb_json_get(recipe, "unit"));
        qb_str text = {0};
        for (int i = 0; i < (int)qb_json_number(qb_json_get(recipe, "times")); i++) qb_str_text(&text, unit);
        qb_ids ids = {0};
        assert_ok(qb_tokenizer_encode(t, text.text, text.length, add_special, &ids));
        char hex[QB_SHA256_HEX];
        assert_ok(qb_hash_bytes(ids.ids, ids.count * sizeof *ids.ids, hex));
        if ((double)ids.count != qb_json_number(qb_json_get(c, "count")) ||
            strcmp(hex, qb_json_string(qb_json_get(c, "sha256"))) != 0)
            fail_msg("%s, large text \"%s\": %zu ids, expected %g", where, qb_json_key(c), ids.count,
                     qb_json_number(qb_json_get(c, "count")));
        qb_ids_free(&ids);
        qb_str_free(&text);
    }
}

static void check_case(const qb_tokenizer *t, const qb_json *row, const char *name, bool model) {
    check_texts(t, row, name, !model); /* SentencePiece's encode adds nothing */
    check_random_ids(t, row, name);
    check_large(t, row, name, !model);
}

static void test_tokenizer_golden__variants_equal_the_references(void **state) {
    (void)state;
    int checked = 0;
    for (const qb_json *row = qb_json_first(qb_json_get(golden, "cases")); row; row = qb_json_next(row)) {
        const char *name = qb_json_string(qb_json_get(row, "tokenizer"));
        const char *json = qb_json_string(qb_json_get(row, "json")),
                   *hex = qb_json_string(qb_json_get(row, "model"));
        qb_tokenizer *t = NULL;
        if (json) {
            assert_ok(qb_tokenizer_parse_json(json, strlen(json), name, &t));
        } else if (hex) {
            size_t n;
            char *bytes = unhex(hex, &n);
            assert_ok(qb_tokenizer_parse_model((const uint8_t *)bytes, n, name, &t));
            qb_free(bytes);
        } else {
            continue;
        }
        check_case(t, row, name, hex != NULL);
        qb_tokenizer_close(t);
        checked++;
    }
    assert_true(checked >= 20);
}

static void check_real(const char *name) {
    const char *path = shared_path(name);
    for (const qb_json *row = qb_json_first(qb_json_get(golden, "cases")); row; row = qb_json_next(row)) {
        if (strcmp(qb_json_string(qb_json_get(row, "tokenizer")), name) != 0) continue;
        qb_tokenizer *t;
        assert_ok(qb_tokenizer_open_file(path, &t));
        check_case(t, row, name, strstr(name, ".model") != NULL);
        qb_tokenizer_close(t);
        return;
    }
    fail_msg("%s is not in the golden file", name);
}

#define REAL(name, path)                                                                                     \
    static void test_tokenizer_golden__##name(void **state) {                                                \
        (void)state;                                                                                         \
        check_real(path);                                                                                    \
    }
REAL(llama2_json, "tokenizers/llama2/tokenizer.json")
REAL(llama2_model, "tokenizers/llama2/tokenizer.model")
REAL(wikimini_json, "models/wikimini-hf/tokenizer.json")
REAL(wikimini_model, "models/wikimini-hf/tokenizer.model")
REAL(stories_json, "models/stories260K-hf/tokenizer.json")
REAL(babyllama_json, "models/babyllama-tok105-hf/tokenizer.json")
REAL(tok105_model, "tokenizers/small/tok105.model")

/* Taken as plain text, special tokens' names give tokenizer.json the ids that SentencePiece gave, without its
 * BOS. */
static void check_plain(const char *json, const char *model) {
    qb_tokenizer *t;
    assert_ok(qb_tokenizer_open_file(shared_path(json), &t));
    int checked = 0;
    for (const qb_json *row = qb_json_first(qb_json_get(golden, "cases")); row; row = qb_json_next(row)) {
        if (strcmp(qb_json_string(qb_json_get(row, "tokenizer")), model) != 0) continue;
        for (const qb_json *c = qb_json_first(qb_json_get(row, "ids")); c; c = qb_json_next(c)) {
            size_t n;
            char *text = unhex(qb_json_string(qb_json_get(qb_json_get(golden, "texts"), qb_json_key(c))), &n);
            const char *decoded = qb_json_string(qb_json_get(qb_json_get(row, "decoded"), qb_json_key(c)));
            qb_ids ids = {0};
            assert_ok(qb_tokenizer_encode_as(t, text, n, &(qb_encoding){.special = QB_SPECIAL_TEXT}, &ids));
            if (decoded) { /* valid text */
                assert_ids(&ids, c, json, qb_json_key(c));
                checked++;
            }
            qb_ids_free(&ids);
            qb_free(text);
        }
    }
    assert_true(checked >= 60);
    qb_tokenizer_close(t);
}

static void test_tokenizer_golden__plain_json_equals_model(void **state) {
    (void)state;
    check_plain("tokenizers/llama2/tokenizer.json", "tokenizers/llama2/tokenizer.model");
    check_plain("models/wikimini-hf/tokenizer.json", "models/wikimini-hf/tokenizer.model");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_golden__variants_equal_the_references),
        cmocka_unit_test(test_tokenizer_golden__llama2_json),
        cmocka_unit_test(test_tokenizer_golden__llama2_model),
        cmocka_unit_test(test_tokenizer_golden__wikimini_json),
        cmocka_unit_test(test_tokenizer_golden__wikimini_model),
        cmocka_unit_test(test_tokenizer_golden__stories_json),
        cmocka_unit_test(test_tokenizer_golden__babyllama_json),
        cmocka_unit_test(test_tokenizer_golden__tok105_model),
        cmocka_unit_test(test_tokenizer_golden__plain_json_equals_model),
    };
    return cmocka_run_group_tests(tests, load_golden, free_golden);
}
