/* Real vocabularies of every kind against ids that the reference libraries gave: the shared material's
   recorded ids and vectors. Skipped, visibly, where it is absent. */
#include "base/hash.h"
#include "base/json.h"
#include "bench/session.h"
#include "tests/support.h"

static qb_tokenizer *open_any(const char *path) {
    qb_tokenizer *t = NULL;
    size_t n = strlen(path);
    bool file = n > 5 && !strcmp(path + n - 5, ".json");
    assert_ok(file ? qb_tokenizer_open_file(path, &t) : qb_session_tokenizer_of(path, &t));
    return t;
}

static bool same_ids(const qb_ids *ids, const qb_json *expected) {
    size_t i = 0;
    if ((int64_t)ids->count != qb_json_count(expected)) return false;
    for (const qb_json *c = qb_json_first(expected); c; c = qb_json_next(c))
        if (ids->ids[i++] != (int32_t)qb_json_number(c)) return false;
    return true;
}

/* ---- golden-ids.json: 89 texts, with and without what the template adds ---- */

static int check_list(const qb_tokenizer *t, const qb_json *texts, const qb_json *rows, bool add_special,
                      const char *where) {
    int wrong = 0;
    for (const qb_json *x = qb_json_first(texts), *row = qb_json_first(rows); x;
         x = qb_json_next(x), row = qb_json_next(row)) {
        const char *text = qb_json_string(x);
        qb_ids ids = {0};
        if (!strcmp(text, "nul")) continue; /* what the JSON library leaves of a text with a NUL in it */
        assert_ok(qb_tokenizer_encode(t, text, strlen(text), add_special, &ids));
        if (!same_ids(&ids, row)) print_error("%s differs on \"%s\"\n", where, text), wrong++;
        qb_ids_free(&ids);
    }
    return wrong;
}

static void test_tokenizer_vectors__recorded_ids(void **state) {
    (void)state;
    qb_json *golden;
    int wrong = 0, n = 0;
    assert_ok(qb_json_read(shared_path("tokenizers/golden-ids.json"), 1 << 20, &golden));
    const qb_json *texts = qb_json_get(golden, "texts");
    assert_int_equal(qb_json_count(texts), 89);
    for (const qb_json *c = qb_json_first(qb_json_get(golden, "ids")); c; c = qb_json_next(c)) {
        char path[256];
        snprintf(path, sizeof path, "tokenizers/%s/tokenizer.json", qb_json_key(c));
        const char *root = shared_path("tokenizers");
        char full[1400];
        snprintf(full, sizeof full, "%s/%s/tokenizer.json", root, qb_json_key(c));
        if (!qb_path_exists(full)) {
            print_message("skipped: %s is absent\n", path);
            continue;
        }
        qb_tokenizer *t;
        assert_ok(qb_tokenizer_open_file(full, &t));
        wrong += check_list(t, texts, qb_json_get(c, "plain"), false, qb_json_key(c));
        wrong += check_list(t, texts, qb_json_get(c, "special"), true, qb_json_key(c));
        qb_tokenizer_close(t);
        n++;
    }
    print_message("%d tokenizers\n", n);
    assert_true(n >= 7);
    assert_int_equal(wrong, 0);
    qb_json_free(golden);
}

/* ---- llama.cpp's vectors: texts between marker lines, a line of ids each ---- */

static int check_vectors(const char *vocabulary, const char *inp, const char *out) {
    static const char marker[] = "\n__ggml_vocab_test__\n";
    char *texts, *lines;
    int wrong = 0, checked = 0;
    qb_tokenizer *t = open_any(vocabulary);
    assert_ok(qb_file_read(inp, 1 << 20, &texts, NULL));
    assert_ok(qb_file_read(out, 1 << 20, &lines, NULL));
    char *line = lines;
    for (char *text = texts, *end; (end = strstr(text, marker)); text = end + sizeof marker - 1, checked++) {
        qb_ids ids = {0};
        bool same = true;
        size_t i = 0;
        assert_ok(qb_tokenizer_encode(t, text, (size_t)(end - text), false, &ids));
        for (; *line && *line != '\n'; i++) {
            while (*line == ' ') line++;
            if (*line == '\n') break;
            long id = strtol(line, &line, 10);
            same = same && i < ids.count && ids.ids[i] == id;
            while (*line == ' ') line++;
        }
        if (*line) line++;
        if (!same || i != ids.count) {
            *end = 0;
            print_error("%s differs on \"%s\"\n", vocabulary, text);
            wrong++;
        }
        qb_ids_free(&ids);
    }
    assert_true(checked >= 40);
    qb_free(texts);
    qb_free(lines);
    qb_tokenizer_close(t);
    return wrong;
}

