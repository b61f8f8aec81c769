/* Manual pages and completion scripts: every option is there, and shells take the scripts. */
#include "tests/program.h"

#include "bench/completion.h"
#include "bench/manual.h"

#include <stdlib.h>

static qb_status check_page(void *user, const qb_page *page, const qb_option_set *sets, size_t n_sets) {
    const char *text = user;
    for (size_t s = 0; s < n_sets; s++)
        for (const qb_option *row = sets[s].rows; row->name; row++) {
            char spelled[128] = "\\-\\-";
            size_t n = strlen(spelled);
            for (const char *c = row->name; *c; c++)
                n += (size_t)snprintf(spelled + n, sizeof spelled - n, "%s%c", *c == '-' ? "\\" : "", *c);
            if (!strstr(text, spelled)) fail_msg("bench-%s(1) has no %s", page->name, spelled);
        }
    return QB_OK;
}

/* A line that roff would take for a request that is not there loses its text without a word. */
static void check_requests(const char *name, const char *text) {
    static const char *const known[] = {".TH ",  ".SH ",  ".TP\n", ".PP\n", ".nf\n",
                                        ".fi\n", ".br\n", ".B ",   ".BR "};
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        bool fine = *line != '.' && *line != '\'';
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            fine = fine || !strncmp(line, known[i], strlen(known[i]));
        if (!fine) fail_msg("%s: %.60s", name, line);
    }
}

static void test_manual__every_option_of_every_command(void **state) {
    (void)state;
    char path[1200];
    outcome o = BENCH("manual", "--output", scratch_path("man/man1"));
    assert_worked(&o);
    outcome_free(&o);
    for (size_t i = 0; qb_command_at(i); i++) {
        const char *name = qb_command_at(i)->name;
        char *text;
        size_t n;
        snprintf(path, sizeof path, "%s/bench-%s.1", scratch_path("man/man1"), name);
        assert_ok(qb_file_read(path, OUTPUT_MAX, &text, &n));
        assert_int_equal(strncmp(text, ".TH \"BENCH-", 11), 0);
        check_requests(path, text);
        assert_ok(qb_command_describe(qb_command_at(i), check_page, text));
        o = BENCH("manual", name);
        assert_worked(&o);
        assert_string_equal(o.out, text);
        outcome_free(&o);
        qb_free(text);
    }
    o = BENCH("manual");
    assert_worked(&o);
    check_requests("bench(1)", o.out);
    for (size_t i = 0; qb_command_at(i); i++) assert_non_null(strstr(o.out, qb_command_at(i)->name));
    outcome_free(&o);
    assert_refused(BENCH("manual", "runn"), 2, "run");
    assert_refused(BENCH("manual", "run", "--output", scratch_path("other")), 2, "--output");
    assert_refused(BENCH("completion", "tcsh"), 2, "bash, zsh and fish");
    assert_refused(BENCH("completion"), 2, "shell");
}

static bool found(const char *program) {
    char command[64];
    snprintf(command, sizeof command, "command -v %s >/dev/null", program);
    return system(command) == 0; /* NOLINT(cert-env33-c,concurrency-mt-unsafe): a test's own words */
}

static char *script_of(const char *shell) {
    outcome o = BENCH("completion", shell);
    assert_worked(&o);
    char *path = qb_path_join(scratch, shell);
    assert_ok(qb_file_write_atomic(path, o.out, o.n_out));
    outcome_free(&o);
    return path;
}

static void test_manual__shells_read_their_scripts(void **state) {
    (void)state;
    static const char *const shells[] = {"bash", "zsh", "fish"};
    int absent = 0;
    for (size_t i = 0; i < sizeof shells / sizeof shells[0]; i++) {
        char command[1200];
        char *script = script_of(shells[i]);
        if (!found(shells[i])) {
            print_message("skipped: %s is not installed\n", shells[i]);
            absent++;
            qb_free(script);
            continue;
        }
        snprintf(command, sizeof command, "%s -n '%s'", shells[i], script);
        assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c,concurrency-mt-unsafe) */
        qb_free(script);
    }
    if (absent == 3) skip();
}

/* What bash offers for the last of some words. */
static void test_manual__bash_completes(void **state) {
    (void)state;
    static const struct {
        const char *words, *offered;
    } rows[] = {
        {"bench quan", "quantize"},
        {"bench help ta", "table"},
        {"bench list fam", "families"},
        {"bench quantize demo --desc", ""},
        {"bench quantize --act", "--act-order"},
        {"bench quantize -m gp", "gptq"},
        {"bench eval --backend = c", "cpu"},
        {"bench speed --threads ''", ""},
        {"bench run --suite dem", "demo"},
        {"bench completion z", "zsh"},
    };
    if (!found("bash")) {
        print_message("skipped: bash is not installed\n");
        skip();
    }
    char *script = script_of("bash");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char command[3000];
        const char *out = scratch_path("offered");
        char *text;
        size_t n;
        snprintf(
            command, sizeof command,
            "bash -c 'source \"%s\"; compopt() { :; }; COMP_WORDS=(\"%s\" \"$@\"); COMP_CWORD=$#; _bench; "
            "echo -n \"${COMPREPLY[*]}\"' %s > '%s'",
            script, QB_BENCH_PROGRAM, rows[i].words, out);
        assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c,concurrency-mt-unsafe) */
        assert_ok(qb_file_read(out, OUTPUT_MAX, &text, &n));
        if (strcmp(text, rows[i].offered) != 0)
            fail_msg("%s: expected \"%s\", found \"%s\"", rows[i].words, rows[i].offered, text);
        qb_free(text);
    }
    qb_free(script);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manual__every_option_of_every_command),
        cmocka_unit_test(test_manual__shells_read_their_scripts),
        cmocka_unit_test(test_manual__bash_completes),
    };
    scratch = scratch_make();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove(scratch);
    return failed;
}
