/* Texts, windows and draws against tests/golden/datasets (made by tools/make_datasets_golden.py) and against
   the goldens of the shared material (SentencePiece ids, CPython's random). */
#include "base/json.h"
#include "base/str.h"
#include "datasets/datasets.h"
#include "tests/support.h"

#define GOLDEN QB_SOURCE_DIR "/tests/golden/datasets"

static qb_tokenizer *open_tokenizer(const char *path) {
    qb_tokenizer *t = NULL;
    bool is_dir;
    assert_ok(qb_path_look_dir(path, &is_dir));
    if (is_dir)
        assert_ok(qb_tokenizer_open(path, &t));
    else
        assert_ok(qb_tokenizer_open_file(path, &t));
    return t;
}

static qb_json *read_json(const char *path) {
    qb_json *json = NULL;
    assert_ok(qb_json_read(path, 1 << 20, &json));
    return json;
}

static int64_t int_of(const qb_json *object, const char *key) {
    int64_t v = 0;
    assert_ok(qb_json_int(object, key, "golden", true, INT64_MIN, INT64_MAX, &v));
    return v;
}

static const char *text_of(const qb_json *object, const char *key) {
    const char *v = NULL;
    assert_ok(qb_json_text(object, key, "golden", true, &v));
    return v;
}

static void assert_window_is(const qb_window *w, const qb_json *row) {
    const int64_t found[] = {w->offset, w->length, w->score_begin, w->score_end};
    size_t i = 0;
    for (const qb_json *v = qb_json_first(row); v; v = qb_json_next(v))
        assert_int_equal(found[i++], (int64_t)qb_json_number(v));
    assert_int_equal(i, 4);
}

static void test_datasets__registry_rows_are_complete(void **state) {
    (void)state;
    size_t n = 0;
    for (const qb_dataset *d; (d = qb_dataset_at(n)); n++) {
        assert_ptr_equal(qb_dataset_find(d->name), d);
        assert_true(d->summary && d->source && d->family && d->how_to_get && d->separator);
        assert_true(d->evaluation_files && d->calibration_files && d->evaluation_role && d->calibration_role);
        assert_true(strlen(d->evaluation_role) < 16 && strlen(d->calibration_role) < 16 &&
                    strlen(d->name) < 64);
        assert_true(d->evaluate && d->calibrate);
        assert_true(!strpbrk(d->name, "./")); /* such a name is a path */
    }
    assert_int_equal(n, 6);
    assert_null(qb_dataset_find("wikitext"));
}

static void test_datasets__windows_equal_the_golden(void **state) {
    (void)state;
    qb_tokenizer *t = open_tokenizer(GOLDEN "/tokenizer.json");
    qb_json *golden = read_json(GOLDEN "/golden.json");
    int rows = 0;
    for (const qb_json *row = qb_json_first(qb_json_get(golden, "protocols")); row;
         row = qb_json_next(row), rows++) {
        qb_protocol p;
        qb_windows w;
        qb_data_files files;
        assert_ok(qb_protocol_parse(text_of(row, "protocol"), &p));
        assert_ok(qb_dataset_windows(&(qb_source){text_of(row, "dataset"), GOLDEN, t, QB_SPECIAL_TEXT}, &p, 0,
                                     &w, &files));
        assert_string_equal(w.dataset, text_of(row, "dataset"));
        assert_string_equal(w.protocol, p.name);
        assert_int_equal(w.total_tokens, int_of(row, "tokens"));
        assert_string_equal(w.sha256, text_of(row, "sha256"));
        assert_int_equal(w.count, int_of(row, "count"));
        assert_int_equal(qb_windows_scored(&w), int_of(row, "scored"));
        const qb_json *first = qb_json_first(qb_json_get(row, "first"));
        assert_window_is(&w.windows[0], first);
        assert_window_is(&w.windows[1], qb_json_next(first));
        assert_window_is(&w.windows[w.count - 1], qb_json_get(row, "last"));
        assert_int_equal(files.n, 1);
        /* None of these invented files is the canonical one. */
        assert_non_null(strstr(files.files[0].note, "not comparable"));
        qb_windows_free(&w);
    }
    assert_int_equal(rows, 24);
    qb_json_free(golden);
    qb_tokenizer_close(t);
}

