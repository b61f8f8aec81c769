/* What a run says of its cases, and what becomes of them when the world is in the way. */
#include "tests/program.h"

#include "results/results.h"

#include <math.h>

static qb_results opened(const char *path) {
    qb_results r;
    assert_ok(qb_results_open(path, &r));
    return r;
}

static const char *text_at(const qb_json *object, const char *key) {
    const char *text = qb_json_string(qb_json_get(object, key));
    return text ? text : "";
}

static char *suite_file(const char *name, const char *members) {
    char *path = scratch_path(name);
    qb_str text = {0};
    qb_str_printf(&text, "{\"name\":\"t\",\"summary\":\"s\",%s}", members);
    assert_ok(qb_file_write_atomic(path, text.text, text.length));
    qb_str_free(&text);
    return path;
}

/* A published checkpoint stands beside the model that the methods start from. */
static void test_run__a_method_that_cannot_start_is_a_skipped_row(void **state) {
    (void)state;
    char *suite =
        suite_file("skip.json", "\"models\":[\"" QB_SOURCE_DIR "/tests/golden/gguf/k.gguf\",\"demo\"],"
                                "\"methods\":[{\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":4,"
                                "\"group_size\":[32,96]}],\"metrics\":[\"memory\"]");
    char *out = scratch_path("skip-result.json");
    outcome o = BENCH("run", "-s", suite, "-o", out);
    assert_worked(&o);
    assert_non_null(strstr(o.err, "3 of 6 cases were skipped"));
    assert_non_null(strstr(o.out, "k.gguf is quantized already (q4_1"));
    outcome_free(&o);
    static const struct {
        const char *id, *status, *error;
    } rows[] = {
        {"k.gguf/as-is/cpu", "ok", ""},
        {"k.gguf/rtn-4b-g32/cpu", "skipped", "starts from unquantized weights"},
        {"k.gguf/rtn-4b-g96/cpu", "skipped", "starts from unquantized weights"},
        {"demo/f16/cpu", "ok", ""},
        {"demo/rtn-4b-g32/cpu", "ok", ""},
        {"demo/rtn-4b-g96/cpu", "skipped", "96"},
    };
    qb_results r = opened(out);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const qb_json *c = qb_results_case(&r, rows[i].id);
        if (!c) fail_msg("no case %s", rows[i].id);
        assert_string_equal(text_at(c, "status"), rows[i].status);
        if (!strstr(text_at(c, "error"), rows[i].error)) fail_msg("%s: %s", rows[i].id, text_at(c, "error"));
    }
    assert_int_equal(qb_results_unmeasured(&r), 0);
    qb_results_close(&r);
    assert_refused(BENCH("run", "-s", suite, "--only", "*/rtn-4b-g96/*", "-q"), 2,
                   "no other case can be measured");
}

static double divergence_of(const char *suite, const char *only, const char *id) {
    char *out = scratch_path("divergence-result.json");
    unlink(out);
    outcome o = BENCH("run", "-s", suite, "-o", out, "--only", only, "-q");
    assert_worked(&o);
    outcome_free(&o);
    qb_results r = opened(out);
    const qb_json *c = qb_results_case(&r, id), *row = qb_results_metric(c, "kl_divergence", NULL, NULL);
    if (!row || strcmp(text_at(row, "status"), "ok") != 0)
        fail_msg("--only %s: %s", only, text_at(row, "error"));
    assert_string_equal(text_at(qb_json_get(c, "display"), "of"), "demo");
    assert_int_equal(strlen(text_at(row, "base_sha256")), 64);
    double value = qb_json_number(qb_json_get(row, "value"));
    qb_results_close(&r);
    return value;
}

