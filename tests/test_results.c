#include "results/device.h"
#include "results/results.h"
#include "results/sink.h"
#include "results/text.h"
#include "tests/support.h"

#include <dirent.h>
#include <math.h>

#define GOLDEN QB_SOURCE_DIR "/tests/golden/results/"

/* A copy of `node` in which the place that the JSON pointer names is set to `value`, or removed when that is
 * NULL. */
static qb_json *mutate(const qb_json *node, const char *pointer, const qb_json *value) {
    if (*pointer == 0) return qb_json_copy(value);
    size_t n = strcspn(pointer + 1, "/");
    char part[64];
    assert_true(n < sizeof part);
    memcpy(part, pointer + 1, n);
    part[n] = 0;
    const char *rest = pointer + 1 + n;
    bool is_object = qb_json_is_object(node), put = false;
    qb_json *out = is_object ? qb_json_object() : qb_json_array();
    int64_t index = 0;
    for (const qb_json *c = qb_json_first(node); c; c = qb_json_next(c), index++) {
        bool here = is_object ? !strcmp(qb_json_key(c), part) : index == atoll(part);
        put |= here;
        qb_json *copy = !here ? qb_json_copy(c) : *rest || value ? mutate(c, rest, value) : NULL;
        if (is_object)
            qb_json_put(out, qb_json_key(c), copy);
        else
            qb_json_push(out, copy);
    }
    if (!put && value && is_object) qb_json_put(out, part, qb_json_copy(value));
    if (!put && !value) fail_msg("nothing at %s to remove", pointer);
    return out;
}

static void judge(const char *name, qb_status st, const char *expected) {
    if (!expected && st != QB_OK) fail_msg("%s: refused: %s", name, qb_error_text());
    if (expected && st == QB_OK) fail_msg("%s: accepted, expected \"%s\"", name, expected);
    if (expected && !strstr(qb_error_text(), expected))
        fail_msg("%s: said \"%s\", expected \"%s\"", name, qb_error_text(), expected);
    if (expected && st != QB_ERR_FORMAT) fail_msg("%s: status %s", name, qb_status_name(st));
}

/* tools/validate_results.py holds results/schema.json to the same table. */
static void test_results__validator_judges_the_table_of_mutations(void **state) {
    (void)state;
    qb_json *table, *example;
    assert_ok(qb_json_read(GOLDEN "mutations.json", 1 << 20, &table));
    assert_ok(qb_json_read(GOLDEN "example.json", 1 << 20, &example));
    assert_ok(qb_results_validate(example, "example.json"));
    int n = 0;
    for (const qb_json *m = qb_json_first(qb_json_get(table, "changes")); m; m = qb_json_next(m), n++) {
        const qb_json *value = qb_json_true(qb_json_get(m, "remove")) ? NULL : qb_json_get(m, "value");
        qb_json *doc = mutate(example, qb_json_string(qb_json_get(m, "pointer")), value);
        judge(qb_json_string(qb_json_get(m, "name")), qb_results_validate(doc, "example.json"),
              qb_json_string(qb_json_get(m, "error")));
        qb_json_free(doc);
    }
    for (const qb_json *t = qb_json_first(qb_json_get(table, "texts")); t; t = qb_json_next(t), n++) {
        const char *text = qb_json_string(qb_json_get(t, "text"));
        qb_results r;
        judge(qb_json_string(qb_json_get(t, "name")), qb_results_parse(text, strlen(text), "t.json", &r),
              qb_json_string(qb_json_get(t, "error")));
        qb_results_close(&r);
    }
    assert_true(n > 90);
    qb_json_free(table);
    qb_json_free(example);
}

static qb_json *context_make(void) {
    qb_json *context = qb_json_object(), *program = qb_json_object(), *device = qb_json_object(),
            *devices = qb_json_array();
    qb_json_put_text(program, "name", "quantbench");
    qb_json_put_text(program, "version", "1");
    qb_json_put(context, "program", program);
    qb_json_put_text(context, "created", "2026-11-22T05:49:38Z");
    qb_json_put_int(context, "seed", 9007199254740993LL);
    qb_json_put_text(device, "cpu", "A CPU");
    qb_json_put_int(device, "cores", 2);
    qb_json_put_int(device, "threads", 2);
    qb_json_put_text(device, "id", "cpu");
    qb_json_push(devices, device);
    qb_json_put(context, "devices", devices);
    return context;
}

