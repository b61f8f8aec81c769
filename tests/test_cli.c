/* The program as a user meets it: started as a process of its own, judged by exit code, standard output and
 * error. */
#include "tests/program.h"

#include "base/lock.h"

#include "base/json.h"
#include "base/str.h"
#include "bench/command.h"
#include "eval/eval.h"
#include "kernels/backend.h"
#include "results/results.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

/* ---- help and usage ---- */

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

static void test_cli__eval_states_its_peak_before_it_starts(void **state) {
    (void)state;
    outcome o = BENCH("eval", "demo", "--dataset", "demo", "--protocol", "gptq-256", "--memory-gb", "0.003",
                      "--dry-run");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "demo, gptq-256: 130 windows, layer by layer in "));
    assert_non_null(strstr(o.out, "peak memory "));
    outcome_free(&o);
    o = BENCH("eval", "demo", "--dataset", "demo", "--protocol", "gptq-256", "--dry-run", "--json");
    assert_worked(&o);
    qb_json *plans;
    assert_ok(qb_json_parse(o.out, strlen(o.out), "plans", &plans));
    assert_true(qb_json_number(qb_json_get(qb_json_first(plans), "peak_bytes")) > 2e6);
    qb_json_free(plans);
    outcome_free(&o);
}

/* Without a dataset and a protocol the demo is measured on its own text, in windows that it can hold. */
static void test_cli__eval_has_defaults_that_fit(void **state) {
    (void)state;
    outcome o = BENCH("eval", "demo", "--max-windows", "2");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "(demo, gptq-256, 2 windows"));
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
    assert_refused(BENCH("speed", "m", "n"), 2, "unexpected argument 'n'");
    assert_refused(BENCH("tokenize", "m"), 2, "exactly one of");
    assert_refused(BENCH("compare", "a.json"), 2, "NEW is missing");
    assert_refused(BENCH("project", "a.json"), 2, "--device is missing");
    assert_refused(BENCH("project", "a.json", "--device", "t5"), 2, "did you mean t4");
    assert_refused(BENCH("project", "a.json", "--device", "t4,t4"), 2, "names t4 twice");
    assert_refused(BENCH("list", "--quiet", "--verbose"), 2, "exclude each other");
    assert_refused(BENCH("speed", "synthetic:llama2-7b", "--backend", "cpuu"), 2, "did you mean cpu?");
    if (!qb_backend_find("cuda"))
        assert_refused(BENCH("speed", "synthetic:llama2-7b", "--backend", "cuda"), 2, "cmake --preset cuda");
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

static void test_cli__gguf_files_stand_where_models_do(void **state) {
    (void)state;
    static const char gguf[] = QB_SOURCE_DIR "/tests/golden/gguf/k.gguf";
    outcome o = BENCH("tokenize", gguf, "--text", "the", "--ids");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "\n1 32"));
    outcome_free(&o);
    o = BENCH("generate", gguf, "--prompt", "the king", "--tokens", "4");
    assert_worked(&o);
    outcome_free(&o);
    char suite[1024];
    snprintf(suite, sizeof suite,
             "{\"name\":\"g\",\"summary\":\"s\",\"models\":[\"%s\"],\"backends\":[\"cpu\"],"
             "\"methods\":[{\"method\":\"none\"}],\"datasets\":[\"demo\"],\"protocols\":[\"gptq-64\"],"
             "\"metrics\":[\"perplexity\",\"memory\"],\"max_windows\":4}",
             gguf);
    const char *path = scratch_path("gguf-suite.json"), *out = scratch_path("gguf.json");
    assert_ok(qb_file_write_atomic(path, suite, strlen(suite)));
    o = BENCH("run", "--suite", path, "-o", out);
    assert_worked(&o);
    outcome_free(&o);
    qb_json *json;
    assert_ok(qb_json_read(out, 1 << 24, &json));
    const qb_json *c = qb_json_first(qb_json_get(json, "cases"));
    assert_string_equal(qb_json_string(qb_json_get(c, "status")), "ok");
    assert_string_equal(qb_json_string(qb_json_get(qb_json_get(c, "config"), "method")), "q4_1");
    assert_string_equal(qb_json_string(qb_json_get(qb_json_get(c, "config"), "layout")), "gguf");
    assert_true(fabs(qb_json_number(qb_json_get(qb_json_get(c, "model"), "bits_per_weight")) - 4.6823) <
                1e-3);
    qb_json_free(json);
    assert_refused(BENCH("quantize", gguf, "--method", "rtn", "-o", scratch_path("no")), 2,
                   "already quantized");
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

