/* A GGUF vocabulary written as tokenizer.json gives the same ids and the same text. */
#include "tests/support.h"

#include "base/json.h"
#include "base/log.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/tokenizer.h"

enum { ALPHABET = 256, PIECES = 300 };

typedef struct vocabulary {
    qb_vocabulary v;
    struct qb_vocabulary_text texts[PIECES], merges[PIECES];
    int32_t types[PIECES];
    qb_str owned[PIECES];
} vocabulary;

static int32_t add(vocabulary *x, const char *text, int32_t type) {
    size_t id = x->v.n++;
    assert_true(id < PIECES);
    x->texts[id] = (struct qb_vocabulary_text){text, strlen(text)};
    x->types[id] = type;
    return (int32_t)id;
}

static void merge(vocabulary *x, const char *pair, const char *joined) {
    x->merges[x->v.n_merges++] = (struct qb_vocabulary_text){pair, strlen(pair)};
    add(x, joined, 1);
}

#define G "\xC4\xA0" /* the space in GPT-2's alphabet */

static vocabulary *vocabulary_make(const char *pre, int add_bos, int add_eos) {
    vocabulary *x;
    assert_ok(qb_alloc(1, sizeof *x, &x));
    *x = (vocabulary){.v = {.model = "gpt2", .pre = pre, .add_bos = add_bos, .add_eos = add_eos, .unk = -1}};
    for (int b = 0; b < ALPHABET; b++) {
        char byte = (char)b;
        qb_bytes_to_alphabet(&byte, 1, &x->owned[b]);
        add(x, qb_str_get(&x->owned[b]), 1);
    }
    merge(x, "t h", "th");
    merge(x, "th e", "the");
    merge(x, G " the", G "the");
    merge(x, "a n", "an");
    merge(x, "1 2", "12");
    merge(x, "12 3", "123");
    merge(x, G " " G, G G);
    x->v.bos = add(x, "<|begin \"\\ \x01 \xE2\x82\xAC|>", 3);
    x->v.eos = add(x, "<|end|>", 3);
    add(x, "  ", 4);
    add(x, "unused", 5);
    add(x, "<|end|>", 5); /* twice, as converters fill up */
    x->v.texts = x->texts;
    x->v.types = x->types;
    x->v.merges = x->merges;
    return x;
}

static void vocabulary_free(vocabulary *x) {
    for (int b = 0; b < ALPHABET; b++) qb_str_free(&x->owned[b]);
    qb_free(x);
}

static void same(const qb_tokenizer *a, const qb_tokenizer *b, const char *text, size_t n, bool ends) {
    qb_ids x = {0}, y = {0};
    qb_str back = {0}, other = {0};
    assert_ok(qb_tokenizer_encode(a, text, n, ends, &x));
    assert_ok(qb_tokenizer_encode(b, text, n, ends, &y));
    assert_true(x.count > 0);
    assert_int_equal(x.count, y.count);
    assert_memory_equal(x.ids, y.ids, x.count * sizeof *x.ids);
    assert_ok(qb_tokenizer_decode(a, x.ids, x.count, &back));
    assert_ok(qb_tokenizer_decode(b, y.ids, y.count, &other));
    assert_int_equal(back.length, other.length);
    assert_memory_equal(qb_str_get(&back), qb_str_get(&other), back.length);
    qb_str_free(&back);
    qb_str_free(&other);
    qb_ids_free(&x);
    qb_ids_free(&y);
}

static void check(const char *pre, int add_bos, int add_eos, const char *text, size_t n) {
    static const char *const hostile[] = {
        "the  them 1234567 can't<|end|>x",
        " <|begin \"\\ \x01 \xE2\x82\xAC|> the",
        "an\r\n\tan   ",
        "1 22 333 4444",
        "\xE4\xB8\xAD\xE6\x96\x87, the;unused",
    };
    vocabulary *x = vocabulary_make(pre, add_bos, add_eos);
    qb_str json = {0}, config = {0};
    qb_tokenizer *of, *read;
    assert_ok(qb_tokenizer_of_vocabulary(&x->v, pre, &of));
    assert_ok(qb_vocabulary_write_json(&x->v, "{{ \"a\" }}\n", pre, &json, &config));
    assert_ok(qb_tokenizer_parse_json(json.text, json.length, pre, &read));
    assert_int_equal(qb_tokenizer_adds_bos(read, QB_ENDS_TEMPLATE), add_bos);
    for (int ends = 0; ends < 2; ends++) {
        same(of, read, text, n, ends);
        for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++)
            same(of, read, hostile[i], strlen(hostile[i]), ends);
    }
    qb_json *j;
    assert_ok(qb_json_parse(config.text, config.length, "config", &j));
    assert_string_equal(qb_json_string(qb_json_get(j, "eos_token")), "<|end|>");
    assert_string_equal(qb_json_string(qb_json_get(j, "bos_token")), x->texts[x->v.bos].bytes);
    assert_string_equal(qb_json_string(qb_json_get(j, "chat_template")), "{{ \"a\" }}\n");
    qb_json_free(j);
    qb_tokenizer_close(of);
    qb_tokenizer_close(read);
    qb_str_free(&json);
    qb_str_free(&config);
    vocabulary_free(x);
}

static void test_vocabulary_json__gives_the_same_ids(void **state) {
    (void)state;
    static const char *const pres[] = {"gpt-2",        "smollm", "llama-bpe", "qwen2",  "falcon",
                                       "deepseek-llm", "bloom",  "gpt-4o",    "default"};
    char *text;
    size_t n;
    assert_ok(qb_file_read(QB_SOURCE_DIR "/tests/golden/trained/text.txt", 1 << 20, &text, &n));
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++)
        for (int ends = 0; ends < 4; ends++) check(pres[i], ends & 1, ends >> 1, text, n);
    qb_free(text);
}

static void test_vocabulary_json__other_kinds_are_refused(void **state) {
    (void)state;
    vocabulary *x = vocabulary_make("smollm", 0, 0);
    qb_str json = {0}, config = {0};
    float scores[PIECES] = {0};
    x->v.n--; /* without the one that is there twice */
    x->v.scores = scores;
    x->v.unk = 0;
    x->v.model = "llama";
    assert_fails(qb_vocabulary_write_json(&x->v, NULL, "x", &json, &config), QB_ERR_UNSUPPORTED,
                 "is not written as tokenizer.json");
    x->v.model = "gpt2";
    x->texts[0] = (struct qb_vocabulary_text){"\xFF", 1};
    assert_fails(qb_vocabulary_write_json(&x->v, NULL, "x", &json, &config), QB_ERR_UNSUPPORTED, "no UTF-8");
    qb_str_free(&json);
    qb_str_free(&config);
    vocabulary_free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vocabulary_json__gives_the_same_ids),
        cmocka_unit_test(test_vocabulary_json__other_kinds_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
