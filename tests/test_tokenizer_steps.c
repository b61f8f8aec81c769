/* Every step of tokenizer.json against tokenizer_steps.json, recorded from the tokenizers library by
   tools/record_tokenizer_steps.py. */
#include "base/json.h"
#include "tests/support.h"
#include "tokenizer/parts.h"
#include "tokenizer/patterns.h"

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

static bool same_ids(const qb_ids *ids, const qb_json *expected) {
    size_t i = 0;
    if ((int64_t)ids->count != qb_json_count(expected)) return false;
    for (const qb_json *c = qb_json_first(expected); c; c = qb_json_next(c))
        if (ids->ids[i++] != (int32_t)qb_json_number(c)) return false;
    return true;
}

/* With a limit the same ids come, as many as were asked for. */
static void check_limits(const qb_tokenizer *t, const char *text, size_t n, const qb_ids *all,
                         const char *where) {
    for (size_t limit = 1; limit < all->count + 2; limit += 1 + limit / 2) {
        qb_encoding e = {.ends = QB_ENDS_TEMPLATE, .limit = limit};
        qb_ids some = {0};
        size_t expected = limit < all->count ? limit : all->count;
        assert_ok(qb_tokenizer_encode_as(t, text, n, &e, &some));
        if (some.count != expected ||
            (expected && memcmp(some.ids, all->ids, expected * sizeof *some.ids) != 0))
            fail_msg("%s: the first %zu ids of a text differ from all", where, limit);
        if (!(e.part >= 0 && e.part <= 1)) fail_msg("%s: part %g", where, e.part);
        qb_ids_free(&some);
    }
}

static int check_case(const qb_json *c, const qb_json *texts) {
    const char *name = qb_json_string(qb_json_get(c, "name")), *json = qb_json_string(qb_json_get(c, "json"));
    const qb_json *ids = qb_json_first(qb_json_get(c, "ids")),
                  *back = qb_json_first(qb_json_get(c, "decoded"));
    qb_tokenizer *t;
    int wrong = 0;
    assert_ok(qb_tokenizer_parse_json(json, strlen(json), name, &t));
    for (const qb_json *x = qb_json_first(texts); x;
         x = qb_json_next(x), ids = qb_json_next(ids), back = qb_json_next(back)) {
        size_t n;
        char *text = unhex(qb_json_string(x), &n);
        qb_ids found = {0};
        qb_str decoded = {0};
        const char *expected = qb_json_string(back);
        assert_ok(qb_tokenizer_encode(t, text, n, true, &found));
        if (!same_ids(&found, ids)) {
            print_error("%s, text \"%s\" (%s): found", name, text, qb_json_string(x));
            for (size_t i = 0; i < found.count; i++) print_error(" %d", found.ids[i]);
            print_error("\n");
            wrong++;
        } else {
            check_limits(t, text, n, &found, name);
            assert_ok(qb_tokenizer_decode(t, found.ids, found.count, &decoded));
            /* The reference writes U+FFFD for bytes that form no character, and cJSON ends at NUL. */
            if (expected && !strstr(expected, "\xEF\xBF\xBD") && strlen(text) == n &&
                strcmp(qb_str_get(&decoded), expected) != 0) {
                print_error("%s, text \"%s\": decodes to \"%s\", expected \"%s\"\n", name, text,
                            qb_str_get(&decoded), expected);
                wrong++;
            }
        }
        qb_str_free(&decoded);
        qb_ids_free(&found);
        qb_free(text);
    }
    qb_tokenizer_close(t);
    return wrong;
}

static void test_tokenizer_steps__equal_the_reference(void **state) {
    (void)state;
    qb_json *golden;
    int wrong = 0, cases = 0;
    assert_ok(qb_json_read(QB_SOURCE_DIR "/tests/golden/tokenizer_steps.json", 16 << 20, &golden));
    for (const qb_json *c = qb_json_first(qb_json_get(golden, "cases")); c; c = qb_json_next(c), cases++)
        wrong += check_case(c, qb_json_get(golden, "texts"));
    assert_true(cases >= 50);
    assert_int_equal(wrong, 0);
    qb_json_free(golden);
}

static void test_tokenizer_steps__alphabet_is_undone(void **state) {
    (void)state;
    char bytes[256];
    qb_str mapped = {0}, back = {0};
    for (int i = 0; i < 256; i++) bytes[i] = (char)(uint8_t)i;
    qb_bytes_to_alphabet(bytes, 256, &mapped);
    assert_true(qb_alphabet_to_bytes(mapped.text, mapped.length, &back));
    assert_int_equal(back.length, 256);
    assert_memory_equal(back.text, bytes, 256);
    assert_false(qb_alphabet_to_bytes(" ", 1, &back));
    assert_false(qb_alphabet_to_bytes("\xE2\x96\x81", 3, &back));
    assert_int_equal(back.length, 256);
    qb_str_free(&mapped);
    qb_str_free(&back);
}

/* Every name that llama.cpp's converter writes, but for two whose splitting is code there. */
static void test_tokenizer_steps__pre_names_compile(void **state) {
    (void)state;
    static const char names[] =
        "default llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano minicpm5 "
        "deepseek-llm "
        "deepseek-coder deepseek-v3 spark2_5 youtu falcon mpt starcoder gpt-2 phi-2 jina-es jina-de gigachat "
        "jina-v2-es "
        "jina-v2-de a.x-4.0 mellum modern-bert jais-2 gemma4 granite-embed-multi-311m sarvam-moe jina-v1-en "
        "jina-v2-code roberta-bpe refact command-r qwen2 deepseek-r1-qwen kormo f2llmv2 qwen35 stablelm2 "
        "olmo dbrx "
        "smaug-bpe poro-chat chatglm-bpe glm4 glm5 viking jais tekken smollm codeshell bloom gpt3-finnish "
        "exaone "
        "exaone4 exaone-moe minerva-7b megrez gpt-4o llama4 kanana2 talkie granite-embed-multi-97m tiny_aya "
        "cohere2moe superbpe trillion granite-docling bailingmoe bailingmoe2 llada-moe seed-coder hunyuan "
        "hunyuan-dense hy_v4 joyai-llm kimi-k2 ufakzeka grok-2 laguna minimax-m2 solar-open mellum2";
    int n = 0;
    for (const char *p = names; *p; n++) {
        char name[64];
        size_t length = strcspn(p, " ");
        snprintf(name, sizeof name, "%.*s", (int)length, p);
        const qb_pre_name *pre = qb_pre_name_find(name);
        if (!pre) fail_msg("%s is not known", name);
        assert_non_null(pre->patterns[0]);
        for (size_t i = 0; i < sizeof pre->patterns / sizeof pre->patterns[0] && pre->patterns[i]; i++) {
            qb_pattern *pattern;
            assert_ok(qb_pattern_compile(pre->patterns[i], strlen(pre->patterns[i]), name, &pattern));
            qb_pattern_free(pattern);
        }
        p += length + (p[length] == ' ');
    }
    assert_true(n > 80);
    assert_null(qb_pre_name_find("chameleon"));
    assert_null(qb_pre_name_find("llama"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_steps__equal_the_reference),
        cmocka_unit_test(test_tokenizer_steps__alphabet_is_undone),
        cmocka_unit_test(test_tokenizer_steps__pre_names_compile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
