/* The command line as a user meets it: help, usage errors, lists and streams. */
#include "tests/program.h"

#include "bench/command.h"
#include "kernels/backend.h"
#include "plots/plots.h"

#include <sys/stat.h>

static void test_cli__help_is_a_manual_page(void **state) {
    (void)state;
    static const char *const heads[] = {"NAME\n",  "SYNOPSIS\n", "DESCRIPTION\n",
                                        "OPTIONS", "EXAMPLES\n", "EXIT STATUS\n"};
    for (size_t i = 0; qb_command_at(i); i++) {
        const char *name = qb_command_at(i)->name;
        outcome o = BENCH(name, "--help");
        assert_worked(&o);
        assert_string_equal(o.err, "");
        for (size_t h = 0; h < sizeof heads / sizeof heads[0]; h++)
            if (!strstr(o.out, heads[h])) fail_msg("bench %s --help has no %s", name, heads[h]);
        assert_non_null(strstr(o.out, "--json"));
        assert_non_null(strstr(o.out, "--quiet"));
        /* `bench help run` is the same page. */
        outcome same = BENCH("help", name);
        assert_string_equal(same.out, o.out);
        outcome_free(&same);
        outcome_free(&o);
    }
    outcome o = BENCH("--help");
    assert_worked(&o);
    for (size_t i = 0; qb_command_at(i); i++) assert_non_null(strstr(o.out, qb_command_at(i)->name));
    outcome_free(&o);
    o = BENCH("--version");
    assert_worked(&o);
    assert_int_equal(strncmp(o.out, "bench " QB_VERSION, strlen("bench " QB_VERSION)), 0);
    outcome_free(&o);
}

static void test_cli__usage_errors_suggest_the_nearest(void **state) {
    (void)state;
    assert_refused(BENCH("quantise"), 2, "did you mean quantize?");
    assert_refused(BENCH("xyzzy"), 2, "unknown command 'xyzzy'");
    assert_refused(BENCH("eval", "m", "--protocoll", "x"), 2, "did you mean --protocol?");
    assert_refused(BENCH("run", "--suit", "demo"), 2, "did you mean --suite?");
    assert_refused(BENCH("run"), 2, "--suite is missing");
    assert_refused(BENCH("run", "--suite", "dmeo"), 2, "did you mean demo?");
    assert_refused(BENCH("run", "--suite", "demo", "--set", "repeet=1"), 2, "did you mean repeat?");
    assert_refused(BENCH("run", "--suite", "demo", "--only", "awq"), 2, "matches no case");
    assert_refused(BENCH("run", "--suite", "demo", "--set"), 2, "--set needs a value");
    assert_refused(BENCH("list", "method"), 2, "did you mean methods?");
    assert_refused(BENCH("quantize", "m", "--method", "gtpq"), 2, "did you mean gptq?");
    assert_refused(BENCH("quantize", "m", "-m", "nf4", "--bits", "4", "-o", "x"), 2, "--bits");
    assert_refused(BENCH("quantize", "m", "--method", "rtn", "--bits", "4"), 2, "--output is missing");
    assert_refused(BENCH("quantize", "m", "--method", "rtn", "--bits", "99", "-o", "x"), 2, "--bits");
    assert_refused(BENCH("eval"), 2, "MODEL is missing");
    assert_refused(BENCH("speed", "m", "--repeat", "none"), 2, "--repeat");
    assert_refused(BENCH("inspect", "m", "n"), 2, "unexpected argument 'n'");
    assert_refused(BENCH("tokenize", "m"), 2, "exactly one of");
    assert_refused(BENCH("compare", "a.json"), 2, "NEW is missing");
    assert_refused(BENCH("compare", "a.json", "a2.json", "--", "--json"), 2, "NEW is missing");
    assert_refused(BENCH("compare", "a.json", "a2.json", "b.json"), 2, "unexpected argument 'b.json'");
    assert_refused(BENCH("compare", "no-such.json", "--", "b.json", "b2.json"), 1, "no-such.json");
    assert_refused(BENCH("project", "a.json"), 2, "--device is missing");
    assert_refused(BENCH("project", "a.json", "--device", "t5"), 2, "did you mean t4");
    assert_refused(BENCH("project", "a.json", "--device", "t4,t4"), 2, "names t4 twice");
    assert_refused(BENCH("list", "--quiet", "--verbose"), 2, "exclude each other");
    assert_refused(BENCH("speed", "synthetic:llama2-7b", "--backend", "cpuu"), 2, "did you mean cpu?");
    if (!qb_backend_find("cuda"))
        assert_refused(BENCH("speed", "synthetic:llama2-7b", "--backend", "cuda"), 2, "cmake --preset cuda");
}

