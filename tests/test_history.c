/* Histories: what is one series, where it changed, and files that are no histories. */
#include "history/history.h"
#include "tests/support.h"

#include <math.h>
#include <sqlite3.h>

#define SHA "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

typedef struct shape {
    double decode, perplexity;
    const char *cpu, *bits, *extra; /* extra: of the decode row */
} shape;

/* Run `day` of one case with two rows. */
static void make_run(int day, const shape *s, qb_results *out) {
    qb_str text = {0};
    qb_str_printf(
        &text,
        "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"bench\",\"version\":\"1\","
        "\"git\":\"%012d\"},\"created\":\"2026-%02d-%02dT06:10:00Z\",\"devices\":[{\"id\":\"cpu\",\"cpu\":"
        "\"%s\",\"cores\":2,\"threads\":2}]},\"cases\":[{\"id\":\"m/"
        "<rtn>\",\"status\":\"ok\",\"error\":null,\"device\":"
        "\"cpu\",\"config\":{\"method\":\"rtn\",\"bits\":%s},\"model\":{\"name\":\"m\"},\"quantization\":"
        "{\"method\":\"rtn\"},\"metrics\":[{\"name\":\"perplexity\",\"value\":%.6f,\"unit\":\"1\","
        "\"better\":\"lower\",\"protocol\":\"p\",\"dataset\":\"w\",\"stderr\":0.1,\"status\":\"ok\","
        "\"windows\":9,\"data_sha256\":\"" SHA "\"},"
        "{\"name\":\"decode\",\"value\":%.6f,\"unit\":\"tok/s\",\"better\":\"higher\",\"protocol\":\"tg32\","
        "\"status\":\"ok\"%s}]}]}",
        day, 1 + day / 28, 1 + day % 28, s->cpu, s->bits, s->perplexity, s->decode, s->extra);
    assert_ok(qb_results_parse(text.text, text.length, "run.json", out));
    qb_str_free(&text);
}

static bool add_run(qb_history *h, int day, const shape *s) {
    qb_results r;
    bool added;
    make_run(day, s, &r);
    assert_ok(qb_history_add(h, &r, &added));
    qb_results_close(&r);
    return added;
}

static double jitter(int i) {
    return (double)(i * 37 % 11 - 5) / 1000; /* half a per cent either way */
}

/* Forty runs: from the 25th on decoding is a tenth slower; the perplexity stays. */
static void add_forty(qb_history *h, const char *extra, int last_extra) {
    for (int i = 0; i < 40; i++) {
        shape s = {(i < 25 ? 100 : 90) * (1 + jitter(i)), 10, "A", "4", i < last_extra ? extra : ""};
        assert_true(add_run(h, i, &s));
    }
}

static const qb_history_series *find(const qb_history_view *v, const char *metric, int nth) {
    for (int i = 0; i < v->n_series; i++)
        if (!strcmp(v->series[i].metric, metric) && nth-- == 0) return &v->series[i];
    fail_msg("no series %s", metric);
    return NULL;
}

static const qb_change_point_config config = {.window = 50, .level = 0.001};

static void test_history__finds_the_run_that_changed(void **state) {
    (void)state;
    qb_history *h;
    qb_history_view v;
    qb_str text = {0};
    assert_ok(qb_history_open(NULL, true, &h));
    add_forty(h, "", 0);
    assert_ok(qb_history_read(h, &config, &v));
    assert_int_equal(v.n_runs, 40);
    assert_int_equal(v.n_series, 2);
    const qb_history_series *decode = find(&v, "decode", 0);
    assert_int_equal(decode->n_points, 40);
    assert_int_equal(decode->n_changes, 1);
    assert_int_equal(decode->changes[0].point, 25);
    assert_true(decode->changes[0].worse && fabs(decode->changes[0].after - 90) < 0.5);
    assert_int_equal(find(&v, "perplexity", 0)->n_changes, 0);
    assert_ok(qb_history_text(&v, &text));
    assert_non_null(strstr(text.text, "worse   m/<rtn>  decode tg32  "));
    assert_non_null(strstr(text.text, "000000000024 (2026-01-25) to 000000000025 (2026-01-26)"));
    assert_non_null(strstr(text.text, "40 runs, 2 series, 80 values, 1 change\n"));
    qb_str_free(&text);
    qb_history_view_free(&v);
    qb_history_close(h);
}

static void test_history__adds_a_document_once(void **state) {
    (void)state;
    qb_history *h;
    shape s = {100, 10, "A", "4", ""};
    assert_ok(qb_history_open(NULL, true, &h));
    assert_true(add_run(h, 1, &s));
    assert_false(add_run(h, 1, &s));
    qb_history_close(h);
}

/* A series is what compares: another device is another one for speeds, other bits for all; noise is shown and
   not looked into. */