/* ---- run: a tiny model of random weights, so that no data is needed ---- */

static const char tiny_config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\",\"hidden_"
    "size\":64,"
    "\"intermediate_size\":96,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"vocab_size\":128,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"float16\"}";

static void write_suite(const char *name, const char *methods, const char *metrics, const char *more) {
    qb_str text = {0};
    qb_str_printf(
        &text,
        "{\"name\":\"tiny\",\"summary\":\"s\",\"models\":[\"%s\"],\"methods\":[%s],\"metrics\":[%s],"
        "\"datasets\":[\"wikitext2\"],\"protocols\":[\"gptq-64\"],"
        "\"speed\":{\"prefill\":[16],\"decode\":[4],\"repeat\":2,\"warmup\":0}%s}",
        scratch_path("tiny"), methods, metrics, more);
    assert_ok(qb_file_write_atomic(scratch_path(name), qb_str_get(&text), text.length));
    qb_str_free(&text);
}

static const char four_methods[] =
    "{\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":[4,3],\"group_size\":32},"
    "{\"method\":\"gptq\",\"group_size\":32,\"samples\":2,\"seqlen\":32}";

static qb_results opened(const char *path) {
    qb_results r;
    assert_ok(qb_results_open(path, &r)); /* reads and validates */
    return r;
}

static void test_cli__run_measures_every_case(void **state) {
    (void)state;
    write_suite("all.json", four_methods, "\"perplexity\",\"speed\",\"memory\",\"determinism\"", "");
    char *suite = scratch_path("all.json"), *out = scratch_path("all-result.json");
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "-o", out, "--json", "--quiet");
    assert_worked(&o);
    assert_string_equal(o.err, "");
    qb_json *printed = json_of(&o);
    assert_ok(qb_results_validate(printed, "standard output"));
    qb_json_free(printed);
    outcome_free(&o);
    qb_results r = opened(out);
    assert_int_equal(qb_json_count(qb_json_get(r.doc, "cases")), 4);
    for (const qb_json *c = qb_json_first(qb_json_get(r.doc, "cases")); c; c = qb_json_next(c)) {
        assert_string_equal(qb_json_string(qb_json_get(c, "status")), "ok");
        const qb_json *perplexity = qb_results_metric(c, "perplexity", "gptq-64", "wikitext2");
        assert_string_equal(qb_json_string(qb_json_get(perplexity, "status")), "skipped");
        assert_non_null(strstr(qb_json_string(qb_json_get(perplexity, "error")), "random"));
        assert_true(qb_json_number(qb_json_get(qb_results_metric(c, "decode", NULL, NULL), "value")) > 0);
        double peak =
            qb_json_number(qb_json_get(qb_results_metric(c, "peak_rss_bytes", NULL, NULL), "value"));
        assert_true(peak > 1e6 && peak < 900e6); /* the ceilings' gigabyte is not in it */
        assert_non_null(
            qb_json_string(qb_json_get(qb_results_metric(c, "logits_sha256", NULL, NULL), "sha256")));
    }
    const qb_json *gptq = qb_results_case(&r, "tiny/gptq-4b-g32/cpu"),
                  *rtn = qb_results_case(&r, "tiny/rtn-3b-g32/cpu");
    const qb_json *quantization = qb_json_get(gptq, "quantization");
    assert_false(qb_json_true(qb_json_get(quantization, "cached")));
    assert_int_equal(qb_json_count(qb_json_get(quantization, "modules")), 14);
    assert_true(qb_json_number(qb_json_get(quantization, "seconds")) > 0);
    /* 3-bit codes, float16 scale a group of 32: 3.5 bits and what padding adds; below the 4-bit one. */
    double bits3 = qb_json_number(qb_json_get(qb_json_get(rtn, "model"), "bits_per_weight"));
    double bits4 = qb_json_number(qb_json_get(qb_json_get(gptq, "model"), "bits_per_weight"));
    assert_true(bits3 > 3.4 && bits3 < bits4 && bits4 < 6);
    qb_results_close(&r);
}