static qb_json *case_make(const char *id, double seconds) {
    qb_json *c = qb_json_object();
    qb_json_put_text(c, "id", id);
    qb_json_put_text(c, "status", "ok");
    qb_json_put_null(c, "error");
    qb_json_put_real(c, "seconds", seconds);
    qb_json_put(c, "config", qb_json_object());
    qb_json_put_null(c, "model");
    qb_json_put(c, "metrics", qb_json_array());
    return c;
}

static double seconds_of(const char *path, const char *id) {
    qb_results r;
    assert_ok(qb_results_open(path, &r));
    double seconds = qb_json_number(qb_json_get(qb_results_case(&r, id), "seconds"));
    qb_results_close(&r);
    return seconds;
}

static void test_results__put_replaces_by_id_and_every_state_on_disk_is_whole(void **state) {
    (void)state;
    char *dir = scratch_make(), *path = qb_path_join(dir, "r.json");
    qb_results r;
    assert_ok(qb_results_create(path, context_make(), &r));
    assert_true(isnan(seconds_of(path, "a")));
    assert_ok(qb_results_put_case(&r, case_make("a", 1)));
    assert_ok(qb_results_put_case(&r, case_make("b", 2)));
    assert_true(seconds_of(path, "a") == 1);
    assert_ok(qb_results_put_case(&r, case_make("a", 3)));
    assert_true(seconds_of(path, "a") == 3 && seconds_of(path, "b") == 2);
    assert_int_equal(qb_json_count(qb_json_get(r.doc, "cases")), 2);
    assert_string_equal(qb_json_string(qb_json_get(qb_json_first(qb_json_get(r.doc, "cases")), "id")), "a");

    /* A case that breaks a rule changes neither the memory nor the disk; NaN is written as null. */
    qb_json *bad = case_make("a", 9);
    qb_json_put_text(bad, "status", "fine");
    assert_fails(qb_results_put_case(&r, bad), QB_ERR_FORMAT, "cases[0].status must be one of");
    assert_true(seconds_of(path, "a") == 3);
    assert_ok(qb_results_put_case(&r, case_make("c", (double)NAN)));
    assert_true(qb_json_is_null(qb_json_get(qb_results_case(&r, "c"), "seconds")));
    assert_null(qb_results_case(&r, "d"));
    qb_results_close(&r);
    qb_free(path);
    scratch_remove(dir);
}

static void test_results__unwritable_and_unreadable_paths_fail_at_once(void **state) {
    (void)state;
    qb_results r;
    assert_fails(qb_results_create("/nowhere/at/all/r.json", context_make(), &r), QB_ERR_NOT_FOUND,
                 "/nowhere/at/all/r.json");
    assert_fails(qb_results_open("/nowhere/r.json", &r), QB_ERR_NOT_FOUND, "/nowhere/r.json");
    assert_fails(qb_results_create(NULL, qb_json_object(), &r), QB_ERR_FORMAT, "context lacks \"program\"");
    assert_fails(qb_results_open(QB_SOURCE_DIR "/results/schema.json", &r), QB_ERR_FORMAT,
                 "schema.json: lacks \"schema\"");
    qb_results_close(NULL);
}

static char *read_text(const char *path) {
    char *text;
    assert_ok(qb_file_read(path, 1 << 20, &text, NULL));
    return text;
}

/* The recorded tables were read by eye; a change of the layout is a change of these files. */
static void test_results__table_equals_the_recorded_one(void **state) {
    (void)state;
    qb_results r;
    assert_ok(qb_results_open(GOLDEN "example.json", &r));
    for (int markdown = 0; markdown < 2; markdown++) {
        qb_str out = {0};
        assert_ok(qb_results_print(&r, markdown ? "markdown" : "text", &out));
        char *expected = read_text(markdown ? GOLDEN "table.md" : GOLDEN "table.txt");
        assert_string_equal(qb_str_get(&out), expected);
        qb_free(expected);
        qb_str_free(&out);
    }
    qb_results_close(&r);
}