static void test_tokenizer_vectors__gguf_vocabularies(void **state) {
    (void)state;
    static const char *const names[] = {"deepseek-coder", "deepseek-llm", "falcon",
                                        "gpt-2",          "llama-spm",    "mpt",
                                        "phi-3",          "refact",       "starcoder"};
    int wrong = 0, found = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[1200];
        const char *root = shared_path("tokenizers/llama.cpp");
        snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf", root, names[i]);
        if (!qb_path_exists(path)) {
            print_message("skipped: %s is absent\n", path);
            continue;
        }
        char inp[1300], out[1300];
        snprintf(inp, sizeof inp, "%s.inp", path);
        snprintf(out, sizeof out, "%s.out", path);
        wrong += check_vectors(path, inp, out);
        found++;
    }
    assert_true(found >= 8);
    assert_int_equal(wrong, 0);
}

static void test_tokenizer_vectors__hugging_face_directories(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"gpt2", "gpt-2"}, {"qwen2", "qwen2"}, {"falcon", "falcon"}, {"phi-3", "phi-3"}, {"gpt-neox", "mpt"}};
    int wrong = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char dir[1200], inp[1200], out[1200];
        const char *root = shared_path("tokenizers");
        snprintf(dir, sizeof dir, "%s/%s", root, rows[i][0]);
        snprintf(inp, sizeof inp, "%s/vectors/%s.inp", root, rows[i][1]);
        snprintf(out, sizeof out, "%s/vectors/%s.out", root, rows[i][1]);
        wrong += check_vectors(dir, inp, out);
    }
    assert_int_equal(wrong, 0);
}

/* ---- whole texts ---- */

/* tokenizers 0.23.3, SHA-256 of the ids as little-endian int32. */
static void test_tokenizer_vectors__whole_texts(void **state) {
    (void)state;
    qb_json *golden;
    int n_rows = 0;
    (void)shared_path("tokenizers"), (void)shared_path("data"); /* nothing is held where one is absent */
    assert_ok(qb_json_read(QB_SOURCE_DIR "/tests/golden/tokenizer_wholes.json", 1 << 20, &golden));
    for (const qb_json *row = qb_json_first(golden); row; row = qb_json_next(row), n_rows++) {
        const char *tokenizer = qb_json_string(qb_json_get(row, "tokenizer")),
                   *name = qb_json_string(qb_json_get(row, "text")),
                   *sha256 = qb_json_string(qb_json_get(row, "sha256"));
        char path[256], *text, hex[QB_SHA256_HEX];
        size_t n;
        qb_ids ids = {0};
        snprintf(path, sizeof path, "tokenizers/%s", tokenizer);
        qb_tokenizer *t = open_any(shared_path(path));
        snprintf(path, sizeof path, "data/%s", name);
        assert_ok(qb_file_read(shared_path(path), 1 << 24, &text, &n));
        assert_ok(qb_tokenizer_encode(t, text, n, false, &ids));
        assert_ok(qb_hash_bytes(ids.ids, ids.count * sizeof *ids.ids, hex));
        if ((double)ids.count != qb_json_number(qb_json_get(row, "count")) || strcmp(hex, sha256) != 0)
            fail_msg("%s on %s: %zu ids, sha256 %s, expected %s", tokenizer, name, ids.count, hex, sha256);
        qb_ids_free(&ids);
        qb_free(text);
        qb_tokenizer_close(t);
    }
    assert_true(n_rows >= 14);
    qb_json_free(golden);
}

/* ---- formats that are no tokenizer.json: small ones, recorded by tools/record_tokenizer_formats.py ---- */

static char *unhex(const char *hex, size_t *n) {
    char *bytes;
    *n = strlen(hex) / 2;
    assert_ok(qb_alloc(*n + 1, 1, &bytes));
    for (size_t i = 0; i < *n; i++) {
        unsigned value;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &value), 1);
        bytes[i] = (char)(uint8_t)value;
    }
    bytes[*n] = 0;
    return bytes;
}

