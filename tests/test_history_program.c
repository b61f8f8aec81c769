/* `bench history` as a user types it. */
#include "tests/program.h"

/* Night `day` of one case whose decoding becomes a tenth slower from the 20th on. */
static void write_night(const char *dir, int day) {
    char path[1200];
    qb_str text = {0};
    double decode = (day < 20 ? 100 : 90) * (1 + (day * 37 % 11 - 5) / 1000.0);
    qb_str_printf(
        &text,
        "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"bench\",\"version\":\"1\",\"git\":"
        "\"%012d\"},\"created\":\"2026-01-%02dT06:10:00Z\",\"devices\":[{\"id\":\"cpu\",\"cpu\":\"A\","
        "\"cores\":2,"
        "\"threads\":2}]},\"cases\":[{\"id\":\"m/rtn/"
        "cpu\",\"status\":\"ok\",\"error\":null,\"device\":\"cpu\","
        "\"config\":{\"method\":\"rtn\",\"bits\":4},\"model\":{\"name\":\"m\"},\"quantization\":{\"method\":"
        "\"rtn\"},"
        "\"metrics\":[{\"name\":\"decode\",\"value\":%.6f,\"unit\":\"tok/"
        "s\",\"better\":\"higher\",\"protocol\":"
        "\"tg32\",\"status\":\"ok\",\"noisy\":false}]}]}",
        day, 1 + day, decode);
    snprintf(path, sizeof path, "%s/%02d.json", dir, day);
    assert_ok(qb_file_write_atomic(path, text.text, text.length));
    qb_str_free(&text);
}

static int begin(void **state) {
    program_begin(state);
    char *dir = scratch_path("nights");
    assert_ok(qb_make_dirs(dir));
    for (int day = 0; day < 30; day++) write_night(dir, day);
    return 0;
}

static void expect_change(const outcome *o) {
    assert_non_null(strstr(o->out, "worse   m/rtn/cpu  decode tg32  "));
    assert_non_null(strstr(o->out, "000000000019 (2026-01-20) to 000000000020 (2026-01-21)"));
    assert_non_null(strstr(o->out, "30 runs, 1 series, 30 values, 1 change\n"));
}

/* A directory is a history by itself; -o makes a page of it. */
static void test_history__of_a_directory(void **state) {
    (void)state;
    char *site = scratch_path("site"), *page = scratch_path("site/index.html"), *text;
    outcome o = BENCH("history", scratch_path("nights"), "-o", site, "--no-plots");
    assert_worked(&o);
    expect_change(&o);
    assert_non_null(strstr(o.err, "index.html, 0 pictures"));
    outcome_free(&o);
    assert_ok(qb_file_read(page, OUTPUT_MAX, &text, NULL));
    assert_non_null(strstr(text, "m/rtn/cpu</a>"));
    qb_free(text);
    o = BENCH("history", scratch_path("nights"), "--least-change-pct", "20");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "30 runs, 1 series, 30 values, 0 changes\n"));
    outcome_free(&o);
}

static void test_history__is_added_to(void **state) {
    (void)state;
    char *db = scratch_path("runs.db"), one[1200], two[1200];
    snprintf(one, sizeof one, "%s/nights/00.json", scratch);
    snprintf(two, sizeof two, "%s/nights/01.json", scratch);
    outcome o = BENCH("history", "add", one, two, "--db", db);
    assert_worked(&o);
    assert_non_null(strstr(o.err, "2 of 2 documents added to "));
    outcome_free(&o);
    o = BENCH("history", "add", two, "--db", db, "--json");
    assert_worked(&o);
    assert_non_null(strstr(o.err, "01.json is in "));
    qb_json *said = json_of(&o);
    assert_int_equal(qb_json_number(qb_json_get(said, "added")), 0);
    qb_json_free(said);
    outcome_free(&o);
    o = BENCH("history", db, "--json");
    assert_worked(&o);
    said = json_of(&o);
    assert_int_equal(qb_json_count(qb_json_get(said, "runs")), 2);
    assert_int_equal(qb_json_count(qb_json_get(said, "series")), 1);
    qb_json_free(said);
    outcome_free(&o);
}

/* Every value a line, and at the one where it changed how. */
static void test_history__is_a_table_too(void **state) {
    (void)state;
    outcome o = BENCH("history", scratch_path("nights"), "--format", "csv");
    int lines = 0;
    assert_worked(&o);
    for (const char *p = o.out; (p = strchr(p, '\n')) != NULL; p++) lines++;
    assert_int_equal(lines, 31);
    assert_non_null(strstr(
        o.out, "created,git,case,metric,dataset,protocol,device,value,unit,noisy,change,before,after,p\r\n"));
    const char *changed = strstr(o.out, ",worse,"),
               *at = strstr(o.out, "2026-01-21T06:10:00Z,000000000020,m/rtn/cpu,decode,");
    assert_true(changed && at && at < changed && changed < strchr(at, '\n'));
    assert_null(strstr(changed + 1, ",worse,"));
    outcome_free(&o);
}

static void test_history__bad_requests_are_one_line(void **state) {
    (void)state;
    char *empty = scratch_path("empty"), *broken = scratch_path("broken.json"), *db = scratch_path("new.db");
    assert_ok(qb_make_dirs(empty));
    assert_ok(qb_file_write_atomic(broken, "{\"schema\":", 10));
    assert_refused(BENCH("history"), 2, "DB, DIR or add");
    assert_refused(BENCH("history", "add"), 2, "RESULT.json");
    assert_refused(BENCH("history", "a.db", "b.db"), 2, "one history is shown at a time");
    assert_refused(BENCH("history", scratch_path("none.db")), 1, "none.db");
    assert_refused(BENCH("history", empty), 1, "empty");
    assert_refused(BENCH("history", "add", broken, "--db", db), 1, "broken.json");
    assert_refused(BENCH("history", broken), 1, "no SQLite file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_history__of_a_directory),
        cmocka_unit_test(test_history__is_added_to),
        cmocka_unit_test(test_history__is_a_table_too),
        cmocka_unit_test(test_history__bad_requests_are_one_line),
    };
    return cmocka_run_group_tests(tests, begin, program_end);
}