static void test_cli__a_second_run_finds_its_checkpoints(void **state) {
    (void)state;
    write_suite("cached.json", "{\"method\":\"rtn\",\"bits\":2,\"group_size\":32}", "\"memory\"", "");
    char *suite = scratch_path("cached.json"), *out = scratch_path("cached-result.json");
    for (int i = 0; i < 3; i++) {
        /* The third run is told to use no cache: it makes its own. */
        outcome o =
            BENCH("run", "--suite", suite, "--synthetic", "-o", out, i == 2 ? "--no-cache" : "--cache");
        assert_worked(&o);
        outcome_free(&o);
        qb_results r = opened(out);
        const qb_json *c = qb_results_case(&r, "tiny/rtn-2b-g32/cpu");
        assert_int_equal(qb_json_true(qb_json_get(qb_json_get(c, "quantization"), "cached")), i == 1);
        qb_results_close(&r);
    }
    assert_true(qb_path_exists(scratch_path("cached-result.json.old")));
}

static void test_cli__outputs_are_tried_before_the_work(void **state) {
    (void)state;
    write_suite("out.json", "{\"method\":\"none\"}", "\"memory\"", "");
    char *suite = scratch_path("out.json");
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "-o", "/nonexistent/dir/result.json"), 1,
                   "/nonexistent");
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "-o", scratch), 2, "is a directory");
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "--resume"), 2, "--resume needs --output");
    char *tiny = scratch_path("tiny"), *there = scratch_path("there"), *busy = scratch_path("busy.json");
    qb_file_lock lock;
    assert_ok(qb_file_lock_take(busy, &lock));
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "-o", busy), 2, "another process");
    qb_file_unlock(&lock);
    assert_ok(qb_make_dirs(there));
    assert_refused(BENCH("quantize", tiny, "--synthetic", "--method", "rtn", "-o", there), 2,
                   "--force replaces it");
    assert_refused(BENCH("quantize", tiny, "--synthetic", "--method", "rtn", "-o", "/proc/nowhere/w4"), 1,
                   "/proc/nowhere");
    assert_refused(
        BENCH("quantize", tiny, "--synthetic", "--method", "rtn", "--group-size", "48", "--dry-run"), 2,
        "48");
}

static void test_cli__what_does_not_fit_the_model_is_a_usage_error(void **state) {
    (void)state;
    write_suite("fit.json", four_methods, "\"speed\"", "");
    char *suite = scratch_path("fit.json");
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "--set", "seqlen=100"), 2,
                   "--set seqlen=64");
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "--set", "prefill=100"), 2, "has 64");
    assert_refused(BENCH("speed", scratch_path("tiny"), "--synthetic", "--prefill", "100", "--decode", "8"),
                   2, "try --prefill 32 --decode 16");
    assert_refused(BENCH("generate", "demo", "--prompt", "a", "--tokens", "100000"), 2, "try --tokens");
    /* What the shapes forbid is that method's affair, unless nothing else is left to measure. */
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "--set", "group_size=48", "--dry-run");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "skipped: "));
    outcome_free(&o);
    assert_refused(BENCH("run", "--suite", suite, "--synthetic", "--set", "group_size=48", "--only", "rtn"),
                   2, "48");
    o = BENCH("run", "--suite", suite, "--synthetic", "--dry-run", "--json");
    assert_worked(&o);
    qb_json *plan = json_of(&o);
    assert_int_equal(qb_json_count(qb_json_get(plan, "cases")), 4);
    for (const qb_json *c = qb_json_first(qb_json_get(plan, "cases")); c; c = qb_json_next(c))
        assert_true(qb_json_number(qb_json_get(c, "measure_peak_bytes")) > 0);
    qb_json_free(plan);
    outcome_free(&o);
}

static void test_cli__a_failed_case_does_not_end_the_run(void **state) {
    (void)state;
    /* Something foreign lies where a checkpoint of the cache is to be made: that case fails, the others do
     * not. */
    write_suite("damaged.json", "{\"method\":\"rtn\",\"bits\":[8,4],\"group_size\":-1}", "\"memory\"", "");
    char *suite = scratch_path("damaged.json"), *out = scratch_path("damaged-result.json");
    char *cache = scratch_path("damaged-cache"), *usual = qb_strdup(getenv("BENCH_CACHE"));
    setenv("BENCH_CACHE", cache, 1);
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "-o", out, "--only", "rtn-8b*");
    assert_worked(&o);
    outcome_free(&o);
    qb_str command = {0};
    qb_str_printf(&command,
                  "for d in '%s'/quantized/*/; do rm -r \"$d\"; mkdir -p \"${d%%/}.partial/stranger\"; done",
                  cache);
    assert_int_equal(system(qb_str_get(&command)), 0);
    qb_str_free(&command);
    o = BENCH("run", "--suite", suite, "--synthetic", "-o", out);
    setenv("BENCH_CACHE", usual, 1);
    qb_free(usual);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "1 of 2 cases failed"));
    outcome_free(&o);
    qb_results r = opened(out);
    const qb_json *bad = qb_results_case(&r, "tiny/rtn-8b-row/cpu"),
                  *good = qb_results_case(&r, "tiny/rtn-4b-row/cpu");
    assert_string_equal(qb_json_string(qb_json_get(bad, "status")), "failed");
    assert_non_null(strstr(qb_json_string(qb_json_get(bad, "error")), "was not left by an interrupted run"));
    assert_string_equal(qb_json_string(qb_json_get(good, "status")), "ok");
    qb_results_close(&r);
}