static qb_tokenizer *parse_case(const qb_json *c) {
    const char *kind = qb_json_string(qb_json_get(c, "kind")), *name = qb_json_string(qb_json_get(c, "name"));
    size_t n, n_merges = 0;
    char *data = unhex(qb_json_string(qb_json_get(c, "data")), &n);
    const char *more = qb_json_string(qb_json_get(c, "merges"));
    char *merges = more ? unhex(more, &n_merges) : NULL;
    qb_tokenizer *t = NULL;
    if (!strcmp(kind, "model"))
        assert_ok(qb_tokenizer_parse_model((const uint8_t *)data, n, name, &t));
    else if (!strcmp(kind, "ranks"))
        assert_ok(qb_tokenizer_parse_ranks(data, n, name, &t));
    else
        assert_ok(qb_tokenizer_parse_merges(data, n, merges, n_merges,
                                            qb_json_string(qb_json_get(c, "class")), false, name, &t));
    qb_free(data);
    qb_free(merges);
    return t;
}

static void test_tokenizer_vectors__small_formats(void **state) {
    (void)state;
    qb_json *golden;
    int wrong = 0, n = 0;
    assert_ok(qb_json_read(QB_SOURCE_DIR "/tests/golden/tokenizer_formats.json", 4 << 20, &golden));
    for (const qb_json *c = qb_json_first(qb_json_get(golden, "cases")); c; c = qb_json_next(c), n++) {
        qb_tokenizer *t = parse_case(c);
        for (const qb_json *x = qb_json_first(qb_json_get(golden, "texts")),
                           *row = qb_json_first(qb_json_get(c, "ids"));
             x; x = qb_json_next(x), row = qb_json_next(row)) {
            size_t length;
            char *text = unhex(qb_json_string(x), &length);
            qb_encoding e = {.special = QB_SPECIAL_TEXT};
            qb_ids ids = {0};
            qb_str back = {0};
            assert_ok(qb_tokenizer_encode_as(t, text, length, &e, &ids));
            if (!same_ids(&ids, row)) {
                print_error("%s differs on \"%s\":", qb_json_string(qb_json_get(c, "name")), text);
                for (size_t i = 0; i < ids.count; i++) print_error(" %d", ids.ids[i]);
                print_error("\n");
                wrong++;
            }
            assert_ok(qb_tokenizer_decode(t, ids.ids, ids.count, &back));
            qb_str_free(&back);
            qb_ids_free(&ids);
            qb_free(text);
        }
        qb_tokenizer_close(t);
    }
    assert_true(n >= 8);
    assert_int_equal(wrong, 0);
    qb_json_free(golden);
}

static void test_tokenizer_vectors__spoilt_formats_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *needle;
        qb_status status;
    } rows[] = {
        {"IQ== 0\n!!!! 1\n", "not base64", QB_ERR_FORMAT},
        {"IQ==\n", "line 1: expected a piece in base64", QB_ERR_FORMAT},
        {"IQ== 0\nIQ== 1\n", "appears twice", QB_ERR_FORMAT},
        {"IQ== 0\nIg== 7\n", "beyond the 2", QB_ERR_FORMAT},
        {"IQ== 0\nIg== 1\n", "tiktoken file of 2 pieces is nobody's", QB_ERR_UNSUPPORTED},
        {"{\"config\":{}}", "pattern", QB_ERR_FORMAT},
        {"{\"config\":{\"pattern\":\"a\",\"default_vocab_size\":9,\"default_num_special_tokens\":1},"
         "\"vocab\":[]}",
         "\"vocab\" holds 0 pieces", QB_ERR_FORMAT},
    };
    qb_tokenizer *t;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_fails(qb_tokenizer_parse_ranks(rows[i].text, strlen(rows[i].text), "x", &t), rows[i].status,
                     rows[i].needle);
    static const char vocab[] = "{\"a\":0,\"b\":1,\"ab\":2}";
    assert_fails(qb_tokenizer_parse_merges(vocab, sizeof vocab - 1, "a\n", 2, "gpt2", false, "x", &t),
                 QB_ERR_FORMAT, "line 1: expected two pieces");
    assert_fails(qb_tokenizer_parse_merges(vocab, sizeof vocab - 1, "a c\n", 4, "gpt2", false, "x", &t),
                 QB_ERR_FORMAT, "right piece is not in the vocabulary");
    assert_fails(
        qb_tokenizer_parse_merges(vocab, sizeof vocab - 1, "a b\n", 4, "BertTokenizer", false, "x", &t),
        QB_ERR_UNSUPPORTED, "\"BertTokenizer\" has no pattern");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_vectors__recorded_ids),
        cmocka_unit_test(test_tokenizer_vectors__gguf_vocabularies),
        cmocka_unit_test(test_tokenizer_vectors__hugging_face_directories),
        cmocka_unit_test(test_tokenizer_vectors__whole_texts),
        cmocka_unit_test(test_tokenizer_vectors__small_formats),
        cmocka_unit_test(test_tokenizer_vectors__spoilt_formats_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