/* Of two cases one is chosen, and it is measured from the model that the choice left out. */
static void test_run__a_selection_keeps_the_base_of_divergences(void **state) {
    (void)state;
    static const char *const how[] = {"\"%s\"", "{\"model\":\"%s\",\"base\":\"demo\"}"};
    char *quantized = scratch_path("published"), member[1400];
    outcome o = BENCH("quantize", "demo", "-m", "nf4", "-o", quantized, "-q");
    assert_worked(&o);
    outcome_free(&o);
    for (int i = 0; i < 2; i++) {
        snprintf(member, sizeof member, how[i], quantized); /* NOLINT: both are literals above */
        qb_str members = {0};
        qb_str_printf(&members,
                      "\"models\":[%s,\"demo\"],\"methods\":[{\"method\":\"none\"}],\"metrics\":["
                      "\"divergence\"],\"datasets\":[\"demo\"],\"protocols\":[\"gptq-64\"],\"max_windows\":2",
                      member);
        char *suite = suite_file("divergence.json", qb_str_get(&members));
        qb_str_free(&members);
        double all = divergence_of(suite, "*", "published/as-is/cpu"),
               alone = divergence_of(suite, "published/*", "published/as-is/cpu");
        assert_true(all > 0 && alone == all);
    }
}

/* A base that is not there is a row with its reason and a warning, and no end of the run. */
static void test_run__a_base_that_is_not_there_is_said(void **state) {
    (void)state;
    qb_str members = {0};
    qb_str_printf(&members,
                  "\"models\":[{\"model\":\"%s\",\"base\":\"gone\"},{\"model\":\"/nowhere/gone\",\"label\":"
                  "\"gone\"}],\"methods\":[{\"method\":\"none\"}],\"metrics\":[\"divergence\"],\"datasets\":["
                  "\"demo\"],\"protocols\":[\"gptq-64\"],\"max_windows\":2",
                  scratch_path("published"));
    char *suite = suite_file("gone.json", qb_str_get(&members)), *out = scratch_path("gone-result.json");
    qb_str_free(&members);
    outcome o = BENCH("run", "-s", suite, "-o", out, "--only", "published/*");
    assert_worked(&o);
    assert_non_null(strstr(o.err, "/nowhere/gone, which no case of this run measures, cannot be opened"));
    outcome_free(&o);
    qb_results r = opened(out);
    const qb_json *row =
        qb_results_metric(qb_results_case(&r, "published/as-is/cpu"), "kl_divergence", NULL, NULL);
    assert_string_equal(text_at(row, "status"), "skipped");
    assert_string_equal(text_at(row, "error"), "the model that it was made from could not be opened");
    qb_results_close(&r);
}

static void test_run__texts_of_one_name_are_two(void **state) {
    (void)state;
    static const char *const folders[] = {"a", "b"};
    for (int i = 0; i < 2; i++) {
        assert_ok(qb_make_dirs(scratch_path(folders[i])));
        char path[1200], text[4096];
        snprintf(path, sizeof path, "%s/t.txt", scratch_path(folders[i]));
        for (size_t k = 0; k < sizeof text; k++) text[k] = "the king of a land "[(k * (size_t)(i + 1)) % 19];
        assert_ok(qb_file_write_atomic(path, text, sizeof text));
    }
    qb_str members = {0};
    qb_str_printf(
        &members,
        "\"models\":[\"demo\"],\"methods\":[{\"method\":\"none\"}],\"metrics\":[\"perplexity\"],"
        "\"datasets\":[\"%s/a/t.txt\",\"%s/b/t.txt\"],\"protocols\":[\"gptq-128\"],\"max_windows\":2",
        scratch, scratch);
    char *suite = suite_file("texts.json", qb_str_get(&members)), *out = scratch_path("texts-result.json");
    qb_str_free(&members);
    outcome o = BENCH("run", "-s", suite, "-o", out);
    assert_worked(&o);
    assert_non_null(strstr(o.out, "a/t.txt"));
    assert_non_null(strstr(o.out, "b/t.txt"));
    assert_non_null(strstr(o.err, "perplexity a/t.txt gptq-128 "));
    outcome_free(&o);
    qb_results r = opened(out);
    const qb_json *c = qb_results_case(&r, "demo/f16/cpu");
    const qb_json *a = qb_results_metric(c, "perplexity", NULL, "a/t.txt"),
                  *b = qb_results_metric(c, "perplexity", NULL, "b/t.txt");
    assert_true(a && b);
    assert_string_not_equal(text_at(a, "data_sha256"), text_at(b, "data_sha256"));
    qb_results_close(&r);
}