static qb_json *config_make(const char *method, int bits, int group, int threads) {
    qb_json *config = qb_json_object();
    qb_json_put_text(config, "method", method);
    if (bits) qb_json_put_int(config, "bits", bits);
    if (group) qb_json_put_int(config, "group_size", group);
    qb_json_put_int(config, "threads", threads);
    return config;
}

static void test_results__labels_are_short_and_tell_twins_apart(void **state) {
    (void)state;
    static const struct {
        const char *id, *method;
        int bits, group, threads;
        const char *label;
    } rows[] = {
        {"a", "none", 0, 0, 2, "unquantized"},
        {"b", "gptq", 4, 128, 1, "GPTQ 4b g128 threads=1"},
        {"c", "gptq", 4, 128, 2, "GPTQ 4b g128 threads=2"},
        {"d", "rtn", 8, -1, 2, "RTN 8b"},
        {"e", "nf4", 0, 0, 2, "NF4 (e)"},
        {"f", "nf4", 0, 0, 2, "NF4 (f)"},
        {"g", "bad\x1b[31m\n\xff", 4, 0, 2, "bad?[31m \xef\xbf\xbd"},
    };
    qb_results r;
    assert_ok(qb_results_create(NULL, context_make(), &r));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_json *c = case_make(rows[i].id, 0);
        qb_json_put(c, "config", config_make(rows[i].method, rows[i].bits, rows[i].group, rows[i].threads));
        assert_ok(qb_results_put_case(&r, c));
    }
    qb_rows all;
    assert_ok(qb_rows_read((const qb_results *[]){&r}, 1, &all));
    assert_int_equal(all.n_cases, sizeof rows / sizeof rows[0]);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_string_equal(all.cases[i].label, rows[i].label);
    qb_rows_free(&all);
    qb_results_close(&r);
}

/* Of a later program: both schemas that are read are named. */
static void test_results__a_later_schema_is_refused_by_name(void **state) {
    (void)state;
    static const char later[] = "{\"schema\":\"qb.results/3\",\"context\":{},\"cases\":[]}";
    qb_results r;
    assert_fails(
        qb_results_parse(later, sizeof later - 1, "t.json", &r), QB_ERR_FORMAT,
        "t.json: schema must be one of qb.results/1 and qb.results/2, which this program reads, found "
        "\"qb.results/3\": read it with the program that wrote it");
}

/* Of two backends in one document the first's facts and ceilings were written: the other's cases name no
   device, and their shares are of the wrong ceiling. */
static void test_results__documents_of_the_first_schema_are_lifted(void **state) {
    (void)state;
    static const char text[] =
        "{\"schema\":\"qb.results/1\",\"context\":{\"program\":{\"name\":\"b\",\"version\":\"1\"},"
        "\"created\":\"2026-11-22T06:10:00Z\",\"machine\":{\"cpu\":\"C\",\"cores\":2,\"threads\":2,"
        "\"ceilings\":{\"read_bytes_per_s\":1e9,\"gemm_flop_per_s\":1e10}}},\"cases\":["
        "{\"id\":\"m/a/cpu\",\"status\":\"ok\",\"config\":{\"backend\":\"cpu\"},\"model\":null,\"metrics\":["
        "{\"name\":\"decode\",\"value\":1,\"unit\":\"tok/s\",\"better\":\"higher\",\"status\":\"ok\","
        "\"share_of_ceiling\":0.5}]},"
        "{\"id\":\"m/a/"
        "cuda\",\"status\":\"ok\",\"config\":{\"backend\":\"cuda\"},\"model\":null,\"metrics\":["
        "{\"name\":\"decode\",\"value\":9,\"unit\":\"tok/s\",\"better\":\"higher\",\"status\":\"ok\","
        "\"share_of_ceiling\":4.41}]}]}";
    qb_results r;
    assert_ok(qb_results_parse(text, strlen(text), "old.json", &r));
    assert_string_equal(qb_json_string(qb_json_get(r.doc, "schema")), QB_RESULTS_SCHEMA);
    const qb_json *cpu = qb_results_case(&r, "m/a/cpu"), *cuda = qb_results_case(&r, "m/a/cuda");
    const qb_json *device = qb_case_device(&r, cpu);
    assert_string_equal(qb_json_string(qb_json_get(device, "cpu")), "C");
    assert_true(qb_json_number(qb_json_get(qb_json_get(device, "ceilings"), "read_bytes_per_s")) == 1e9);
    assert_null(qb_case_device(&r, cuda));
    assert_true(
        qb_json_number(qb_json_get(qb_results_metric(cpu, "decode", NULL, NULL), "share_of_ceiling")) == 0.5);
    assert_true(
        qb_json_is_null(qb_json_get(qb_results_metric(cuda, "decode", NULL, NULL), "share_of_ceiling")));
    assert_true(qb_json_number(qb_json_get(qb_results_metric(cuda, "decode", NULL, NULL), "value")) == 9);
    qb_results_close(&r);
}