static void test_history__series_are_what_compares(void **state) {
    (void)state;
    qb_history *h;
    qb_history_view v;
    assert_ok(qb_history_open(NULL, true, &h));
    const shape shapes[] = {{100, 10, "A", "4", ""}, {50, 10, "B", "4", ""}, {100, 12, "A", "3", ""}};
    for (int i = 0; i < 3; i++) add_run(h, i, &shapes[i]);
    assert_ok(qb_history_read(h, &config, &v));
    assert_int_equal(find(&v, "perplexity", 0)->n_points, 2); /* both devices */
    assert_int_equal(find(&v, "perplexity", 1)->n_points, 1);
    for (int i = 0; i < 3; i++) assert_int_equal(find(&v, "decode", i)->n_points, 1);
    assert_int_equal(v.n_series, 5);
    assert_string_equal(find(&v, "decode", 1)->device, "B, 2 threads");
    qb_history_view_free(&v);
    qb_history_close(h);
    assert_ok(qb_history_open(NULL, true, &h));
    add_forty(h, ",\"noisy\":true", 25);
    assert_ok(qb_history_read(h, &config, &v));
    assert_int_equal(find(&v, "decode", 0)->n_points, 40);
    assert_true(find(&v, "decode", 0)->points[3].noisy);
    assert_int_equal(find(&v, "decode", 0)->n_changes, 0);
    qb_history_view_free(&v);
    qb_history_close(h);
}

static void test_history__is_kept_in_a_file(void **state) {
    (void)state;
    char *dir = scratch_make(), *path = qb_path_join(dir, "h.db");
    qb_history *h;
    qb_history_view v;
    shape s = {100, 10, "A", "4", ""};
    assert_fails(qb_history_open(path, false, &h), QB_ERR_IO, "cannot open the history");
    for (int i = 0; i < 2; i++) {
        assert_ok(qb_history_open(path, true, &h));
        assert_true(add_run(h, i, &s));
        qb_history_close(h);
    }
    assert_ok(qb_history_open(path, false, &h));
    assert_ok(qb_history_read(h, &config, &v));
    assert_int_equal(v.n_runs, 2);
    assert_string_equal(v.runs[1].git, "000000000001");
    qb_history_view_free(&v);
    qb_history_close(h);
    qb_free(path);
    scratch_remove(dir);
}

static void test_history__says_what_a_file_is_instead(void **state) {
    (void)state;
    char *dir = scratch_make(), *path = qb_path_join(dir, "h.db");
    qb_history *h;
    assert_ok(
        qb_file_write_atomic(path, "not a database at all, but some text that is long enough to tell", 64));
    assert_fails(qb_history_open(path, true, &h), QB_ERR_FORMAT,
                 "is no SQLite file, or its beginning is damaged");

    sqlite3 *other;
    unlink(path);
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "CREATE TABLE x(y)", NULL, NULL, NULL), SQLITE_OK);
    assert_fails(qb_history_open(path, true, &h), QB_ERR_FORMAT, "of another program");
    sqlite3_close(other);

    unlink(path);
    assert_ok(qb_history_open(path, true, &h));
    add_forty(h, "", 0);
    qb_history_close(h);
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "PRAGMA user_version=99", NULL, NULL, NULL), SQLITE_OK);
    assert_fails(qb_history_open(path, true, &h), QB_ERR_UNSUPPORTED, "later version");
    assert_int_equal(sqlite3_exec(other, "PRAGMA user_version=1;BEGIN EXCLUSIVE", NULL, NULL, NULL),
                     SQLITE_OK);
    assert_fails(qb_history_open(path, true, &h), QB_ERR_IO, "is locked by another program");
    sqlite3_close(other);

    /* Pages overwritten in the middle, and an end that is missing. */
    char *bytes;
    size_t n;
    assert_ok(qb_file_read(path, 1 << 24, &bytes, &n));
    assert_true(n > 16384);
    memset(bytes + 4096, 0x5a, n - 8192);
    assert_ok(qb_file_write_atomic(path, bytes, n));
    assert_fails(qb_history_open(path, true, &h), QB_ERR_FORMAT, "is damaged");
    qb_free(bytes);
    assert_int_equal(truncate(path, 4096 + 100), 0);
    assert_fails(qb_history_open(path, true, &h), QB_ERR_FORMAT, "is damaged");
    qb_free(path);
    scratch_remove(dir);
}

static void test_history__page_escapes_and_needs_no_network(void **state) {
    (void)state;
    qb_history *h;
    qb_history_view v;
    qb_str text = {0};
    qb_json *json;
    assert_ok(qb_history_open(NULL, true, &h));
    add_forty(h, ",\"noisy\":true", 2);
    assert_ok(qb_history_read(h, &config, &v));
    assert_ok(qb_history_page(&v, &text));
    assert_non_null(strstr(text.text, "m/&lt;rtn&gt;"));
    assert_null(strstr(text.text, "<rtn>"));
    assert_null(strstr(text.text, "http"));
    assert_non_null(strstr(text.text, "<line class=\"change worse\""));
    assert_non_null(strstr(text.text, "class=\"noisy\""));
    qb_str_free(&text);
    assert_ok(qb_history_json(&v, &json));
    assert_int_equal(qb_json_count(qb_json_get(json, "runs")), 40);
    assert_int_equal(qb_json_count(qb_json_get(json, "series")), 2);
    qb_json_free(json);
    qb_history_view_free(&v);
    qb_history_close(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_history__finds_the_run_that_changed),
        cmocka_unit_test(test_history__adds_a_document_once),
        cmocka_unit_test(test_history__series_are_what_compares),
        cmocka_unit_test(test_history__is_kept_in_a_file),
        cmocka_unit_test(test_history__says_what_a_file_is_instead),
        cmocka_unit_test(test_history__page_escapes_and_needs_no_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