/* An option that the command lacks: what it is called here, or who has it. A slip stays a slip. */
static void test_cli__options_of_others_are_told(void **state) {
    (void)state;
    assert_refused(BENCH("quantize", "m", "-m", "gptq", "--desc-act"), 2,
                   "--desc-act; here it is --act-order");
    assert_refused(BENCH("quantize", "m", "-m", "nf4", "--desc_act"), 2,
                   "--act-order belongs to the method gptq");
    assert_refused(BENCH("quantize", "m", "-m", "nf4", "--bits=4"), 2,
                   "--bits belongs to the methods rtn, gptq");
    assert_refused(BENCH("run", "--suite", "demo", "--max-windows", "4"), 2, "--set max_windows=VALUE");
    assert_refused(BENCH("run", "--suite", "demo", "--decode", "4"), 2, "--set decode=VALUE");
    assert_refused(BENCH("ab", "--suite", "demo", "--bits", "4"), 2, "--set bits=VALUE");
    assert_refused(BENCH("speed", "m", "--max-windows", "3"), 2, "bench eval has --max-windows");
    assert_refused(BENCH("table", "r.json", "--csv"), 2, "here it is --format");
    assert_refused(BENCH("convert", "m", "--format", "f16", "-o", "x"), 2, "here it is --to");
    /* What another command has is no slip of --font, near as that is. */
    assert_refused(BENCH("plot", "r.json", "--format", "csv"), 2, "bench inspect have --format");
    assert_refused(BENCH("generate", "m", "--max-new-tokens", "4"), 2, "here it is --tokens");
    assert_refused(BENCH("run", "--suite", "demo", "--set", "desc_act=true", "-o", "x"), 2,
                   "unknown key 'desc_act'; here it is act_order");
    assert_refused(BENCH("run", "--suit", "demo"), 2, "did you mean --suite?");
    outcome o = BENCH("list", "--xyzzy");
    assert_string_equal(o.err, "bench: unknown option --xyzzy\n");
    outcome_free(&o);
}

static void test_cli__missing_things_are_named(void **state) {
    (void)state;
    assert_refused(BENCH("eval", "./no-such-model"), 1, "no-such-model");
    assert_refused(BENCH("speed", "llama2-70b"), 1, "Hugging Face cache");
    assert_refused(BENCH("plot", "no-such.json"), 1, "no-such.json");
    assert_refused(BENCH("compare", "no-such.json", "neither.json"), 1, "no-such.json");
    assert_refused(BENCH("generate", "synthetic:llama2-7b", "--prompt", "x"), 2, "no tokenizer");
    const char *broken = scratch_path("broken.json");
    assert_ok(qb_file_write_atomic(broken, "{\"schema\":", 10));
    assert_refused(BENCH("plot", broken), 1, "broken.json");
    assert_refused(BENCH("run", "--suite", broken), 1, "broken.json");
}

/* What was asked for by name and is not there is no success, and neither is nothing at all. */
static void test_cli__a_plot_that_is_not_drawn_is_an_error(void **state) {
    (void)state;
    char version[64];
    if (!qb_gnuplot_find(version)) {
        print_message("skipped: gnuplot is absent (%s)\n", version);
        skip();
    }
    static const char empty[] =
        "{\"schema\":\"qb.results/2\",\"context\":{\"program\":{\"name\":\"q\",\"version\":\"1\"},"
        "\"created\":\"2026-11-22T06:10:00Z\",\"devices\":[]},"
        "\"cases\":[{\"id\":\"a\",\"status\":\"failed\",\"error\":\"no\",\"config\":{},\"model\":null,"
        "\"metrics\":[]}]}";
    static const char quick[] = QB_SOURCE_DIR "/results/h200/speed-int4.json";
    const char *path = scratch_path("empty.json"), *out = scratch_path("plots");
    assert_ok(qb_file_write_atomic(path, empty, sizeof empty - 1));
    assert_refused(BENCH("plot", path, "--out", out), 1, "nothing is drawn");
    assert_refused(BENCH("plot", quick, "--out", out, "--only", "prefill,layer-error,pareto"), 1,
                   "not drawn, since the results have no data for it: pareto, layer-error");
    char *drawn = qb_path_join(out, "prefill.svg");
    assert_true(qb_path_exists(drawn));
    qb_free(drawn);
    outcome o = BENCH("plot", quick, "--out", out);
    assert_worked(&o);
    assert_non_null(strstr(o.err, "not drawn, since the results have no data for it: perplexity-bits, "));
    outcome_free(&o);
}