/* ---- ended in the middle ---- */

static int64_t finished_cases(const char *path) {
    qb_results r;
    if (!qb_path_exists(path) || qb_results_open(path, &r) != QB_OK) return 0;
    int64_t n = qb_json_count(qb_json_get(r.doc, "cases"));
    qb_results_close(&r);
    return n;
}

static void short_sleep(void) {
    nanosleep(&(struct timespec){0, 5000000}, NULL);
}

/* Starts a run of many cases, sends the signal once one is finished; returns the exit code. */
static int ended_run(const char *suite, const char *out, int number) {
    const char *const args[] = {"run", "--suite", suite, "--synthetic", "-o", out, NULL};
    pid_t pid = start(args, scratch_path("ended-stdout"), scratch_path("ended-stderr"));
    for (int i = 0; i < 12000 && finished_cases(out) < 1; i++) short_sleep();
    assert_true(finished_cases(out) >= 1);
    kill(pid, number);
    return wait_code(pid);
}

static void resumed_run_completes(int number, int expected_code) {
    write_suite("ended.json",
                "{\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":[8,4,3,2],\"group_size\":[32,-1]},{"
                "\"method\":\"nf4\"},"
                "{\"method\":\"gptq\",\"bits\":[8,4,3,2],\"group_size\":[32,-1],\"samples\":2,\"seqlen\":32}",
                "\"memory\",\"determinism\"", "");
    char *suite = scratch_path("ended.json"), *out = scratch_path("ended-result.json");
    (void)unlink(out);
    assert_int_equal(ended_run(suite, out, number), expected_code);
    qb_results before = opened(out);
    int64_t n_before = qb_json_count(qb_json_get(before.doc, "cases"));
    assert_true(n_before >= 1 && n_before < 18);
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "-o", out, "--resume");
    assert_worked(&o);
    assert_non_null(strstr(o.err, "kept"));
    outcome_free(&o);
    qb_results after = opened(out);
    assert_int_equal(qb_json_count(qb_json_get(after.doc, "cases")), 18);
    /* Kept means not touched: the start times are the old ones. */
    for (const qb_json *c = qb_json_first(qb_json_get(before.doc, "cases")); c; c = qb_json_next(c)) {
        const qb_json *same = qb_results_case(&after, qb_json_string(qb_json_get(c, "id")));
        assert_string_equal(qb_json_string(qb_json_get(same, "started")),
                            qb_json_string(qb_json_get(c, "started")));
        assert_true(qb_json_number(qb_json_get(same, "seconds")) ==
                    qb_json_number(qb_json_get(c, "seconds")));
    }
    assert_int_equal(qb_json_count(qb_json_get(qb_json_get(after.doc, "context"), "resumed")), 1);
    qb_results_close(&before);
    qb_results_close(&after);
}

static void test_cli__killed_in_the_middle_it_keeps_and_resumes(void **state) {
    (void)state;
    resumed_run_completes(SIGKILL, 128 + SIGKILL);
}

static void test_cli__interrupted_it_keeps_and_says_so(void **state) {
    (void)state;
    resumed_run_completes(SIGINT, 130);
    char *text;
    size_t n;
    assert_ok(qb_file_read(scratch_path("ended-stderr"), 1 << 20, &text, &n));
    assert_non_null(strstr(text, "bench: interrupted after"));
    assert_non_null(strstr(text, "--resume goes on"));
    qb_free(text);
}

