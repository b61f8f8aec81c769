/* bench bisect over small repositories, whose program is a script that "measures" what its commit says, on a
   machine that drifts by a tenth from pair to pair. */
#include "tests/program.h"

#include "base/json.h"
#include "base/str.h"

#include <stdio.h>

#define BUILD                                                                                                \
    "test ! -e broken && mkdir -p build/bin && sed \"s/PERCENT/$(cat percent)/; s/LOSS/$(cat loss)/\" "      \
    "fake.sh >build/bin/bench && chmod +x build/bin/bench"

/* One sh for a repository's history. `commit NAME` makes a commit of everything, with a tag. */
static void history(const char *name, const char *commands) {
    qb_str text = {0};
    char *path = scratch_path("history.sh");
    qb_str_printf(
        &text,
        "set -e\nunset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE\nmkdir -p '%s/%s'; cd '%s/%s'\n"
        "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=A "
        "GIT_AUTHOR_EMAIL=a@b "
        "GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@b\n"
        "git init -q -b main .\n"
        "commit() { echo \"$1\" >name; git add -A; git commit -q -m \"change $1\"; git tag \"$1\"; }\n"
        "echo 100 >percent; echo 8.1 >loss\n"
        "cat >fake.sh <<'SCRIPT'\n"
        "#!/bin/sh\n"
        "if [ \"$1\" = speed ]; then echo --prefill --rounds; exit 0; fi\n"
        "dir=%s; quick=\n"
        "n=$(cat $dir/visits 2>/dev/null || echo 0); echo $((n + 1)) >$dir/visits\n"
        "while [ $# -gt 0 ]; do [ \"$1\" = --output ] && out=$2; [ \"$1\" = metrics=speed ] && quick=1; "
        "shift; "
        "done\n"
        "base=$((100000 + 10000 * (n / 2) + 300 * (n * 5 %% 7)))\n"
        "speed=\"{\\\"name\\\":\\\"decode\\\",\\\"value\\\":$((base * PERCENT / "
        "100)),\\\"unit\\\":\\\"tok/"
        "s\\\",\\\"better\\\":\\\"higher\\\",\\\"protocol\\\":\\\"tg128\\\",\\\"status\\\":"
        "\\\"ok\\\"}\"\n"
        "loss=\"{\\\"name\\\":\\\"perplexity\\\",\\\"value\\\":LOSS,\\\"unit\\\":\\\"1\\\",\\\"better\\\":"
        "\\\"lower\\\","
        "\\\"protocol\\\":\\\"gptq-64\\\",\\\"dataset\\\":\\\"demo\\\",\\\"data_sha256\\\":\\\"$(printf "
        "%%064d 7)\\\",\\\"status\\\":\\\"ok\\\"}\"\n"
        "rows=\"$speed,$loss\"; [ -z \"$quick\" ] || rows=$speed\n"
        "[ -z \"$QUALITY_ALONE\" ] || rows=$loss\n"
        "cat >$out <<END\n"
        "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"bench\",\"version\":\"1\"},"
        "\"created\":\"2026-11-22T06:10:00Z\",\"devices\":[]},\"cases\":[{\"id\":\"m/f16/"
        "cpu\",\"status\":\"ok\","
        "\"error\":null,\"config\":{},\"model\":{\"name\":\"m\"},\"metrics\":[$rows]}]}\n"
        "END\n"
        "SCRIPT\n"
        "%s",
        scratch, name, scratch, name, scratch, commands);
    assert_ok(qb_file_write_atomic(path, qb_str_get(&text), text.length));
    qb_str_free(&text);
    qb_str_printf(&text, "sh '%s'", path);
    assert_int_equal(system(qb_str_get(&text)), 0); /* NOLINT(cert-env33-c,concurrency-mt-unsafe) */
    qb_str_free(&text);
}

static bool git_is_there(void) {
    return system("command -v git >/dev/null") == 0; /* NOLINT(cert-env33-c,concurrency-mt-unsafe) */
}

static void needs_git(void) {
    if (git_is_there()) return;
    print_message("skipped: git is not installed\n");
    skip();
}