static void test_cli__closed_streams_and_special_outputs_are_survived(void **state) {
    (void)state;
    char *fifo = scratch_path("fifo"), *kept = scratch_path("fifo.old"), *copy = scratch_path("closed-nf4");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_refused(BENCH("run", "--suite", "demo", "-o", fifo), 2, "a device or a pipe");
    assert_true(qb_path_exists(fifo));
    assert_false(qb_path_exists(kept));
    pid_t pid = fork();
    if (pid == 0) {
        for (int fd = 0; fd <= 2; fd++) close(fd);
        execl(QB_BENCH_PROGRAM, QB_BENCH_PROGRAM, "quantize", "demo", "-m", "nf4", "-o", copy, (char *)NULL);
        _exit(121);
    }
    assert_int_equal(wait_code(pid), 1); /* the summary could not be printed */
    outcome o = BENCH("eval", copy, "--dataset", "demo", "-p", "gptq-64", "--max-windows", "1");
    assert_worked(&o);
    outcome_free(&o);
}

static void test_cli__list_prints_every_registry(void **state) {
    (void)state;
    static const char *const known[][2] = {{"suites", "demo"},
                                           {"models", "llama2-7b"},
                                           {"methods", "gptq"},
                                           {"datasets", "wikitext2"},
                                           {"layouts", "compressed-tensors"},
                                           {"protocols", "gptq-<n>"},
                                           {"metrics", "perplexity"},
                                           {"backends", "cpu"},
                                           {"plots", "perplexity"},
                                           {"families", "llama"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        outcome o = BENCH("list", known[i][0], "--json");
        assert_worked(&o);
        qb_json *array = json_of(&o);
        bool found = false;
        for (const qb_json *j = qb_json_first(array); j; j = qb_json_next(j)) {
            const char *name = qb_json_string(qb_json_get(j, "name"));
            assert_non_null(name);
            assert_non_null(qb_json_string(qb_json_get(j, "summary")));
            found = found || !strncmp(name, known[i][1], strlen(known[i][1]));
        }
        if (!found) fail_msg("bench list %s shows no %s", known[i][0], known[i][1]);
        qb_json_free(array);
        outcome_free(&o);
    }
    outcome o = BENCH("list");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "suites\n"));
    outcome_free(&o);
}

static void test_cli__a_full_disk_or_closed_pipe_on_stdout_shows(void **state) {
    (void)state;
    if (!qb_path_exists("/dev/full")) skip();
    const char *const args[] = {"list", "methods", NULL};
    char *err = scratch_path("full-stderr"), *text;
    size_t n;
    assert_int_equal(wait_code(start(args, "/dev/full", err)), 1);
    assert_ok(qb_file_read(err, 4096, &text, &n));
    assert_non_null(strstr(text, "cannot write to standard output"));
    qb_free(text);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        dup2(ends[1], 1);
        execl(QB_BENCH_PROGRAM, QB_BENCH_PROGRAM, "list", (char *)NULL);
        _exit(121);
    }
    close(ends[0]); /* the reader is gone before the first byte */
    close(ends[1]);
    assert_int_equal(wait_code(pid), 141);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cli__help_is_a_manual_page),
        cmocka_unit_test(test_cli__usage_errors_suggest_the_nearest),
        cmocka_unit_test(test_cli__options_of_others_are_told),
        cmocka_unit_test(test_cli__missing_things_are_named),
        cmocka_unit_test(test_cli__a_plot_that_is_not_drawn_is_an_error),
        cmocka_unit_test(test_cli__closed_streams_and_special_outputs_are_survived),
        cmocka_unit_test(test_cli__list_prints_every_registry),
        cmocka_unit_test(test_cli__a_full_disk_or_closed_pipe_on_stdout_shows),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}