static void test_cli__resume_runs_again_what_changed(void **state) {
    (void)state;
    write_suite("change.json",
                "{\"method\":\"none\"},{\"method\":\"gptq\",\"group_size\":32,\"samples\":2,\"seqlen\":32}",
                "\"memory\"", "");
    char *suite = scratch_path("change.json"), *out = scratch_path("change-result.json");
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "-o", out);
    assert_worked(&o);
    outcome_free(&o);
    o = BENCH("run", "--suite", suite, "--synthetic", "-o", out, "--resume", "--set", "samples=3");
    assert_worked(&o);
    assert_non_null(
        strstr(o.err, "tiny/gptq-4b-g32/cpu: config differs: samples 2 against 3; it is run again"));
    assert_non_null(strstr(o.err, "f16"));
    assert_non_null(strstr(o.err, "kept"));
    outcome_free(&o);
    qb_results r = opened(out);
    const qb_json *config = qb_json_get(qb_results_case(&r, "tiny/gptq-4b-g32/cpu"), "config");
    assert_true(qb_json_number(qb_json_get(config, "samples")) == 3);
    qb_results_close(&r);
}

static void test_cli__the_plan_holds_the_measured_peak(void **state) {
    (void)state;
    char *out = scratch_path("peak-result.json");
    outcome o = BENCH("run", "--suite", "demo", "--only", "none,rtn-4b*", "--set", "max_windows=16", "--set",
                      "budget_s=0.1", "--dry-run", "--json");
    assert_worked(&o);
    qb_json *plan = json_of(&o);
    outcome_free(&o);
    o = BENCH("run", "--suite", "demo", "--only", "none,rtn-4b*", "--set", "max_windows=16", "--set",
              "budget_s=0.1", "-o", out);
    assert_worked(&o);
    /* A part of the text is said to be one, and has no floor. */
    assert_non_null(strstr(o.out, "of the text; not comparable"));
    assert_null(strstr(o.out, "no model can pass"));
    outcome_free(&o);
    qb_results r = opened(out);
    for (const qb_json *c = qb_json_first(qb_json_get(plan, "cases")); c; c = qb_json_next(c)) {
        const qb_json *found = qb_results_case(&r, qb_json_string(qb_json_get(c, "id")));
        double planned = qb_json_number(qb_json_get(c, "measure_peak_bytes")),
               peak = qb_json_number(
                   qb_json_get(qb_results_metric(found, "peak_rss_bytes", NULL, NULL), "value"));
        if (!(planned >= peak && planned < 2 * peak))
            fail_msg("planned %.0f bytes, took %.0f", planned, peak);
    }
    qb_json_free(plan);
    qb_results_close(&r);
}

static void test_cli__compare_tells_same_from_worse(void **state) {
    (void)state;
    write_suite("compare.json", "{\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":4,\"group_size\":32}",
                "\"memory\"", "");
    char *suite = scratch_path("compare.json"), *out = scratch_path("compare-result.json");
    outcome o = BENCH("run", "--suite", suite, "--synthetic", "-o", out);
    assert_worked(&o);
    outcome_free(&o);
    o = BENCH("compare", out, out, "--json");
    assert_worked(&o);
    qb_json_free(json_of(&o));
    outcome_free(&o);
    /* One case less is a regression. */
    char *less = scratch_path("compare-less.json");
    o = BENCH("run", "--suite", suite, "--synthetic", "-o", less, "--only", "none");
    assert_worked(&o);
    outcome_free(&o);
    o = BENCH("compare", out, less);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.out, "rtn-4b-g32"));
    outcome_free(&o);
}

/* ---- real weights: the demo model, else the shared one ---- */

static void test_cli__speed_writes_one_document(void **state) {
    (void)state;
    outcome o = BENCH("speed", scratch_path("tiny"), "--synthetic", "--prefill", "8", "--decode", "4",
                      "--repeat", "2", "--json");
    assert_worked(&o);
    qb_json *doc = json_of(&o);
    assert_ok(qb_results_validate(doc, "standard output"));
    const qb_json *c = qb_json_first(qb_json_get(doc, "cases"));
    const qb_json *decode = qb_results_metric(c, "decode", NULL, NULL);
    assert_int_equal(qb_json_count(qb_json_get(decode, "samples")), 2);
    assert_true(qb_json_number(qb_json_get(decode, "share_of_ceiling")) > 0);
    qb_json_free(doc);
    outcome_free(&o);
}

/* Rows that stayed noisy are marked, those alone, each with its reason below, and the load is said. Five
   samples have no interval of their median: their deviation speaks. */
