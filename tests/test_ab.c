/* bench ab with programs that are scripts: the order of visits, the words they get, the verdicts. What they
   "measure" drifts by a tenth from pair to pair. */
#include "tests/program.h"

#include "base/json.h"
#include "base/str.h"

#include <stdio.h>
#include <sys/stat.h>

/* A bench whose decode speed is `percent` of what the machine gives just now; sides[0] counts for both. */
static char *fake(const char *name, int percent, const char *speed_help, const char *ending) {
    char *path = scratch_path(name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "#!/bin/sh\n"
            "if [ \"$1\" = speed ]; then echo '%s'; exit 0; fi\n"
            "dir=%s\n"
            "n=$(cat $dir/visits 2>/dev/null || echo 0); echo $((n + 1)) >$dir/visits\n"
            "echo \"%s $*\" >>$dir/order\n"
            "while [ $# -gt 0 ]; do [ \"$1\" = --output ] && out=$2; shift; done\n"
            "id=m/f16/cpu\n"
            "base=$((100000 + 10000 * (n / 2) + 300 * (n * 5 %% 7)))\n"
            "%s\n"
            "cat >$out <<END\n"
            "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"bench\",\"version\":\"1\"},"
            "\"created\":\"2026-11-22T06:10:00Z\",\"devices\":[]},\"cases\":[{\"id\":\"$id\","
            "\"status\":\"ok\","
            "\"error\":null,\"config\":{\"side\":\"%s\"},\"model\":{\"name\":\"m\"},\"metrics\":["
            "{\"name\":\"decode\",\"value\":$((base * %d / 100)),\"unit\":\"tok/s\",\"better\":\"higher\","
            "\"protocol\":\"tg128\",\"status\":\"ok\",\"noisy\":true,\"noise\":\"it drifts\"}]}]}\n"
            "END\n",
            speed_help, scratch, name, ending, name, percent);
    fclose(f);
    assert_int_equal(chmod(path, 0755), 0);
    return path;
}

static void forget(void) {
    (void)!unlink(scratch_path("visits"));
    (void)!unlink(scratch_path("order"));
}

static qb_json *judged(outcome *o) {
    qb_json *doc = NULL;
    assert_ok(qb_json_parse(o->out, strlen(o->out), "standard output", &doc));
    return doc;
}

static void test_ab__sides_change_places_from_pair_to_pair(void **state) {
    (void)state;
    forget();
    char *a = fake("old", 100, "--prefill", ""), *b = fake("new", 100, "--prefill --rounds", "");
    outcome o = BENCH("ab", "--a", a, "--b", b, "--suite", "some.json", "--pairs", "3", "--set", "kv=f32",
                      "--b-set", "warmup=2", "--set=precision=3", "--model", "m", "-q");
    char *order;
    size_t n;
    assert_ok(qb_file_read(scratch_path("order"), 1 << 20, &order, &n));
    static const char *const sides[] = {"old ", "new ", "new ", "old ", "old ", "new "};
    int i = 0;
    for (char *line = strtok(order, "\n"); line; line = strtok(NULL, "\n"), i++) {
        assert_true(i < 6);
        if (strncmp(line, sides[i], 4) != 0) fail_msg("visit %d: %s", i, line);
        bool new_side = sides[i][0] == 'n';
        assert_non_null(strstr(line, "run --suite some.json --model m"));
        assert_non_null(strstr(line, "--set kv=f32 --set precision=3"));
        assert_int_equal(strstr(line, "--set rounds=1") != NULL, new_side); /* the old one knows no rounds */
        assert_int_equal(strstr(line, "--set warmup=2") != NULL, new_side);
        assert_int_equal(strstr(line, "--set metrics=speed") != NULL,
                         i >= 2); /* the first pair has everything */
    }
    assert_int_equal(i, 6);
    qb_free(order);
    assert_int_equal(o.code, 0);
    /* The documents are gone: what the sides are is said. */
    assert_non_null(strstr(o.out, "/old, 3 runs  2026-11-22"));
    assert_non_null(strstr(o.out, "/new warmup=2, 3 runs  2026-11-22"));
    outcome_free(&o);
}

/* A tenth slower is found although the machine drifts by a tenth a pair and calls each row noisy; as fast is
 * not. */