static void test_datasets__calibration_equals_cpython(void **state) {
    (void)state;
    qb_tokenizer *t = open_tokenizer(GOLDEN "/tokenizer.json");
    qb_json *golden = read_json(GOLDEN "/golden.json");
    int rows = 0;
    for (const qb_json *row = qb_json_first(qb_json_get(golden, "calibration")); row;
         row = qb_json_next(row), rows++) {
        const qb_json *start = qb_json_get(row, "starts"), *document = qb_json_get(row, "documents");
        int64_t n = qb_json_count(start), *starts, *documents;
        qb_windows w;
        qb_data_files files;
        assert_ok(qb_dataset_calibration(&(qb_source){text_of(row, "dataset"), GOLDEN, t, QB_SPECIAL_TEXT}, n,
                                         int_of(row, "seqlen"), (uint64_t)int_of(row, "seed"), &w, &files,
                                         &starts, &documents));
        assert_int_equal(w.count, n);
        assert_int_equal(w.total_tokens, int_of(row, "tokens"));
        assert_string_equal(w.sha256, text_of(row, "sha256"));
        assert_string_equal(w.protocol, "calibration");
        assert_int_equal(qb_windows_scored(&w), 0);
        assert_string_equal(files.files[0].role, "train");
        start = qb_json_first(start);
        document = qb_json_first(document);
        for (int64_t i = 0; i < n; i++, start = qb_json_next(start), document = qb_json_next(document)) {
            assert_int_equal(starts[i], (int64_t)qb_json_number(start));
            assert_int_equal(documents[i], (int64_t)qb_json_number(document));
        }
        qb_free(starts);
        qb_free(documents);
        qb_windows_free(&w);
    }
    assert_int_equal(rows, 15);
    qb_json_free(golden);
    qb_tokenizer_close(t);
}

/* ---- The shared goldens ---- */

static void assert_text_golden(const qb_json *row, const char *name, const qb_tokenizer *t,
                               qb_special_tokens special) {
    char dataset[32];
    bool raw = strncmp(name, "raw bytes", 9) == 0;
    snprintf(dataset, sizeof dataset, "%.*s", (int)strcspn(name, ","), name);
    qb_windows w;
    qb_data_files files;
    qb_protocol p;
    assert_ok(qb_protocol_parse(raw ? "llamacpp-512" : "gptq-512", &p));
    qb_source source = {raw ? "wikitext2" : dataset, shared_path("data"), t, special};
    assert_ok(qb_dataset_windows(&source, &p, 0, &w, &files));
    print_message("  %s, %s: %lld tokens\n", name, w.special_tokens, (long long)w.total_tokens);
    if (!qb_json_is_null(qb_json_get(row, "id_0"))) {
        int64_t zeros = 0;
        for (int64_t i = 0; i < w.n_ids; i++) zeros += w.ids[i] == 0;
        assert_int_equal(zeros, int_of(row, "id_0"));
        assert_int_equal(w.special_found, zeros); /* ptb holds no other special token */
    }
    assert_true(w.bos);
    assert_int_equal(w.total_tokens, int_of(row, "tokens"));
    assert_string_equal(w.sha256, text_of(row, "sha256_int32le"));
    /* The shared wikitext2 and ptb files are canonical, the c4 files are samples. */
    assert_int_equal(files.files[0].note[0] != 0, dataset[0] == 'c');
    qb_windows_free(&w);
}

static void assert_calibration_golden(const qb_json *row, const char *name, const qb_tokenizer *t) {
    char dataset[32];
    int n = 0, seqlen = 0, seed = -1;
    assert_int_equal(sscanf(name, "%31[^,], %d x %d, seed %d", dataset, &n, &seqlen, &seed), 4);
    qb_windows w;
    qb_data_files files;
    int64_t *starts, *documents, i = 0;
    qb_source source = {dataset, shared_path("data"), t, QB_SPECIAL_TEXT};
    assert_ok(qb_dataset_calibration(&source, n, seqlen, (uint64_t)seed, &w, &files, &starts, &documents));
    for (const qb_json *v = qb_json_first(qb_json_get(row, "windows")); v; v = qb_json_next(v), i++) {
        const qb_json *pair = qb_json_first(v);
        assert_int_equal(documents[i], pair ? (int64_t)qb_json_number(pair) : -1);
        assert_int_equal(starts[i], (int64_t)qb_json_number(pair ? qb_json_next(pair) : v));
    }
    assert_int_equal(i, n);
    assert_non_null(strstr(files.files[0].note, "substitute")); /* head and sample */
    qb_free(starts);
    qb_free(documents);
    qb_windows_free(&w);
}

static void test_datasets__shared_texts_and_draws_equal_the_golden(void **state) {
    (void)state;
    qb_json *golden = read_json(shared_path("golden/text.json"));
    static const char *const tokenizers[][2] = {{"llama2", "tokenizers/llama2"},
                                                {"wikimini", "models/wikimini-hf"}};
    for (size_t i = 0; i < 2; i++) {
        print_message("%s\n", tokenizers[i][0]);
        qb_tokenizer *t = open_tokenizer(shared_path(tokenizers[i][1]));
        const qb_json *row = qb_json_get(golden, tokenizers[i][0]);
        int n = 0;
        static const char *const lists[] = {"special_tokens_file", "datasets", "special_tokens_legacy"};
        for (int rule = 0; rule < 3; rule++)
            for (const qb_json *d = qb_json_first(qb_json_get(row, lists[rule])); d; d = qb_json_next(d), n++)
                assert_text_golden(d, qb_json_key(d), t, (qb_special_tokens)rule);
        for (const qb_json *c = qb_json_first(qb_json_get(row, "calibration")); c; c = qb_json_next(c), n++)
            assert_calibration_golden(c, qb_json_key(c), t);
        assert_int_equal(n, 14);
        qb_tokenizer_close(t);
    }
    qb_json_free(golden);
}