static void test_cli__speed_marks_noisy_rows(void **state) {
    (void)state;
    outcome o = BENCH("speed", scratch_path("tiny"), "--synthetic", "--prefill", "8", "--decode", "4",
                      "--repeat", "5");
    assert_worked(&o);
    int rows = 0, marked = 0, reasons = 0;
    for (char *line = strtok(o.out, "\n"); line; line = strtok(NULL, "\n")) {
        double median, sd;
        char known[16], unit[16];
        if (!strncmp(line, "load average ", 13)) rows += 100;
        reasons += !strncmp(line, "    ", 4);
        if (strlen(line) < 60 || sscanf(line + 40, "%lf %15s %lf %15s", &median, known, &sd, unit) != 4)
            continue;
        bool mark = !strcmp(known, "-!");
        rows++;
        marked += mark;
        if (sd / median > 0.101) assert_true(mark);
    }
    assert_true(rows >= 102); /* prefill, decode, and the load */
    assert_int_equal(marked, reasons);
    print_message("%d of %d rows marked\n", marked, rows - 100);
    outcome_free(&o);
}

/* Without a number of samples the precision and the budget decide, and the row says which. */
static void test_cli__speed_samples_until_it_knows(void **state) {
    (void)state;
    outcome o = BENCH("speed", scratch_path("tiny"), "--synthetic", "--prefill", "0", "--decode", "4",
                      "--budget-s", "0.2", "--precision", "0.01", "--json");
    assert_worked(&o);
    qb_json *doc = json_of(&o);
    const qb_json *row = qb_results_metric(qb_json_first(qb_json_get(doc, "cases")), "decode", NULL, NULL);
    double n = qb_json_number(qb_json_get(row, "n")), spent = qb_json_number(qb_json_get(row, "sampled_s"));
    assert_true(n >= 3 && qb_json_number(qb_json_get(row, "runs_per_sample")) >= 1);
    assert_false(qb_json_true(qb_json_get(row, "reached"))); /* one part in ten thousand */
    if (n < QB_SAMPLES_MAX) assert_true(spent >= 0.2);
    qb_json_free(doc);
    outcome_free(&o);
    o = BENCH("speed", scratch_path("tiny"), "--synthetic", "--prefill", "0", "--decode", "4", "--precision",
              "100", "--budget-s", "1", "--json");
    assert_worked(&o);
    doc = json_of(&o);
    row = qb_results_metric(qb_json_first(qb_json_get(doc, "cases")), "decode", NULL, NULL);
    if (!strcmp(qb_json_string(qb_json_get(row, "stopped")),
                "precision")) /* a busy machine never gets there */
        assert_true(qb_json_true(qb_json_get(row, "reached")));
    qb_json_free(doc);
    outcome_free(&o);
}

static void test_cli__the_main_job_on_real_weights(void **state) {
    (void)state;
    const char *model = shared_path("models/stories260K-hf"), *data = shared_path("data");
    char *w4 = scratch_path("stories-nf4");
    outcome o = BENCH("quantize", model, "--method", "nf4", "-o", w4, "--json");
    assert_worked(&o);
    qb_json *report = json_of(&o);
    assert_true(qb_json_number(qb_json_get(qb_json_get(report, "quantization"), "bits_per_weight")) < 5);
    qb_json_free(report);
    outcome_free(&o);
    double perplexity[2];
    const char *models[2] = {model, w4};
    for (int i = 0; i < 2; i++) {
        o = BENCH("eval", models[i], "--dataset", "ptb", "--protocol", "gptq-256", "--max-windows", "4",
                  "--data", data, "--json");
        assert_worked(&o);
        qb_json *doc = json_of(&o);
        assert_ok(qb_results_validate(doc, "standard output"));
        const qb_json *row =
            qb_results_metric(qb_json_first(qb_json_get(doc, "cases")), "perplexity", "gptq-256", "ptb");
        perplexity[i] = qb_json_number(qb_json_get(row, "value"));
        assert_true(qb_json_number(qb_json_get(row, "windows")) == 4);
        qb_json_free(doc);
        outcome_free(&o);
    }
    assert_true(perplexity[1] > perplexity[0] && perplexity[1] < 1.5 * perplexity[0]);
    /* Greedy text is the same from run to run, and English. */
    o = BENCH("generate", model, "--prompt", "Once upon a time", "--tokens", "20", "--quiet");
    assert_worked(&o);
    assert_int_equal(strncmp(o.out, "Once upon a time, there was a little girl", 41), 0);
    assert_string_equal(o.err, "");
    outcome_free(&o);
    assert_refused(BENCH("quantize", w4, "--method", "rtn", "-o", scratch_path("again")), 2,
                   "already quantized");
    assert_refused(BENCH("eval", model, "--protocol", "gptq-2048", "--data", data), 2, "try gptq-512");
    assert_refused(BENCH("eval", model, "--dataset", "wikitext3", "--protocol", "gptq-128", "--data", data),
                   2, "did you mean wikitext2?");
    assert_refused(BENCH("eval", model, "--dataset", "ptb", "--protocol", "gptq-128", "--data", scratch), 1,
                   "ptb.valid.txt");
}

