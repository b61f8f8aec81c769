/* Protocols on ids made by hand: names, cuts, and the errors of short texts. */
#include "base/hash.h"
#include "datasets/datasets.h"
#include "tests/support.h"

static void test_protocol__names_are_canonical(void **state) {
    (void)state;
    static const struct {
        const char *text, *name;
        qb_protocol_kind kind;
        int32_t window, stride;
    } rows[] = {
        {"gptq", "gptq-2048", QB_PROTOCOL_GPTQ, 2048, 2048},
        {"gptq-512", "gptq-512", QB_PROTOCOL_GPTQ, 512, 512},
        {"gptq-2", "gptq-2", QB_PROTOCOL_GPTQ, 2, 2},
        {"llamacpp", "llamacpp-512", QB_PROTOCOL_LLAMACPP, 512, 512},
        {"llamacpp-128", "llamacpp-128", QB_PROTOCOL_LLAMACPP, 128, 128},
        {"strided", "strided-1024-512", QB_PROTOCOL_STRIDED, 1024, 512},
        {"strided-512", "strided-512-256", QB_PROTOCOL_STRIDED, 512, 256},
        {"strided-512-100", "strided-512-100", QB_PROTOCOL_STRIDED, 512, 100},
        {"strided-1048576-1048576", "strided-1048576-1048576", QB_PROTOCOL_STRIDED, 1048576, 1048576},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_protocol p, again;
        assert_ok(qb_protocol_parse(rows[i].text, &p));
        assert_string_equal(p.name, rows[i].name);
        assert_int_equal(p.kind, rows[i].kind);
        assert_int_equal(p.window, rows[i].window);
        assert_int_equal(p.stride, rows[i].stride);
        assert_ok(qb_protocol_parse(p.name, &again));
        assert_string_equal(again.name, p.name);
        assert_true(strlen(qb_protocol_summary(p.kind)) > 20);
    }
}