/* Two windows that happen to agree are no proof of a small error: the tokens' stands where it is larger. */
static void test_run__two_windows_do_not_claim_certainty(void **state) {
    (void)state;
    static const char *const windows[] = {"2", "3", "7", "8"};
    for (size_t i = 0; i < 4; i++) {
        outcome o = BENCH("eval", "demo", "--dataset", "demo", "--protocol", "gptq-64", "--max-windows",
                          windows[i], "--json", "-q");
        assert_worked(&o);
        qb_json *doc = json_of(&o);
        const qb_json *row =
            qb_results_metric(qb_json_first(qb_json_get(doc, "cases")), "perplexity", NULL, NULL);
        double error = qb_json_number(qb_json_get(row, "stderr")),
               tokens = qb_json_number(qb_json_get(row, "stderr_tokens"));
        const char *from = text_at(row, "stderr_from");
        if (i == 3)
            assert_string_equal(from, "windows");
        else
            assert_true(error >= tokens * (1 - 1e-12));
        assert_true(strcmp(from, "tokens") != 0 || fabs(error / tokens - 1) < 1e-12);
        qb_json_free(doc);
        outcome_free(&o);
    }
}

/* One length stands for the speed in the line and in the table, and the line names it. */
static void test_run__the_line_shows_the_row_of_the_table(void **state) {
    (void)state;
    char *suite = suite_file(
        "line.json", "\"models\":[\"demo\"],\"methods\":[{\"method\":\"none\"}],\"metrics\":[\"speed\"],"
                     "\"speed\":{\"prefill\":[16],\"decode\":[4,128],\"repeat\":3,\"warmup\":0}");
    char *out = scratch_path("line-result.json");
    outcome o = BENCH("run", "-s", suite, "-o", out);
    assert_worked(&o);
    assert_non_null(strstr(o.err, "decode tg128@d0 b1 "));
    assert_null(strstr(o.err, "decode tg4@d0 b1 "));
    assert_non_null(strstr(o.out, "tg128@d0 b1"));
    assert_non_null(strstr(o.out, " ± "));
    outcome_free(&o);
    qb_results r = opened(out);
    const qb_json *c = qb_results_case(&r, "demo/f16/cpu");
    for (const qb_json *m = qb_json_first(qb_json_get(c, "metrics")); m; m = qb_json_next(m)) {
        bool above = qb_json_number(qb_json_get(m, "share_of_ceiling")) > 1;
        assert_int_equal(above, *text_at(m, "share_reason") != 0);
        if (!strcmp(text_at(m, "name"), "decode"))
            assert_true(qb_json_number(qb_json_get(m, "load_average")) >= 0);
    }
    qb_results_close(&r);
}

static const char *const two_cases =
    "\"models\":[\"demo\"],\"methods\":[{\"method\":\"none\"},{\"method\":\"rtn\",\"bits\":4,\"group_size\":"
    "128}],\"metrics\":[\"speed\",\"memory\",\"determinism\"],\"speed\":{\"prefill\":[16],\"decode\":[4],"
    "\"repeat\":4,\"rounds\":2,\"prompts\":\"default\",\"prompt_tokens\":2}";

static void assert_two_rounds(const char *path) {
    qb_results r = opened(path);
    static const char *const ids[] = {"demo/f16/cpu", "demo/rtn-4b-g128/cpu"};
    assert_int_equal(qb_results_unmeasured(&r), 0);
    for (int i = 0; i < 2; i++) {
        const qb_json *c = qb_results_case(&r, ids[i]);
        int done = 0, of = 0, decodes = 0, hashes = 0;
        assert_true(qb_results_rounds(c, &done, &of));
        assert_true(done == 2 && of == 2);
        for (const qb_json *m = qb_json_first(qb_json_get(c, "metrics")); m; m = qb_json_next(m)) {
            decodes += !strcmp(text_at(m, "name"), "decode");
            hashes += !strcmp(text_at(m, "name"), "logits_sha256");
            if (strcmp(text_at(m, "name"), "decode") != 0) continue;
            assert_int_equal(qb_json_count(qb_json_get(m, "samples")), 4);
            assert_int_equal(qb_json_count(qb_json_get(m, "round_medians")), 2);
        }
        assert_true(decodes == 1 && hashes == 1);
        const qb_json *latency = qb_results_metric(c, "latency", NULL, NULL);
        assert_true(qb_json_number(qb_json_get(latency, "prompts")) ==
                    (double)qb_json_count(qb_json_get(latency, "samples")));
        assert_true(qb_json_number(qb_json_get(latency, "prompts")) >= 4);
        assert_true(qb_json_number(qb_json_get(qb_results_metric(c, "peak_rss_bytes", NULL, NULL), "value")) >
                    0);
    }
    qb_results_close(&r);
}