/* The built-in model as a directory of its own, for files to be put beside. */
static void copy_demo(const char *dir) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    assert_ok(qb_make_dirs(dir));
    for (size_t i = 0; i < 3; i++) {
        char *from = qb_path_join(QB_SOURCE_DIR "/bench/demo", files[i]), *to = qb_path_join(dir, files[i]);
        assert_ok(qb_copy_file(from, to));
        qb_free(from);
        qb_free(to);
    }
}

/* A special token that a file names and the model lacks: refused before anything is computed, unless it is
 * text. */
static void test_cli__special_tokens_beyond_the_model(void **state) {
    (void)state;
    const char *dir = scratch_path("beyond"), *text = scratch_path("beyond.txt");
    static const char config[] = "{\"pad_token\": \"[PAD]\"}";
    qb_str words = {0};
    copy_demo(dir);
    char *path = qb_path_join(dir, "tokenizer_config.json");
    assert_ok(qb_file_write_atomic(path, config, sizeof config - 1));
    for (int i = 0; i < 200; i++) qb_str_text(&words, i == 7 ? "[PAD] " : "the king ");
    assert_ok(qb_file_write_atomic(text, words.text, words.length));
    assert_refused(BENCH("eval", dir, "--dataset", text, "--protocol", "gptq-64"), 1,
                   "--special-tokens text");
    outcome o =
        BENCH("eval", dir, "--dataset", text, "--protocol", "gptq-64", "--special-tokens", "text", "--json");
    assert_worked(&o);
    qb_json *j = json_of(&o);
    const qb_json *row = qb_json_first(qb_json_get(qb_json_first(qb_json_get(j, "cases")), "metrics"));
    assert_string_equal(qb_json_string(qb_json_get(row, "special_tokens")), "text");
    assert_true(qb_json_number(qb_json_get(row, "special_tokens_found")) == 1);
    assert_true(qb_json_true(qb_json_get(row, "bos")));
    assert_ok(qb_results_validate(j, "standard output"));
    qb_json_free(j);
    outcome_free(&o);
    qb_str_free(&words);
    qb_free(path);
}

/* Every end-of-sequence id of generation_config.json ends a text. */
static void test_cli__generate_ends_at_every_eos(void **state) {
    (void)state;
    const char *dir = scratch_path("stops");
    int32_t seventh = -1;
    size_t first = 0;
    copy_demo(dir);
    for (int with = 0; with < 2; with++) {
        outcome o = BENCH("generate", dir, "--prompt", "the", "--tokens", "12", "--json");
        assert_worked(&o);
        qb_json *j = json_of(&o);
        size_t n = 0;
        for (const qb_json *id = qb_json_first(qb_json_get(j, "ids")); id; id = qb_json_next(id), n++)
            if (!with && n == 6) seventh = (int32_t)qb_json_number(id);
        if (with) {
            assert_int_equal(n, first);
        } else {
            assert_int_equal(n, 12);
            for (const qb_json *id = qb_json_first(qb_json_get(j, "ids"));
                 (int32_t)qb_json_number(id) != seventh; id = qb_json_next(id))
                first++;
        }
        qb_json_free(j);
        outcome_free(&o);
        char text[64], *path = qb_path_join(dir, "generation_config.json");
        snprintf(text, sizeof text, "{\"eos_token_id\": [100000, %d]}", seventh);
        assert_ok(qb_file_write_atomic(path, text, strlen(text)));
        qb_free(path);
    }
}