static const char nine[] = "commit c0; commit c1; commit c2; commit c3\n"
                           "echo 90 >percent; commit c4\n"
                           "echo 91 >percent; commit c5; commit c6; commit c7; commit c8\n";

static qb_json *document(const outcome *o) {
    qb_json *doc = NULL;
    assert_ok(qb_json_parse(o->out, strlen(o->out), "standard output", &doc));
    return doc;
}

static void assert_first_bad(const qb_json *doc, const char *name) {
    char subject[64];
    const qb_json *first = qb_json_get(doc, "first_bad");
    snprintf(subject, sizeof subject, "change %s", name);
    if (!qb_json_is_object(first)) fail_msg("no first bad commit, expected %s", name);
    assert_string_equal(qb_json_string(qb_json_get(first, "subject")), subject);
}

static void assert_step(const qb_json *doc, const char *name, const char *is) {
    for (const qb_json *s = qb_json_first(qb_json_get(doc, "steps")); s; s = qb_json_next(s)) {
        if (strcmp(qb_json_string(qb_json_get(s, "subject")) + strlen("change "), name) != 0) continue;
        assert_string_equal(qb_json_string(qb_json_get(s, "is")), is);
        return;
    }
    fail_msg("%s was not looked at", name);
}

/* A tenth slower since c4: found in a few steps, whatever the ends are called, and nothing of the repository
   is touched. */
static void test_bisect__a_slower_commit_is_found(void **state) {
    (void)state;
    needs_git();
    history("nine", nine);
    char *repo = scratch_path("nine");
    history("look",
            "git -C ../nine status --porcelain >../before; git -C ../nine for-each-ref >>../before\n");
    static const char *const ends[][2] = {{"c0", "c8"}, {"c3", "c4"}, {"c2", "main~1"}, {"c0", "c5"}};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        outcome o = BENCH("bisect", "--good", ends[i][0], "--bad", ends[i][1], "--build", BUILD, "--suite",
                          "s", "--repo", repo, "--json", "-q");
        assert_worked(&o);
        qb_json *doc = document(&o);
        assert_first_bad(doc, "c4");
        const qb_json *row = qb_json_first(qb_json_get(doc, "rows"));
        assert_string_equal(qb_json_string(qb_json_get(row, "id")), "m/f16/cpu");
        assert_string_equal(qb_json_string(qb_json_get(row, "metric")), "decode tg128");
        double change = qb_json_number(qb_json_get(row, "change_pct"));
        assert_true(change > -11 && change < -9);
        assert_true(qb_json_count(qb_json_get(doc, "steps")) <= 4);
        qb_json_free(doc);
        outcome_free(&o);
    }
    history("look", "git -C ../nine status --porcelain >../after; git -C ../nine for-each-ref >>../after\n"
                    "cmp ../before ../after; test ! -e ../nine/build; test ! -e ../nine/.git/worktrees\n");
}

/* The text names it, and what was asked of it. */
static void test_bisect__it_is_told_in_words(void **state) {
    (void)state;
    needs_git();
    outcome o = BENCH("bisect", "--good", "c2", "--bad", "c5", "--build", BUILD, "--suite", "s", "--repo",
                      scratch_path("nine"));
    assert_worked(&o);
    assert_non_null(strstr(o.out, "\nthe first bad commit: "));
    assert_non_null(strstr(o.out, " change c4 (A, "));
    assert_non_null(strstr(o.out, "\n    m/f16/cpu decode tg128 -10."));
    assert_non_null(strstr(o.out, " good: change c3\n"));
    assert_non_null(strstr(o.out, "3 commits in the range"));
    assert_non_null(strstr(o.err, "about 2 more to measure"));
    outcome_free(&o);
}

/* On a branch that was merged, beside a second change that is not asked for. */
static void test_bisect__merged_branches_and_metrics(void **state) {
    (void)state;
    needs_git();
    history("merged", "commit c0; commit c1\n"
                      "git checkout -q -b side; commit s1; echo 8.9 >loss; commit s2; commit s3\n"
                      "git checkout -q main; commit c2; echo 80 >percent; commit c3\n"
                      "git merge -q --no-commit -X ours side >/dev/null 2>&1; commit m; commit c4\n");
    char *repo = scratch_path("merged");
    static const char *const asked[][2] = {{"perplexity", "s2"}, {"decode", "c3"}};
    for (size_t i = 0; i < 2; i++) {
        outcome o = BENCH("bisect", "--good", "c0", "--build", BUILD, "--suite", "s", "--repo", repo,
                          "--metric", asked[i][0], "--json", "-q");
        assert_worked(&o);
        qb_json *doc = document(&o);
        assert_first_bad(doc, asked[i][1]);
        assert_int_equal(qb_json_count(qb_json_get(doc, "rows")), 1);
        qb_json_free(doc);
        outcome_free(&o);
    }
}