/* Three cases of the program's run of 2026-11-22, as it wrote them then. */
static void test_results__a_document_written_in_the_first_schema_is_read_whole(void **state) {
    (void)state;
    static const char *const words[] = {"Intel(R) Xeon(R) Processor, 2 threads, avx512", "8.1584 ± 0.052",
                                        "GPTQ 4b g128", "9444 ± 7 %"};
    qb_results r;
    qb_rows rows;
    qb_str table = {0};
    assert_ok(qb_results_open(GOLDEN "first-schema.json", &r));
    const qb_results *document = &r;
    assert_ok(qb_rows_read(&document, 1, &rows));
    assert_int_equal(rows.n_cases, 3);
    for (int i = 0; i < rows.n_cases; i++) {
        assert_non_null(qb_case_device(&r, qb_results_case(&r, rows.cases[i].id)));
        assert_int_equal(rows.cases[i].n_rows, 10);
    }
    assert_ok(qb_results_print(&r, "text", &table));
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (!strstr(qb_str_get(&table), words[i])) fail_msg("no \"%s\" in\n%s", words[i], table.text);
    qb_str_free(&table);
    qb_rows_free(&rows);
    qb_results_close(&r);
}

/* What the README quotes is of today's form, and of no machine's folders. */
static void test_results__published_documents_are_of_todays_schema(void **state) {
    (void)state;
    static const char dir[] = QB_SOURCE_DIR "/results/baselines";
    DIR *d = opendir(dir);
    int n = 0;
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) {
        if (!strstr(e->d_name, ".json")) continue;
        char *path = qb_path_join(dir, e->d_name), *text;
        qb_json *doc;
        size_t length;
        assert_ok(qb_file_read(path, 16 << 20, &text, &length));
        assert_ok(qb_json_parse(text, length, path, &doc));
        const char *schema = qb_json_string(qb_json_get(doc, "schema"));
        if (!schema || strcmp(schema, QB_RESULTS_SCHEMA) != 0) fail_msg("%s: %s", path, schema);
        for (const char *p = text; (p = strstr(p, "\"path\":")); p++)
            if (p[7 + strspn(p + 7, " \t\"")] == '/') fail_msg("%s: %.80s", path, p);
        qb_json_free(doc);
        qb_free(text);
        qb_free(path);
        n++;
    }
    (void)closedir(d);
    assert_int_equal(n, 3);
}