static void test_cli__tokenize_equals_the_golden_hash(void **state) {
    (void)state;
    const char *model = shared_path("tokenizers/llama2"), *data = shared_path("data");
    outcome o = BENCH("tokenize", model, "--dataset", "ptb", "--data", data, "--json");
    assert_worked(&o);
    qb_json *j = json_of(&o);
    /* golden/text.json */
    assert_true(qb_json_number(qb_json_get(j, "count")) == 95280);
    assert_true(qb_json_number(qb_json_get(j, "special_tokens_found")) == 3354);
    assert_string_equal(qb_json_string(qb_json_get(j, "special_tokens")), "file");
    assert_true(qb_json_true(qb_json_get(j, "bos")));
    assert_string_equal(qb_json_string(qb_json_get(j, "sha256")),
                        "89efea7159a3fce5cb289277c41d0c05777e2cca6d2ba5ecf8b55e8df258161f");
    qb_json_free(j);
    outcome_free(&o);
    o = BENCH("tokenize", model, "--dataset", "ptb", "--data", data, "--json", "--special-tokens", "text");
    assert_worked(&o);
    j = json_of(&o);
    assert_true(qb_json_number(qb_json_get(j, "count")) == 101988);
    assert_true(qb_json_number(qb_json_get(j, "special_tokens_found")) == 3485); /* as it is spelt */
    assert_string_equal(qb_json_string(qb_json_get(j, "sha256")),
                        "2111dcc121299cc1e7b6ee5d4d063240f52dc29ab9f222680f97b1973e0a56c1");
    qb_json_free(j);
    outcome_free(&o);
    o = BENCH("tokenize", model, "--text", "Hello world", "--ids", "--json");
    assert_worked(&o);
    j = json_of(&o);
    assert_int_equal(qb_json_count(qb_json_get(j, "ids")), 3); /* BOS 1, 15043, 3186 */
    assert_true(qb_json_number(qb_json_first(qb_json_get(j, "ids"))) == 1);
    qb_json_free(j);
    outcome_free(&o);
    o = BENCH("tokenize", model, "--decode", "1,15043,3186");
    assert_worked(&o);
    assert_string_equal(o.out, "Hello world\n");
    outcome_free(&o);
}

static int make_model(void **state) {
    if (program_begin(state) != 0) return -1;
    if (qb_make_dirs(scratch_path("tiny")) != QB_OK) return -1;
    char *path = scratch_path("tiny/config.json");
    return qb_file_write_atomic(path, tiny_config, strlen(tiny_config)) == QB_OK ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cli__help_is_a_manual_page),
        cmocka_unit_test(test_cli__usage_errors_suggest_the_nearest),
        cmocka_unit_test(test_cli__eval_states_its_peak_before_it_starts),
        cmocka_unit_test(test_cli__eval_has_defaults_that_fit),
        cmocka_unit_test(test_cli__missing_things_are_named),
        cmocka_unit_test(test_cli__closed_streams_and_special_outputs_are_survived),
        cmocka_unit_test(test_cli__list_prints_every_registry),
        cmocka_unit_test(test_cli__gguf_files_stand_where_models_do),
        cmocka_unit_test(test_cli__a_full_disk_or_closed_pipe_on_stdout_shows),
        cmocka_unit_test(test_cli__run_measures_every_case),
        cmocka_unit_test(test_cli__a_second_run_finds_its_checkpoints),
        cmocka_unit_test(test_cli__outputs_are_tried_before_the_work),
        cmocka_unit_test(test_cli__what_does_not_fit_the_model_is_a_usage_error),
        cmocka_unit_test(test_cli__a_failed_case_does_not_end_the_run),
        cmocka_unit_test(test_cli__killed_in_the_middle_it_keeps_and_resumes),
        cmocka_unit_test(test_cli__interrupted_it_keeps_and_says_so),
        cmocka_unit_test(test_cli__resume_runs_again_what_changed),
        cmocka_unit_test(test_cli__the_plan_holds_the_measured_peak),
        cmocka_unit_test(test_cli__compare_tells_same_from_worse),
        cmocka_unit_test(test_cli__speed_writes_one_document),
        cmocka_unit_test(test_cli__speed_marks_noisy_rows),
        cmocka_unit_test(test_cli__speed_samples_until_it_knows),
        cmocka_unit_test(test_cli__the_main_job_on_real_weights),
        cmocka_unit_test(test_cli__generate_ends_at_every_eos),
        cmocka_unit_test(test_cli__special_tokens_beyond_the_model),
        cmocka_unit_test(test_cli__tokenize_equals_the_golden_hash),
    };
    return cmocka_run_group_tests(tests, make_model, program_end);
}