/* Speeds come from rounds over all cases; a run that was killed between two rounds goes on with the second.
 */
static void test_run__speeds_are_measured_in_rounds(void **state) {
    (void)state;
    char *suite = suite_file("rounds.json", two_cases), *out = scratch_path("rounds-result.json");
    outcome o = BENCH("run", "-s", suite, "-o", out);
    assert_worked(&o);
    const char *first = strstr(o.err, "speed: round 1 of 2"), *second = strstr(o.err, "speed: round 2 of 2");
    if (!first || !second || second < first) fail_msg("%s", o.err);
    outcome_free(&o);
    assert_two_rounds(out);
    /* What a run leaves that was killed in the second round. */
    char *text;
    size_t n;
    assert_ok(qb_file_read(out, OUTPUT_MAX, &text, &n));
    char *done = strstr(text, "\"done\": 2");
    if (!done) done = strstr(text, "\"done\":\t2");
    if (!done) fail_msg("no rounds in the document");
    done[8] = '1';
    /* On a busy machine rows may stay noisy, and noisy rows decide nothing: here they all do. */
    for (char *noisy = text; (noisy = strstr(noisy, "\"noisy\":\ttrue"));)
        memcpy(noisy, "\"noisy\":false", 13);
    FILE *f = fopen(out, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    qb_free(text);
    qb_results r = opened(out);
    assert_int_equal(qb_results_unmeasured(&r), 1);
    qb_results_close(&r);
    o = BENCH("compare", out, out);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.out, "INCOMPLETE"));
    outcome_free(&o);
    o = BENCH("run", "-s", suite, "-o", out, "--resume");
    assert_worked(&o);
    assert_null(strstr(o.err, "round 1 of 2"));
    assert_non_null(strstr(o.err, "round 2 of 2"));
    outcome_free(&o);
    r = opened(out);
    assert_int_equal(qb_results_unmeasured(&r), 0);
    qb_results_close(&r);
    r = opened(out);
    const qb_json *device = qb_json_first(qb_json_get(qb_json_get(r.doc, "context"), "devices"));
    const qb_json *ceilings = qb_json_get(device, "ceilings");
    assert_true(qb_json_number(qb_json_get(ceilings, "read_bytes_per_s_after")) > 0);
    assert_true(qb_json_number(qb_json_get(ceilings, "gemm_flop_per_s_after")) > 0);
    qb_results_close(&r);
    /* Several runs a side, with an option behind them. */
    o = BENCH("compare", out, out, out, "--", out, out, "--json");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "\"old_runs\":\t3"));
    assert_non_null(strstr(o.out, "\"new_runs\":\t2"));
    assert_non_null(strstr(o.out, "\"old_processes\":\t6"));
    outcome_free(&o);
}

/* A checkpoint that goes with its case cannot wait for another round, which is said. */
static void test_run__without_a_cache_cases_come_one_after_another(void **state) {
    (void)state;
    char *suite = suite_file("rounds.json", two_cases), *out = scratch_path("rounds-private.json");
    outcome o = BENCH("run", "-s", suite, "-o", out, "--no-cache");
    assert_worked(&o);
    assert_non_null(strstr(o.err, "--no-cache: speeds are measured case after case, not in 2 rounds"));
    outcome_free(&o);
    qb_results r = opened(out);
    int done, of;
    const qb_json *c = qb_results_case(&r, "demo/rtn-4b-g128/cpu");
    assert_false(qb_results_rounds(c, &done, &of));
    const qb_json *m = qb_results_metric(c, "decode", NULL, NULL);
    assert_int_equal(qb_json_count(qb_json_get(m, "samples")), 4);
    assert_null(qb_json_get(m, "round_medians"));
    qb_results_close(&r);
}