static void test_ab__drift_is_in_both_sides(void **state) {
    (void)state;
    static const struct {
        int percent, code;
        const char *verdict, *pairs;
    } tries[] = {{100, 0, "pass", "12"},
                 {90, 1, "regression", "12"},
                 {110, 0, "improvement", "12"},
                 {90, 3, "inconclusive", "4"},
                 {99, 0, "pass", "12"}};
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        forget();
        char *a = fake("old", 100, "--prefill", ""), *b = fake("new", tries[i].percent, "--prefill", "");
        outcome o =
            BENCH("ab", "--a", a, "--b", b, "--suite", "s.json", "--pairs", tries[i].pairs, "--json", "-q");
        if (o.code != tries[i].code) fail_msg("%d %%: exit %d\n%s%s", tries[i].percent, o.code, o.out, o.err);
        qb_json *doc = judged(&o);
        assert_string_equal(qb_json_string(qb_json_get(doc, "verdict")), tries[i].verdict);
        const qb_json *row = qb_json_first(qb_json_get(doc, "rows"));
        if (tries[i].code == 3) {
            assert_string_equal(qb_json_string(qb_json_get(row, "needed_of")), "pairs");
            assert_true(qb_json_number(qb_json_get(row, "needed")) >=
                        8); /* 2 / 2^8 is the first below 0.01 */
        } else {
            assert_true(qb_json_is_null(row) || qb_json_number(qb_json_get(row, "pairs")) == 12);
        }
        qb_json_free(doc);
        outcome_free(&o);
    }
}

static void test_ab__failures_are_told(void **state) {
    (void)state;
    forget();
    char *a = fake("old", 100, "--prefill", "");
    outcome o = BENCH("ab", "--suite", "demo");
    assert_refused(o, 2, "both sides are the same");
    assert_refused(BENCH("ab", "--a", a), 2, "--suite is missing");
    assert_refused(BENCH("ab", "--a", "/nowhere/bench", "--suite", "demo"), 1, "could not be started");
    assert_refused(BENCH("ab", "--a", "/bin/true", "--suite", "demo"), 2, "is no bench");
    char *b = fake("new", 100, "--prefill", "echo 'bench: the model is missing' >&2; exit 2");
    assert_refused(BENCH("ab", "--a", a, "--b", b, "--suite", "demo"), 2, "bench: the model is missing");
    b = fake("new", 100, "--prefill", "kill -9 $$");
    assert_refused(BENCH("ab", "--a", a, "--b", b, "--suite", "demo"), 1, "ended with code 137");
    b = fake("new", 100, "--prefill", "echo '{' >$out; exit 0");
    assert_refused(BENCH("ab", "--a", a, "--b", b, "--suite", "demo"), 1, "b-001.json: not valid JSON");
}

/* What it measures is kept where that was asked for, and gone else. */
static void test_ab__documents_are_kept_on_demand(void **state) {
    (void)state;
    forget();
    char *a = fake("old", 100, "--prefill", ""), *b = fake("new", 100, "--prefill", "");
    char *keep = scratch_path("kept"), *tmp = scratch_path("tmp");
    assert_ok(qb_make_dirs(tmp));
    outcome o = BENCH("ab", "--a", a, "--b", b, "--suite", "s", "--pairs", "2", "--keep", keep, "-q");
    assert_int_equal(o.code, 0);
    outcome_free(&o);
    assert_true(qb_path_exists(scratch_path("kept/a-001.json")) &&
                qb_path_exists(scratch_path("kept/b-002.log")));
    char *before = getenv("TMPDIR");
    before = before ? qb_strdup(before) : NULL;
    setenv("TMPDIR", tmp, 1);
    o = BENCH("ab", "--a", a, "--b", b, "--suite", "s", "--pairs", "1", "-q");
    if (before)
        setenv("TMPDIR", before, 1);
    else
        unsetenv("TMPDIR");
    qb_free(before);
    assert_int_equal(o.code, 0);
    outcome_free(&o);
    assert_int_equal(rmdir(tmp), 0); /* empty */
}

/* An option that is asked for may name the case: the sides' cases meet in their order then, and only then. */
static void test_ab__cases_that_are_called_by_their_settings_meet(void **state) {
    (void)state;
    for (int own = 0; own < 2; own++) {
        forget();
        char *a = fake("old", 100, "--prefill", ""), *b = fake("new", 90, "--prefill", "id=m/g64/cpu");
        outcome o =
            own ? BENCH("ab", "--a", a, "--b", b, "--suite", "s.json", "--b-set", "group_size=64", "-q")
                : BENCH("ab", "--a", a, "--b", b, "--suite", "s.json", "-q");
        const char *words = own ? "m/f16/cpu, m/g64/cpu  decode tg128" : "the new document has no such case";
        if (o.code != 1 || !strstr(o.out, words)) fail_msg("exit %d\n%s%s", o.code, o.out, o.err);
        assert_int_equal(strstr(o.out, "MISSING") == NULL, own);
        outcome_free(&o);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ab__sides_change_places_from_pair_to_pair),
        cmocka_unit_test(test_ab__drift_is_in_both_sides),
        cmocka_unit_test(test_ab__cases_that_are_called_by_their_settings_meet),
        cmocka_unit_test(test_ab__failures_are_told),
        cmocka_unit_test(test_ab__documents_are_kept_on_demand),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}