static void test_datasets__shared_perplexity_windows_equal_the_golden(void **state) {
    (void)state;
    static const char *const models[] = {"wikimini", "stories260K"};
    for (size_t i = 0; i < 2; i++) {
        char path[64];
        snprintf(path, sizeof path, "models/%s-hf", models[i]);
        qb_tokenizer *t = open_tokenizer(shared_path(path));
        snprintf(path, sizeof path, "golden/perplexity-%s.json", models[i]);
        qb_json *golden = read_json(shared_path(path));
        for (const qb_json *row = qb_json_first(qb_json_get(golden, "rows")); row; row = qb_json_next(row)) {
            char dataset[32];
            qb_protocol p;
            qb_windows w;
            snprintf(dataset, sizeof dataset, "%.*s", (int)strcspn(text_of(row, "dataset"), " "),
                     text_of(row, "dataset"));
            print_message("  %s %s %s\n", models[i], text_of(row, "protocol"), dataset);
            assert_ok(qb_protocol_parse(text_of(row, "protocol"), &p));
            qb_source source = {dataset, shared_path("data"), t, qb_protocol_special_tokens(p.kind)};
            const char *rule = qb_json_string(qb_json_get(row, "special_tokens"));
            if (rule) assert_ok(qb_special_tokens_parse(rule, &source.special));
            assert_ok(qb_dataset_windows(&source, &p, 0, &w, NULL));
            assert_int_equal(w.total_tokens, int_of(row, "tokens"));
            assert_int_equal(w.count, int_of(row, "windows"));
            assert_int_equal(qb_windows_scored(&w), int_of(row, "scored_tokens"));
            qb_windows_free(&w);
        }
        qb_json_free(golden);
        qb_tokenizer_close(t);
    }
}

/* The first windows alone: no more is tokenized than they need, and what is tokenized is the same. */
static void test_datasets__limited_windows_are_the_first_of_all(void **state) {
    (void)state;
    static const char *const rows[][2] = {{"wikitext2", "gptq-64"},
                                          {"wikitext2", "llamacpp-64"},
                                          {"wikitext2", "strided-64-16"},
                                          {"ptb", "gptq-64"},
                                          {"c4", "gptq-64"},
                                          {"c4-new", "strided-64-32"}};
    qb_tokenizer *t = open_tokenizer(GOLDEN "/tokenizer.json");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int64_t most = 1; most < 6; most += 2)
            for (int rule = 0; rule < 3; rule++) {
                qb_protocol p;
                qb_windows all, some;
                assert_ok(qb_protocol_parse(rows[i][1], &p));
                qb_source source = {rows[i][0], GOLDEN, t, (qb_special_tokens)rule};
                assert_ok(qb_dataset_windows(&source, &p, 0, &all, NULL));
                assert_ok(qb_dataset_windows(&source, &p, most, &some, NULL));
                assert_int_equal(some.count, most);
                assert_true(all.part == 1);
                assert_true(all.n_ids <= some.n_ids || (some.part > 0 && some.part < 1));
                assert_int_equal(some.n_ids, qb_protocol_tokens(&p, most));
                for (int64_t w = 0; w < most; w++) {
                    assert_int_equal(some.windows[w].offset, all.windows[w].offset);
                    assert_int_equal(some.windows[w].length, all.windows[w].length);
                    assert_int_equal(some.windows[w].score_begin, all.windows[w].score_begin);
                    int64_t n = w + 1 < most ? p.stride : p.window, at = all.windows[w].offset;
                    assert_memory_equal(some.ids + at, all.ids + at, (size_t)n * sizeof(int32_t));
                }
                qb_windows_free(&all);
                qb_windows_free(&some);
            }
    qb_tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_datasets__registry_rows_are_complete),
        cmocka_unit_test(test_datasets__windows_equal_the_golden),
        cmocka_unit_test(test_datasets__limited_windows_are_the_first_of_all),
        cmocka_unit_test(test_datasets__calibration_equals_cpython),
        cmocka_unit_test(test_datasets__shared_texts_and_draws_equal_the_golden),
        cmocka_unit_test(test_datasets__shared_perplexity_windows_equal_the_golden),
    };
    return cmocka_run_group_tests_name("datasets", tests, NULL, NULL);
}
