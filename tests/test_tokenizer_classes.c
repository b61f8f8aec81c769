/* vocab.json and merges.txt: the special tokens that the class has, and that files beside take away or
   replace, by tests/golden/tokenizer_classes.json (tools/record_tokenizer_classes.py). */
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "tests/support.h"
#include "tokenizer/tokenizer.h"

static void put(const char *dir, const char *name, const qb_json *j) {
    char *path = qb_path_join(dir, name), *text = NULL;
    if (j) {
        assert_ok(qb_json_print(j, false, &text));
        assert_ok(qb_file_write_atomic(path, text, strlen(text)));
    }
    qb_free(text);
    qb_free(path);
}

static void put_merges(const char *dir, const qb_json *merges) {
    qb_str text = {0};
    char *path = qb_path_join(dir, "merges.txt");
    qb_str_text(&text, "#version: 0.2\n");
    for (const qb_json *j = qb_json_first(merges); j; j = qb_json_next(j))
        qb_str_printf(&text, "%s\n", qb_json_string(j));
    assert_ok(qb_file_write_atomic(path, text.text, text.length));
    qb_str_free(&text);
    qb_free(path);
}

static void check_case(const char *dir, const qb_json *c, const qb_json *texts) {
    qb_tokenizer *t;
    qb_encoding e = {.special = QB_SPECIAL_FILE};
    const qb_json *ids = qb_json_first(qb_json_get(c, "ids"));
    assert_ok(qb_tokenizer_open(dir, &t));
    assert_int_equal(qb_tokenizer_bos(t), (int)qb_json_number(qb_json_get(c, "bos")));
    assert_int_equal(qb_tokenizer_eos(t), (int)qb_json_number(qb_json_get(c, "eos")));
    for (const qb_json *x = qb_json_first(texts); x; x = qb_json_next(x), ids = qb_json_next(ids)) {
        qb_ids found = {0};
        const char *text = qb_json_string(x);
        assert_ok(qb_tokenizer_encode_as(t, text, strlen(text), &e, &found));
        assert_int_equal(found.count, qb_json_count(ids));
        size_t i = 0;
        for (const qb_json *id = qb_json_first(ids); id; id = qb_json_next(id), i++)
            assert_int_equal(found.ids[i], (int)qb_json_number(id));
        qb_ids_free(&found);
    }
    qb_tokenizer_close(t);
}

static void test_classes__special_tokens_are_those_of_the_class_or_of_the_files_beside(void **state) {
    (void)state;
    qb_json *golden;
    int n = 0;
    assert_ok(qb_json_read(QB_SOURCE_DIR "/tests/golden/tokenizer_classes.json", 1 << 20, &golden));
    for (const qb_json *c = qb_json_first(qb_json_get(golden, "cases")); c; c = qb_json_next(c), n++) {
        char *dir = scratch_make();
        put(dir, "vocab.json", qb_json_get(golden, "vocab"));
        put_merges(dir, qb_json_get(golden, "merges"));
        put(dir, "config.json", qb_json_get(c, "config"));
        put(dir, "tokenizer_config.json", qb_json_get(c, "tokenizer"));
        put(dir, "special_tokens_map.json", qb_json_get(c, "map"));
        print_message("case %d\n", n);
        check_case(dir, c, qb_json_get(golden, "texts"));
        scratch_remove(dir);
    }
    qb_json_free(golden);
    assert_int_equal(n, 12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes__special_tokens_are_those_of_the_class_or_of_the_files_beside)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