/* A suite without speeds needs one pair a revision. */
static void test_bisect__quality_takes_one_pair(void **state) {
    (void)state;
    needs_git();
    setenv("QUALITY_ALONE", "1", 1);
    outcome o = BENCH("bisect", "--good", "c0", "--build", BUILD, "--suite", "s", "--repo",
                      scratch_path("merged"), "--json", "-q");
    unsetenv("QUALITY_ALONE");
    assert_worked(&o);
    qb_json *doc = document(&o);
    assert_first_bad(doc, "s2");
    for (const qb_json *s = qb_json_first(qb_json_get(doc, "steps")); s; s = qb_json_next(s))
        assert_true(qb_json_number(qb_json_get(s, "pairs")) == 1);
    qb_json_free(doc);
    outcome_free(&o);
}

/* Commits that do not build are passed by; when one of them may be it, all that may are named. */
static void test_bisect__what_does_not_build_is_skipped(void **state) {
    (void)state;
    needs_git();
    history(
        "broken",
        "commit c0; commit c1; echo x >broken; commit c2; commit c3; git rm -q --cached broken; rm broken\n"
        "commit c4; commit c5; echo 85 >percent; commit c6; commit c7; echo x >broken; commit c8\n");
    char *repo = scratch_path("broken");
    outcome o = BENCH("bisect", "--good", "c0", "--bad", "c7", "--build", BUILD, "--suite", "s", "--repo",
                      repo, "--json", "-q");
    assert_worked(&o);
    qb_json *doc = document(&o);
    assert_first_bad(doc, "c6");
    qb_json_free(doc);
    outcome_free(&o);
    assert_refused(
        BENCH("bisect", "--good", "c2", "--bad", "c7", "--build", BUILD, "--suite", "s", "--repo", repo), 1,
        "the good end");
    o = BENCH("bisect", "--good", "c0", "--bad", "c8", "--build", BUILD, "--suite", "s", "--repo", repo);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "the bad end"));
    assert_non_null(strstr(o.err, "its build ended with code 1: it said nothing"));
    outcome_free(&o);

    history("hidden", "commit c0; commit c1; echo 85 >percent; echo x >broken; commit c2; commit c3; rm "
                      "broken; commit c4\n");
    o = BENCH("bisect", "--good", "c0", "--build", BUILD, "--suite", "s", "--repo", scratch_path("hidden"),
              "--json", "-q");
    assert_int_equal(o.code, 3);
    doc = document(&o);
    assert_true(qb_json_is_null(qb_json_get(doc, "first_bad")));
    assert_int_equal(qb_json_count(qb_json_get(doc, "suspects")), 3);
    assert_step(doc, "c1", "good");
    assert_step(doc, "c2", "skipped");
    assert_step(doc, "c3", "skipped");
    qb_json_free(doc);
    outcome_free(&o);
}

/* Four pairs prove nothing at 0.01: it measures on, unless it may not. */
static void test_bisect__it_measures_on_until_it_can_be_told(void **state) {
    (void)state;
    needs_git();
    char *repo = scratch_path("nine");
    outcome o = BENCH("bisect", "--good", "c0", "--bad", "c8", "--build", BUILD, "--suite", "s", "--repo",
                      repo, "--pairs", "4", "--json", "-q");
    assert_worked(&o);
    qb_json *doc = document(&o);
    assert_first_bad(doc, "c4");
    double pairs = qb_json_number(qb_json_get(qb_json_first(qb_json_get(doc, "steps")), "pairs"));
    assert_true(pairs >= 8 && pairs <= 48);
    qb_json_free(doc);
    outcome_free(&o);
    o = BENCH("bisect", "--good", "c0", "--bad", "c8", "--build", BUILD, "--suite", "s", "--repo", repo,
              "--pairs", "4", "--max-pairs", "5");
    assert_int_equal(o.code, 3);
    assert_non_null(strstr(o.out, " skipped, it cannot be told: m/f16/cpu decode tg128 "));
    outcome_free(&o);
}