static void test_results__two_devices_are_the_same_or_say_what_differs(void **state) {
    (void)state;
    static const struct {
        const char *a, *b, *fact; /* NULL: the same */
    } rows[] = {
        {"{\"cpu\":\"C\",\"threads\":2}", "{\"threads\":2,\"cpu\":\"C\"}", NULL},
        {"{\"cpu\":\"C\",\"threads\":2}", "{\"cpu\":\"C\",\"threads\":4}", "threads"},
        {"{\"cpu\":\"C\",\"blas\":\"Haswell\"}", "{\"cpu\":\"C\",\"blas\":null}", NULL},
        {"{\"cpu\":\"C\",\"device\":\"H100\"}", "{\"cpu\":\"C\",\"device\":\"H200\"}", "device"},
        {"{\"device\":\"A100\",\"device_memory_bytes\":4e10}",
         "{\"device\":\"A100\",\"device_memory_bytes\":8e10}", "device_memory_bytes"},
        {"{\"backend\":\"cpu\"}", "{\"backend\":\"cuda\"}", "backend"},
        {"{\"id\":\"a\",\"os\":\"x\",\"memory_bytes\":1,\"gpu\":[\"A\"]}",
         "{\"id\":\"b\",\"os\":\"y\",\"memory_bytes\":2,\"gpu\":[]}", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_json *a, *b;
        assert_ok(qb_json_parse(rows[i].a, strlen(rows[i].a), "a", &a));
        assert_ok(qb_json_parse(rows[i].b, strlen(rows[i].b), "b", &b));
        const char *fact = qb_device_difference(a, b), *back = qb_device_difference(b, a);
        if (!rows[i].fact) {
            assert_null(fact);
        } else {
            assert_string_equal(fact, rows[i].fact);
            assert_string_equal(back, rows[i].fact);
        }
        qb_json_free(a);
        qb_json_free(b);
    }
}

static void test_results__tables_of_odd_documents(void **state) {
    (void)state;
    qb_results r;
    qb_str out = {0};
    assert_ok(qb_results_create(NULL, context_make(), &r));
    assert_ok(qb_results_print(&r, "text", &out));
    assert_non_null(strstr(out.text, "A CPU, 2 threads"));
    qb_json *c = case_make("x", 0);
    qb_json_put_text(c, "status", "failed");
    qb_json_put_text(c, "error", "killed\n\x1b[2J by signal 9");
    assert_ok(qb_results_put_case(&r, c));
    qb_str_free(&out);
    assert_ok(qb_results_print(&r, "text", &out));
    assert_non_null(strstr(out.text, "  └ killed ?[2J by signal 9\n"));
    assert_null(strchr(out.text, '\x1b'));
    qb_str_free(&out);
    qb_results_close(&r);
}

static void test_text__cleans_and_counts(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
        int limit;
    } rows[] = {
        {"plain", "plain", 0},
        {"a\x07\x7f\xc2\x85z", "a???z", 0},
        {"\xc0\xaf", "??", 0},
        {"\xed\xa0\x80", "???", 0},
        {"é…±", "é…±", 3},
        {"abcdef", "abcd…", 5},
        {"\xe2\x80\xae"
         "x",
         "?x", 0},
        {"\xf4\x90\x80\x80", "????", 0},
        {"\xe2\x82", "??", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_str s = {0};
        qb_text_clean(rows[i].in, rows[i].limit, &s);
        assert_string_equal(qb_str_get(&s), rows[i].out);
        qb_str_free(&s);
    }
    assert_int_equal(qb_text_columns("24.8 ± 0.1"), 10);
}

static void test_results__figures_have_four_digits_and_are_written_out(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } rows[] = {
        {0.00012349, "0.0001235"}, {1, "1"},      {9999.4, "9999"}, {9999.5, "10000"}, {12590.4, "12590"},
        {-785900, "-785900"},      {3e9, "3e+09"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_str s = {0};
        qb_text_figure(rows[i].value, 4, &s);
        assert_string_equal(qb_str_get(&s), rows[i].text);
        qb_str_free(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results__validator_judges_the_table_of_mutations),
        cmocka_unit_test(test_results__put_replaces_by_id_and_every_state_on_disk_is_whole),
        cmocka_unit_test(test_results__unwritable_and_unreadable_paths_fail_at_once),
        cmocka_unit_test(test_results__figures_have_four_digits_and_are_written_out),
        cmocka_unit_test(test_results__table_equals_the_recorded_one),
        cmocka_unit_test(test_results__labels_are_short_and_tell_twins_apart),
        cmocka_unit_test(test_results__a_later_schema_is_refused_by_name),
        cmocka_unit_test(test_results__documents_of_the_first_schema_are_lifted),
        cmocka_unit_test(test_results__a_document_written_in_the_first_schema_is_read_whole),
        cmocka_unit_test(test_results__published_documents_are_of_todays_schema),
        cmocka_unit_test(test_results__two_devices_are_the_same_or_say_what_differs),
        cmocka_unit_test(test_results__tables_of_odd_documents),
        cmocka_unit_test(test_text__cleans_and_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
