#include "base/hash.h"
#include "base/huge.h"
#include "base/library.h"
#include "base/log.h"
#include "base/option.h"
#include "base/rng.h"
#include "base/threads.h"
#include "tests/support.h"

#include "base/lock.h"

#include <math.h>
#include <sys/stat.h>

/* CPython's random.randint(0, 356316); docs/protocols.md. */
static void test_rng__equals_cpython(void **state) {
    (void)state;
    static const struct {
        uint64_t seed;
        int64_t high;
        int64_t values[6];
    } rows[] = {
        {0, 356316, {201979, 220500, 21225, 135746, 268055, 254766}},
        {1, 356316, {70445, 298426, 33086, 133729, 61823, 259750}},
        {42, 356316, {335243, 58369, 13112, 144194, 128393, 117026}},
        {0, 45575, {25247, 27562, 2653, 16968, 33506, 31845}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_pyrandom r;
        qb_pyrandom_seed(&r, rows[i].seed);
        for (size_t j = 0; j < 6; j++)
            assert_int_equal(qb_pyrandom_randint(&r, 0, rows[i].high), rows[i].values[j]);
    }
    /* python3 -c "import random; random.seed(2**40+5); print(random.randint(-5, 2**40), random.random())" */
    qb_pyrandom r;
    qb_pyrandom_seed(&r, ((uint64_t)1 << 40) + 5);
    assert_int_equal(qb_pyrandom_randint(&r, -5, (int64_t)1 << 40), 64105765083);
    assert_true(qb_pyrandom_double(&r) == 0.530959239292452);
}

static void test_hash__equals_published_vector(void **state) {
    (void)state;
    char hex[QB_SHA256_HEX];
    assert_ok(qb_hash_bytes("abc", 3, hex));
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static bool equal_texts(const char *a, const char *b) {
    qb_json *x, *y;
    assert_ok(qb_json_parse(a, strlen(a), "a", &x));
    assert_ok(qb_json_parse(b, strlen(b), "b", &y));
    bool equal = qb_json_equal(x, y);
    assert_int_equal(qb_json_equal(y, x), equal);
    qb_json_free(x);
    qb_json_free(y);
    return equal;
}

/* Results are compared with what an older build wrote: order of members and null for absent are no
 * difference. */
static void test_json__equal_is_by_value(void **state) {
    (void)state;
    assert_true(equal_texts("{\"a\":1,\"b\":[true,\"x\"]}", "{\"b\":[true,\"x\"],\"a\":1.0}"));
    assert_true(equal_texts("{\"a\":1,\"b\":null}", "{\"a\":1}"));
    assert_true(equal_texts("{\"b\":null,\"a\":1}", "{\"a\":1,\"c\":null}"));
    assert_false(equal_texts("{\"a\":1,\"b\":0}", "{\"a\":1}"));
    assert_false(equal_texts("[1,2]", "[2,1]"));
    assert_false(equal_texts("[1,2]", "[1,2,3]"));
    assert_false(equal_texts("true", "false"));
    assert_false(equal_texts("\"1\"", "1"));
    assert_false(equal_texts("{}", "[]"));
    assert_true(qb_json_equal(NULL, NULL));
}

static void test_json__round_trip_and_typed_errors(void **state) {
    (void)state;
    qb_json *o = qb_json_object();
    qb_json_put_int(o, "big", 9007199254740993LL);
    qb_json_put_real(o, "nan", (double)NAN);
    qb_json_put_real(o, "tenth", 0.1);
    char *text;
    assert_ok(qb_json_print(o, false, &text));
    assert_string_equal(text, "{\"big\":9007199254740993,\"nan\":null,\"tenth\":0.1}");
    qb_free(text);
    int64_t v = 7;
    assert_ok(qb_json_int(o, "absent", "doc", false, 0, 10, &v));
    assert_int_equal(v, 7);
    assert_fails(qb_json_int(o, "absent", "doc", true, 0, 10, &v), QB_ERR_FORMAT,
                 "doc: \"absent\" is missing");
    assert_fails(qb_json_int(o, "tenth", "doc", true, 0, 10, &v), QB_ERR_FORMAT, "must be an integer");
    qb_json_free(o);
    assert_fails(qb_json_parse("{\"a\":\n1,,}", 10, "x.json", &o), QB_ERR_FORMAT,
                 "x.json: not valid JSON at line 2");
    static const char *const cut[] = {"{\"a\": [1, {}", "{\"a\": \"b\\\"}", "[1, 2"};
    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++)
        assert_fails(qb_json_parse(cut[i], strlen(cut[i]), "x.json", &o), QB_ERR_FORMAT,
                     ": it ends within the value, as a file that was cut short");
    assert_fails(qb_json_parse("[\"{\",]", 6, "x.json", &o), QB_ERR_FORMAT, "byte 5 of 6");
    assert_null(strstr(qb_error_text(), "cut short"));
    assert_fails(qb_json_parse("{} x", 4, "x.json", &o), QB_ERR_FORMAT, "text after the end");
}

typedef struct {
    bool flag, on;
    int64_t count;
    double share;
    const char *file, *kind;
    qb_int_list sizes;
} sample;
#define ROW(n, l, t, f, i, lo, hi, c, u)                                                                     \
    { n, l, t, offsetof(sample, f), i, lo, hi, c, u, "help of " n }
static const qb_option sample_rows[] = {
    ROW("act-order", 0, QB_OPTION_BOOL, flag, NULL, 0, 0, NULL, NULL),
    ROW("sequential", 0, QB_OPTION_BOOL, on, "true", 0, 0, NULL, NULL),
    ROW("group-size", 'g', QB_OPTION_INT, count, "128", -1, 4096, NULL, "N"),
    ROW("damp", 0, QB_OPTION_REAL, share, "0.01", 0, 1, NULL, "SHARE"),
    ROW("output", 'o', QB_OPTION_TEXT, file, NULL, 0, 0, NULL, "FILE"),
    ROW("method", 0, QB_OPTION_CHOICE, kind, "gptq", 0, 0, "gptq|rtn|nf4", "NAME"),
    ROW("prefill", 0, QB_OPTION_INT_LIST, sizes, "128,512", 1, 1e6, NULL, "N,N"),
    {0},
};

static qb_status parse_words(sample *s, int argc, const char **argv, const char **words, size_t *n) {
    qb_option_set set = {"Options", sample_rows, s};
    qb_options_defaults(sample_rows, s);
    return qb_options_parse(&set, 1, argc, (char **)(uintptr_t)argv, words, 2, n);
}

/* Some readers take 6.0 for a float and refuse 6. */
/* As Python's json reads and writes the same texts. */
static void test_json__numbers_keep_their_source_text(void **state) {
    (void)state;
    static const char text[] =
        "{\"a\":2.0,\"b\":[1e-05,-0,1E5,18446744073709551615,0.1,7,-7],\"c,1.0\":\"\\\"3.0\",\"d\":{\"e\":"
        "10000.0,\"f\":[NaN,Infinity,-Infinity]},\"g\":9007199254740993}";
    qb_json *o, *copy;
    char *printed;
    int64_t v;
    assert_ok(qb_json_parse(text, strlen(text), "doc", &o));
    copy = qb_json_copy(o);
    assert_ok(qb_json_print(copy, false, &printed));
    assert_string_equal(printed, text);
    qb_free(printed);
    assert_true(qb_json_number(qb_json_get(o, "a")) == 2.0);
    assert_ok(qb_json_int(o, "a", "doc", true, 0, 10, &v));
    assert_int_equal(v, 2);
    assert_ok(qb_json_int(o, "g", "doc", true, 0, INT64_MAX, &v));
    assert_true(v == 9007199254740993LL);
    const qb_json *f = qb_json_first(qb_json_get(qb_json_get(o, "d"), "f"));
    assert_true(isnan(qb_json_number(f)));
    assert_true(qb_json_number(qb_json_next(f)) == (double)INFINITY);
    assert_true(qb_json_number(qb_json_next(qb_json_next(f))) == -(double)INFINITY);
    double real = 0;
    static const char infinite[] = "{\"scale\": Infinity, \"n\": NaN}";
    qb_json *i;
    assert_ok(qb_json_parse(infinite, strlen(infinite), "doc", &i));
    assert_fails(qb_json_real(i, "scale", "doc", true, 0, 10, &real), QB_ERR_FORMAT, "\"scale\" must lie");
    assert_fails(qb_json_int(i, "n", "doc", true, 0, 10, &v), QB_ERR_FORMAT, "\"n\" must be an integer");
    qb_json_free(i);
    qb_json_free(copy);
    qb_json_free(o);
}

static void keep_warning(void *ctx, const char *text) {
    snprintf(ctx, 64, "%s", text);
}

static void test_status__names_cannot_steer_a_terminal(void **state) {
    (void)state;
    /* C0, DEL, C1, right-to-left override, isolate, Arabic letter mark, bytes that are no UTF-8; letters stay
     */
    (void)qb_fail(QB_ERR_FORMAT, "%s",
                  "a\x1b[31m\x7f\xc2\x9b\xe2\x80\xae\xe2\x81\xa6\xd8\x9c\xff"
                  "\xc3\xa9\xe4\xb8\x96");
    assert_string_equal(qb_error_text(), "a?[31m"
                                         "????????"
                                         "????"
                                         "\xc3\xa9\xe4\xb8\x96");
    qb_error_clear();
    char taken[64] = "";
    qb_log_capture(keep_warning, taken);
    qb_warn("%s", "x\ny\xc2\x85");
    qb_log_capture(NULL, NULL);
    assert_string_equal(taken, "x?y??");
}

static void test_json__of_equal_keys_the_last_counts(void **state) {
    (void)state;
    char warning[64] = "", *printed;
    qb_json *o;
    static const char same[] = "{\"a\":1,\"b\":2,\"a\":1}", nested[] = "[{\"x\":{\"a\":1,\"b\":2,\"a\":3}}]";
    qb_log_capture(keep_warning, warning);
    assert_ok(qb_json_parse(same, strlen(same), "doc", &o));
    assert_string_equal(warning, "");
    assert_int_equal(qb_json_count(o), 2);
    qb_json_free(o);
    assert_ok(qb_json_parse(nested, strlen(nested), "doc", &o));
    assert_non_null(strstr(warning, "doc: the key \"a\" stands twice with different values"));
    assert_ok(qb_json_print(o, false, &printed));
    assert_string_equal(printed, "[{\"x\":{\"b\":2,\"a\":3}}]");
    qb_free(printed);
    qb_json_free(o);
    /* many keys go another way */
    qb_str many = {0};
    qb_str_text(&many, "{");
    for (int k = 0; k < 100; k++) qb_str_printf(&many, "\"k%d\":%d,", k % 60, k);
    qb_str_text(&many, "\"z\":0}");
    assert_ok(qb_json_parse(many.text, many.length, "doc", &o));
    assert_int_equal(qb_json_count(o), 61);
    assert_true(qb_json_number(qb_json_get(o, "k7")) == 67.0);
    assert_true(qb_json_number(qb_json_get(o, "k50")) == 50.0);
    qb_json_free(o);
    assert_ok(qb_json_parse_all(many.text, many.length, "doc", &o));
    assert_int_equal(qb_json_count(o), 101);
    qb_json_free(o);
    qb_str_free(&many);
    qb_log_capture(NULL, NULL);
}

static void test_json__decimals_keep_their_point(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } rows[] = {{6, "{\"x\":6.0}"}, {0, "{\"x\":0.0}"}, {-3, "{\"x\":-3.0}"}, {0.25, "{\"x\":0.25}"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_json *o = qb_json_object(), *copy;
        char *text;
        qb_json_put_decimal(o, "x", rows[i].value);
        copy = qb_json_copy(o);
        assert_ok(qb_json_print(copy, false, &text));
        assert_string_equal(text, rows[i].text);
        qb_free(text);
        qb_json_free(copy);
        qb_json_free(o);
    }
}

static void test_log__warnings_can_be_taken(void **state) {
    (void)state;
    char taken[64] = "";
    qb_log_capture(keep_warning, taken);
    qb_warn("%d things", 3);
    qb_log_capture(NULL, NULL);
    assert_string_equal(taken, "3 things");
}

static void test_option__parses_every_form(void **state) {
    (void)state;
    sample s;
    const char *words[2];
    size_t n;
    const char *argv[] = {"x",  "MODEL",      "--act-order", "--no-sequential", "-g",
                          "-1", "--damp=0.1", "-oF",         "--prefill",       "1,2,3"};
    assert_ok(parse_words(&s, 10, argv, words, &n));
    assert_int_equal(n, 1);
    assert_string_equal(words[0], "MODEL");
    assert_true(s.flag && !s.on && s.count == -1 && s.share == 0.1 && s.sizes.n == 3 &&
                s.sizes.values[2] == 3);
    assert_string_equal(s.file, "F");
    assert_string_equal(s.kind, "gptq");
}

static void test_option__names_the_fault(void **state) {
    (void)state;
    sample s;
    const char *words[2];
    size_t n;
#define BAD(needle, ...)                                                                                     \
    do {                                                                                                     \
        const char *argv[] = {"x", __VA_ARGS__};                                                             \
        assert_fails(parse_words(&s, (int)(sizeof argv / sizeof argv[0]), argv, words, &n), QB_ERR_USAGE,    \
                     needle);                                                                                \
    } while (0)
    BAD("did you mean --group-size?", "--grop-size", "1");
    BAD("--group-size must lie between -1 and 4096, found 9999", "--group-size", "9999");
    BAD("a whole number, found 'x'", "--group-size", "x");
    BAD("needs a value", "--group-size");
    BAD("one of gptq|rtn|nf4, found 'gpt'", "--method", "gpt");
    BAD("unexpected argument 'c'", "a", "b", "c");
    BAD("unknown option -z", "-z");
}

static void test_option__json_round_trip(void **state) {
    (void)state;
    sample s, t;
    qb_options_defaults(sample_rows, &s);
    s.flag = true;
    s.sizes = (qb_int_list){2, {7, 9}};
    qb_json *o = qb_json_object();
    qb_options_to_json(sample_rows, &s, o);
    assert_true(qb_json_get(o, "group_size") != NULL);
    qb_json_put(o, "output", NULL);
    static const char *const ignore[] = {"output", "name", NULL};
    qb_json_put_text(o, "name", "someone else's");
    qb_options_defaults(sample_rows, &t);
    assert_ok(qb_options_from_json(sample_rows, &t, o, "suite", ignore));
    assert_true(t.flag && t.sizes.n == 2 && t.sizes.values[1] == 9 && t.count == 128);
    qb_json_put_int(o, "group_sise", 1);
    assert_fails(qb_options_from_json(sample_rows, &t, o, "suite", ignore), QB_ERR_USAGE,
                 "suite: unknown key group_sise; did you mean group_size?");
    qb_json_free(o);
}

static void mark(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    int *seen = ctx;
    for (int64_t i = begin; i < end; i++) seen[i]++;
}

static void test_threads__visit_every_index_once(void **state) {
    (void)state;
    static const int counts[] = {1, 2, 5};
    for (size_t c = 0; c < 3; c++) {
        qb_threads *t;
        assert_ok(qb_threads_create(counts[c], &t));
        assert_int_equal(qb_threads_count(t), counts[c]);
        for (int round = 0; round < 200; round++) {
            int seen[101] = {0};
            qb_parallel_for(t, 101, 1 + round % 7, mark, seen);
            for (int i = 0; i < 101; i++) assert_int_equal(seen[i], 1);
            if (round % 50 == 0) usleep(3000); /* let workers fall asleep */
        }
        qb_threads_free(t);
    }
}

static void test_file__atomic_write_leaves_no_temporary(void **state) {
    (void)state;
    char *dir = scratch_make();
    char *path = qb_path_join(dir, "a/b/c.txt");
    char *sub = qb_path_dir(path);
    assert_ok(qb_make_dirs(sub));
    assert_ok(qb_file_write_atomic(path, "one", 3));
    assert_ok(qb_file_write_atomic(path, "three", 5));
    char *text;
    size_t n;
    assert_ok(qb_file_read(path, 100, &text, &n));
    assert_int_equal(n, 5);
    assert_string_equal(text, "three");
    qb_free(text);
    assert_fails(qb_file_read(path, 2, &text, &n), QB_ERR_FORMAT, "larger than");
    assert_ok(qb_remove_tree(path));
    assert_int_equal(rmdir(sub), 0); /* empty: nothing was left beside */
    assert_fails(qb_file_read(path, 2, &text, &n), QB_ERR_NOT_FOUND, "No such file");
    qb_free(path);
    qb_free(sub);
    scratch_remove(dir);
}

static void test_file__one_process_at_a_time_holds_a_lock(void **state) {
    (void)state;
    char *dir = scratch_make();
    char *path = qb_path_join(dir, "result.json"), *lock_path = qb_path_join(dir, "result.json.lock");
    qb_file_lock first = {0}, second = {0};
    qb_file_unlock(&second);
    assert_ok(qb_file_lock_take(path, &first));
    assert_fails(qb_file_lock_take(path, &second), QB_ERR_USAGE, "another process");
    assert_null(second.path);
    qb_file_unlock(&first);
    assert_false(qb_path_exists(lock_path));
    assert_ok(qb_file_write_atomic(lock_path, "", 0)); /* left by a process that was killed */
    assert_ok(qb_file_lock_take(path, &second));
    qb_file_unlock(&second);
    assert_false(qb_path_exists(lock_path));
    assert_fails(qb_file_lock_take("/nonexistent/a", &first), QB_ERR_NOT_FOUND, "/nonexistent/a.lock");
    qb_free(path);
    qb_free(lock_path);
    scratch_remove(dir);
}

static void test_file__pipes_and_devices_are_refused(void **state) {
    (void)state;
    char *dir = scratch_make(), *pipe_path = qb_path_join(dir, "pipe"), *below = qb_path_join(dir, "file/x");
    char *file = qb_path_join(dir, "file");
    qb_map map;
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_fails(qb_map_open(pipe_path, &map), QB_ERR_IO, "not a regular file"); /* and does not wait */
    assert_fails(qb_file_write_atomic(pipe_path, "x", 1), QB_ERR_USAGE, "a device or a pipe");
    assert_fails(qb_file_write_atomic(dir, "x", 1), QB_ERR_USAGE, "a directory");
    assert_true(qb_path_exists(pipe_path));
    assert_ok(qb_file_write_atomic(file, "x", 1));
    assert_fails(qb_make_dirs(below), QB_ERR_IO, "file: Not a directory");
    qb_free(pipe_path);
    qb_free(below);
    qb_free(file);
    scratch_remove(dir);
}

static void test_status__a_long_sentence_keeps_both_ends(void **state) {
    (void)state;
    char path[4096];
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = 0;
    assert_fails(qb_fail(QB_ERR_IO, "cannot open %s: No such file", path), QB_ERR_IO, "p: No such file");
    assert_int_equal(strncmp(qb_error_text(), "cannot open ppp", 15), 0);
    assert_fails(qb_fail_prefix(QB_ERR_IO, "shard\n1"), QB_ERR_IO, "shard?1: cannot open pp");
    assert_non_null(strstr(qb_error_text(), "p: No such file"));
}

typedef struct {
    double (*cosine)(double x);
    double (*other)(double x);
} functions;

static void test_library__is_loaded_once_and_what_is_missing_is_told(void **state) {
    (void)state;
    functions f = {0};
    static const qb_symbol one[] = {{"cos", offsetof(functions, cosine)}};
    static const qb_symbol two[] = {{"cos", offsetof(functions, cosine)},
                                    {"cosine_of_nobody", offsetof(functions, other)}};
    qb_library l = {.file = "libm.so.6",
                    .what = "cosines",
                    .package = "libc6",
                    .symbols = one,
                    .n_symbols = 1,
                    .functions = &f};
    for (int i = 0; i < 2; i++) assert_ok(qb_library_load(&l));
    assert_true(f.cosine(0) == 1);
    l.loaded = false, l.symbols = two, l.n_symbols = 2;
    assert_fails(qb_library_load(&l), QB_ERR_UNSUPPORTED,
                 "libm.so.6 is needed by cosines (cosine_of_nobody): install libc6");
    l.file = "libnobody.so.7";
    for (int i = 0; i < 2; i++) {
        assert_fails(qb_library_load(&l), QB_ERR_UNSUPPORTED, "libnobody.so.7 is needed by cosines (");
        assert_null(strchr(qb_error_text(), '\n'));
    }
}

/* Arrays of all sizes keep what is in them while others come and go. */
static void test_huge__arrays_keep_their_bytes(void **state) {
    (void)state;
    enum { ARRAYS = 60, LARGE = 40 << 20 };
    qb_huge all = {0};
    uint8_t *array[ARRAYS] = {0};
    int64_t bytes[ARRAYS] = {0};
    for (int i = 0; i < 4 * ARRAYS; i++) {
        const int at = i * 7 % ARRAYS;
        for (int64_t b = 0; array[at] && b < bytes[at]; b += bytes[at] / 97 + 1)
            assert_int_equal(array[at][b], at);
        qb_huge_free(&all, array[at]);
        bytes[at] = i == 17 ? LARGE : (int64_t)1 << i % 22;
        assert_ok(qb_huge_alloc(&all, bytes[at], &array[at]));
        assert_int_equal((uintptr_t)array[at] % QB_ALIGNMENT, 0);
        memset(array[at], at, (size_t)bytes[at]);
    }
    void *none;
    assert_ok(qb_huge_alloc(&all, 0, &none));
    assert_non_null(none);
    qb_huge_free(&all, none);
    assert_fails(qb_huge_alloc(&all, -1, &none), QB_ERR_MEMORY, "-1 bytes");
    assert_null(none);
    for (int i = 0; i < ARRAYS; i++) qb_huge_free(&all, array[i]);
    qb_huge_free(&all, NULL);
    assert_null(all.chunks);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rng__equals_cpython),
        cmocka_unit_test(test_hash__equals_published_vector),
        cmocka_unit_test(test_json__round_trip_and_typed_errors),
        cmocka_unit_test(test_json__equal_is_by_value),
        cmocka_unit_test(test_json__numbers_keep_their_source_text),
        cmocka_unit_test(test_json__of_equal_keys_the_last_counts),
        cmocka_unit_test(test_status__names_cannot_steer_a_terminal),
        cmocka_unit_test(test_json__decimals_keep_their_point),
        cmocka_unit_test(test_log__warnings_can_be_taken),
        cmocka_unit_test(test_option__parses_every_form),
        cmocka_unit_test(test_option__names_the_fault),
        cmocka_unit_test(test_option__json_round_trip),
        cmocka_unit_test(test_threads__visit_every_index_once),
        cmocka_unit_test(test_file__atomic_write_leaves_no_temporary),
        cmocka_unit_test(test_file__one_process_at_a_time_holds_a_lock),
        cmocka_unit_test(test_file__pipes_and_devices_are_refused),
        cmocka_unit_test(test_status__a_long_sentence_keeps_both_ends),
        cmocka_unit_test(test_huge__arrays_keep_their_bytes),
        cmocka_unit_test(test_library__is_loaded_once_and_what_is_missing_is_told),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