static void test_protocol__refuses_what_it_does_not_know(void **state) {
    (void)state;
    qb_protocol p;
    static const char *const wrong[] = {"gptq-",       "gptq-1",           "gptq-0",
                                        "gptq-2048x",  "gptq--5",          "gptq-2048-512",
                                        "llamacpp-3",  "strided-512-0",    "strided-512-513",
                                        "strided-1",   "strided-512-256-", "gptq-99999999999999999999",
                                        "gptq-1048577"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_fails(qb_protocol_parse(wrong[i], &p), QB_ERR_USAGE, "<window>");
    assert_fails(qb_protocol_parse("gtpq-2048", &p), QB_ERR_USAGE, "did you mean gptq?");
    assert_fails(qb_protocol_parse("llama.cpp", &p), QB_ERR_USAGE, "did you mean llamacpp?");
    assert_fails(qb_protocol_parse("", &p), QB_ERR_USAGE, "unknown protocol");
}

static qb_ids count_up(size_t n) {
    qb_ids ids = {0};
    if (n) assert_ok(qb_grow(&ids.ids, &ids.capacity, n, sizeof *ids.ids));
    for (; ids.count < n; ids.count++) ids.ids[ids.count] = 100 + (int32_t)ids.count;
    return ids;
}

static void cut(const char *protocol, size_t n, int32_t bos, int64_t max_windows, qb_windows *out) {
    qb_protocol p;
    assert_ok(qb_protocol_parse(protocol, &p));
    qb_ids ids = count_up(n);
    assert_ok(qb_protocol_cut(&p, &ids, bos, max_windows, "text", out));
    assert_null(ids.ids);
}

static void assert_window(const qb_windows *w, int64_t i, int64_t offset, int32_t length, int32_t begin,
                          int32_t end) {
    assert_int_equal(w->windows[i].offset, offset);
    assert_int_equal(w->windows[i].length, length);
    assert_int_equal(w->windows[i].score_begin, begin);
    assert_int_equal(w->windows[i].score_end, end);
}

static void test_protocol__gptq_drops_the_remainder(void **state) {
    (void)state;
    qb_windows w;
    cut("gptq-4", 11, 1, 0, &w);
    assert_int_equal(w.count, 2);
    assert_window(&w, 0, 0, 4, 1, 4);
    assert_window(&w, 1, 4, 4, 1, 4);
    assert_int_equal(w.mean, QB_MEAN_OF_WINDOWS);
    assert_int_equal(w.total_tokens, 11);
    assert_int_equal(w.max_length, 4);
    assert_int_equal(w.ids[4], 104); /* no BOS is put in */
    assert_int_equal(qb_windows_scored(&w), 6);
    assert_string_equal(w.protocol, "gptq-4");
    qb_windows_free(&w);
}

static void test_protocol__llamacpp_scores_second_halves_behind_bos(void **state) {
    (void)state;
    qb_windows w;
    cut("llamacpp-6", 17, 1, 0, &w);
    assert_int_equal(w.count, 2);
    assert_window(&w, 0, 0, 6, 4, 6);
    assert_window(&w, 1, 6, 6, 4, 6);
    assert_int_equal(w.ids[0], 1);
    assert_int_equal(w.ids[6], 1);
    assert_int_equal(w.ids[7], 107);
    assert_int_equal(w.ids[12], 112); /* remainder, untouched */
    assert_int_equal(w.mean, QB_MEAN_OF_TOKENS);
    /* The hash is of the text's ids, not of the overwritten ones. */
    uint8_t bytes[17 * 4] = {0};
    char hex[QB_SHA256_HEX];
    for (size_t i = 0; i < 17; i++) bytes[4 * i] = (uint8_t)(100 + i);
    assert_ok(qb_hash_bytes(bytes, sizeof bytes, hex));
    assert_string_equal(w.sha256, hex);
    qb_windows_free(&w);

    cut("llamacpp-6", 17, -1, 1, &w);
    assert_int_equal(w.count, 1);
    assert_int_equal(w.ids[0], 100); /* the vocabulary adds no BOS */
    assert_string_equal(w.sha256, hex);
    qb_windows_free(&w);
}

static void test_protocol__strided_scores_every_target_once(void **state) {
    (void)state;
    for (int stride = 1; stride <= 8; stride++)
        for (size_t n = 8; n < 60; n++) {
            char name[32];
            snprintf(name, sizeof name, "strided-8-%d", stride);
            qb_windows w;
            cut(name, n, 1, 0, &w);
            int seen[64] = {0};
            for (int64_t i = 0; i < w.count; i++) {
                const qb_window *v = &w.windows[i];
                assert_true(v->score_begin >= 1 && v->score_begin < v->score_end &&
                            v->score_end <= v->length);
                assert_true(v->offset + v->length <= w.n_ids && v->length <= 8);
                for (int32_t t = v->score_begin; t < v->score_end; t++) seen[v->offset + t]++;
            }
            for (size_t t = 0; t < n; t++)
                assert_int_equal(seen[t], stride == 8
                                              ? t % 8 != 0
                                              : t != 0); /* disjoint windows lose their first tokens */
            qb_windows_free(&w);
        }
}

static void test_protocol__short_texts_say_what_fits(void **state) {
    (void)state;
    static const struct {
        const char *protocol;
        size_t tokens;
        const char *needle;
    } rows[] = {
        {"gptq-64", 63, "63 tokens, 64 are needed: use a longer text or --protocol gptq-63"},
        {"gptq-64", 1, "1 tokens, 64 are needed: use a longer text"},
        {"gptq-64", 0, "0 tokens"},
        {"llamacpp-64", 127, "127 tokens, 128 are needed: use a longer text or --protocol llamacpp-63"},
        {"strided-64", 40, "40 tokens, 64 are needed: use a longer text or --protocol strided-40"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_protocol p;
        qb_windows w;
        qb_ids ids = count_up(rows[i].tokens);
        assert_ok(qb_protocol_parse(rows[i].protocol, &p));
        assert_fails(qb_protocol_cut(&p, &ids, 1, 0, "here.txt", &w), QB_ERR_FORMAT, rows[i].needle);
        assert_non_null(strstr(qb_error_text(), "here.txt: too short for"));
        assert_null(w.ids);
    }
}

static void test_protocol__random_windows_are_valid_and_repeat(void **state) {
    (void)state;
    qb_windows a, b;
    assert_ok(qb_random_windows(7, 5, 16, 3, &a));
    assert_ok(qb_random_windows(7, 5, 16, 3, &b));
    assert_int_equal(a.count, 5);
    assert_int_equal(a.n_ids, 80);
    assert_int_equal(qb_windows_scored(&a), 0);
    assert_window(&a, 4, 64, 16, 1, 1);
    int seen[7] = {0};
    for (int i = 0; i < 80; i++) {
        assert_in_range(a.ids[i], 0, 6);
        seen[a.ids[i]] = 1;
    }
    for (int i = 0; i < 7; i++) assert_true(seen[i]);
    assert_string_equal(a.sha256, b.sha256);
    qb_windows_free(&b);
    assert_ok(qb_random_windows(7, 5, 16, 4, &b));
    assert_string_not_equal(a.sha256, b.sha256);
    qb_windows_free(&a);
    qb_windows_free(&b);
    assert_fails(qb_random_windows(0, 5, 16, 3, &a), QB_ERR_USAGE, "vocabulary");
    assert_fails(qb_random_windows(7, 0, 16, 3, &a), QB_ERR_USAGE, "at least 1");
    assert_fails(qb_random_windows(7, INT64_MAX, INT32_MAX, 3, &a), QB_ERR_USAGE, "at most");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_protocol__names_are_canonical),
        cmocka_unit_test(test_protocol__refuses_what_it_does_not_know),
        cmocka_unit_test(test_protocol__gptq_drops_the_remainder),
        cmocka_unit_test(test_protocol__llamacpp_scores_second_halves_behind_bos),
        cmocka_unit_test(test_protocol__strided_scores_every_target_once),
        cmocka_unit_test(test_protocol__short_texts_say_what_fits),
        cmocka_unit_test(test_protocol__random_windows_are_valid_and_repeat),
    };
    return cmocka_run_group_tests_name("protocol", tests, NULL, NULL);
}