/* Dense weights are called by their own type, whatever suites used to call them. */
static void test_run__a_model_is_called_what_it_is(void **state) {
    (void)state;
    char *packed = scratch_path("demo-nf4"), *dense = scratch_path("demo-f32");
    outcome o = BENCH("quantize", "demo", "--method", "nf4", "-o", packed, "-q");
    assert_worked(&o);
    outcome_free(&o);
    o = BENCH("convert", packed, "--to", "f32", "-o", dense, "-q");
    assert_worked(&o);
    outcome_free(&o);
    char members[3000];
    snprintf(members, sizeof members,
             "\"models\":[\"%s\",\"%s\"],\"methods\":[{\"method\":\"none\"}],\"metrics\":[\"memory\"]",
             packed, dense);
    char *suite = suite_file("names.json", members), *out = scratch_path("names-result.json");
    o = BENCH("run", "-s", suite, "-o", out);
    assert_worked(&o);
    assert_non_null(strstr(o.out, "F32"));
    assert_null(strstr(o.out, "F16"));
    assert_non_null(strstr(o.err, "demo-f32/f32"));
    outcome_free(&o);
    qb_results r = opened(out);
    assert_non_null(qb_results_case(&r, "demo-nf4/as-is/cpu"));
    assert_non_null(qb_results_case(&r, "demo-f32/f32/cpu"));
    qb_results_close(&r);
}

/* A limit on the size of files stands for the full disk: the begun document fits, a finished case does not.
 */
static void test_run__a_document_that_finds_no_room_is_not_lost(void **state) {
    (void)state;
    char *suite =
        suite_file("full.json", "\"models\":[\"demo\"],\"methods\":[{\"method\":\"none\"}],"
                                "\"metrics\":[\"speed\",\"memory\",\"determinism\"],"
                                "\"speed\":{\"prefill\":[8,16,24],\"decode\":[2,3,4],\"repeat\":3}");
    char *document = scratch_path("full-result.json"), *out = scratch_path("full-out"),
         *err = scratch_path("full-err");
    qb_str command = {0};
    qb_str_printf(
        &command,
        "exec bash -c 'set -o pipefail; { (trap \"\" XFSZ; ulimit -f 6; exec \"%s\" run -s \"%s\" -o \"%s\" "
        "2>&1 >&4) | cat >\"%s\"; } 4>&1 | cat >\"%s\"'", /* a pipeline waits for both readers */
        QB_BENCH_PROGRAM, suite, document, err, out);
    int status = system(qb_str_get(&command));
    qb_str_free(&command);
    char *printed, *said;
    size_t n, n_said;
    assert_ok(qb_file_read(out, OUTPUT_MAX, &printed, &n));
    assert_ok(qb_file_read(err, OUTPUT_MAX, &said, &n_said));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 1) fail_msg("exit %d: %s", status, said);
    if (!strstr(said, "is kept in memory") || !strstr(said, "printed to standard output"))
        fail_msg("%s", said);
    qb_results r;
    const char *json = strstr(printed, "{\n");
    assert_non_null(json);
    assert_ok(qb_results_parse(json, strlen(json), "standard output", &r));
    assert_string_equal(text_at(qb_results_case(&r, "demo/f16/cpu"), "status"), "ok");
    qb_results_close(&r);
    r = opened(document); /* as it was begun, whole */
    assert_int_equal(qb_results_unmeasured(&r), 1);
    qb_results_close(&r);
    qb_free(printed);
    qb_free(said);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run__a_method_that_cannot_start_is_a_skipped_row),
        cmocka_unit_test(test_run__a_selection_keeps_the_base_of_divergences),
        cmocka_unit_test(test_run__a_base_that_is_not_there_is_said),
        cmocka_unit_test(test_run__texts_of_one_name_are_two),
        cmocka_unit_test(test_run__two_windows_do_not_claim_certainty),
        cmocka_unit_test(test_run__the_line_shows_the_row_of_the_table),
        cmocka_unit_test(test_run__speeds_are_measured_in_rounds),
        cmocka_unit_test(test_run__without_a_cache_cases_come_one_after_another),
        cmocka_unit_test(test_run__a_model_is_called_what_it_is),
        cmocka_unit_test(test_run__a_document_that_finds_no_room_is_not_lost),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}