/* What is asked for may be kept, and the second search goes on from its builds. */
static void test_bisect__trees_and_documents_are_kept_on_demand(void **state) {
    (void)state;
    needs_git();
    char *repo = scratch_path("nine"), *keep = scratch_path("kept");
    for (int i = 0; i < 2; i++) {
        outcome o = BENCH("bisect", "--good", "c3", "--bad", "c5", "--build", BUILD " && echo . >>build/n",
                          "--suite", "s", "--repo", repo, "--keep", keep, "--json", "-q");
        assert_worked(&o);
        outcome_free(&o);
    }
    char *text;
    size_t n;
    assert_ok(qb_file_read(scratch_path("kept/candidate/build/n"), 100, &text, &n));
    assert_int_equal(n, 8); /* two revisions, twice */
    qb_free(text);
    assert_ok(qb_file_read(scratch_path("kept/good/build/n"), 100, &text, &n));
    assert_int_equal(n, 4);
    qb_free(text);
}

static void test_bisect__mistakes_are_told_before_anything_is_built(void **state) {
    (void)state;
    needs_git();
    char *repo = scratch_path("nine"), *none = scratch_path("bare-folder");
    assert_ok(qb_make_dirs(none));
    setenv("GIT_CEILING_DIRECTORIES", scratch, 1);
    assert_refused(BENCH("bisect", "--build", "x", "--suite", "s"), 2, "--good is missing");
    assert_refused(BENCH("bisect", "--good", "c0", "--suite", "s"), 2, "--build is missing");
    assert_refused(BENCH("bisect", "--good", "c0", "--build", "x"), 2, "--suite is missing");
    assert_refused(BENCH("bisect", "--good", "c0", "--build", "x", "--suite", "s", "--program", "/bin/true"),
                   2, "the same for every revision");
    assert_refused(BENCH("bisect", "--good", "c0", "--build", "x", "--suite", "s", "--repo", none, "-q"), 2,
                   "is in no Git repository");
    assert_refused(BENCH("bisect", "--good", "c77", "--build", "x", "--suite", "s", "--repo", repo, "-q"), 2,
                   "'c77' is no revision");
    assert_refused(
        BENCH("bisect", "--good", "--help=1", "--build", "x", "--suite", "s", "--repo", repo, "-q"), 2,
        "'--help=1' is no revision");
    assert_refused(BENCH("bisect", "--good", "c8", "--bad", "main", "--build", "x", "--suite", "s", "--repo",
                         repo, "-q"),
                   2, "are the same commit");
    assert_refused(
        BENCH("bisect", "--good", "c5", "--bad", "c1", "--build", "x", "--suite", "s", "--repo", repo, "-q"),
        2, "c5 is no ancestor of c1");
    unsetenv("GIT_CEILING_DIRECTORIES");
    outcome o =
        BENCH("bisect", "--good", "c0", "--bad", "c3", "--build", BUILD, "--suite", "s", "--repo", repo);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "is not worse than"));
    outcome_free(&o);
    o = BENCH("bisect", "--good", "c0", "--bad", "c8", "--build", BUILD "; nosuchcommand", "--suite", "s",
              "--repo", repo);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "nosuchcommand: not found"));
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bisect__a_slower_commit_is_found),
        cmocka_unit_test(test_bisect__it_is_told_in_words),
        cmocka_unit_test(test_bisect__merged_branches_and_metrics),
        cmocka_unit_test(test_bisect__quality_takes_one_pair),
        cmocka_unit_test(test_bisect__what_does_not_build_is_skipped),
        cmocka_unit_test(test_bisect__it_measures_on_until_it_can_be_told),
        cmocka_unit_test(test_bisect__trees_and_documents_are_kept_on_demand),
        cmocka_unit_test(test_bisect__mistakes_are_told_before_anything_is_built),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}
