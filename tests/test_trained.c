/* Trained models of other families than Llama (tests/golden/trained), by the program: ids and perplexity as
   transformers has them, rounding as plain rounding in PyTorch has it, and GPTQ not worse than rounding. */
#include "tests/program.h"

#include "results/results.h"

#include <math.h>

#define TRAINED QB_SOURCE_DIR "/tests/golden/trained/"

typedef struct trained {
    const char *name;
    qb_json *reference;
} trained;

static trained trained_open(const char *name) {
    trained t = {.name = name};
    char path[512];
    snprintf(path, sizeof path, TRAINED "%s/reference.json", name);
    assert_ok(qb_json_read(path, 1 << 20, &t.reference));
    return t;
}

static double number(const qb_json *object, const char *key) {
    double x = qb_json_number(qb_json_get(object, key));
    if (!(x > 0)) fail_msg("no number %s", key);
    return x;
}

static void check_ids(const trained *t) {
    char dir[512];
    snprintf(dir, sizeof dir, TRAINED "%s", t->name);
    outcome o = BENCH("tokenize", dir, "--file", TRAINED "text.txt", "--json");
    assert_worked(&o);
    qb_json *got = json_of(&o);
    assert_int_equal((int64_t)number(got, "count"), (int64_t)number(t->reference, "n_tokens"));
    assert_string_equal(qb_json_string(qb_json_get(got, "sha256")),
                        qb_json_string(qb_json_get(t->reference, "ids_sha256")));
    qb_json_free(got);
    outcome_free(&o);
}

/* Calibrated on WikiText-2's training split where the shared material is, which the models were trained on.
 */
static qb_results run_methods(const trained *t, const char *data) {
    char members[2048], file[64];
    const char *calibrated = data ? ",{\"method\":\"gptq\",\"bits\":[4,3],\"group_size\":128,"
                                    "\"calibration\":\"wikitext2\",\"samples\":64,\"seqlen\":256}"
                                  : "";
    snprintf(
        members, sizeof members,
        "{\"name\":\"t\",\"summary\":\"s\",\"models\":[\"" TRAINED "%s\"],\"methods\":[{\"method\":\"none\"},"
        "{\"method\":\"rtn\",\"bits\":[4,3],\"group_size\":128}%s],\"datasets\":[\"" TRAINED "text.txt\"],"
        "\"protocols\":[\"gptq-256\"],\"metrics\":[\"perplexity\"]}",
        t->name, calibrated);
    snprintf(file, sizeof file, "%s-suite.json", t->name);
    char *suite = scratch_path(file);
    assert_ok(qb_file_write_atomic(suite, members, strlen(members)));
    snprintf(file, sizeof file, "%s-result.json", t->name);
    char *out = scratch_path(file);
    outcome o = data ? BENCH("run", "-s", suite, "-o", out, "-q", "-d", data)
                     : BENCH("run", "-s", suite, "-o", out, "-q");
    assert_worked(&o);
    outcome_free(&o);
    qb_results r;
    assert_ok(qb_results_open(out, &r));
    return r;
}

static double perplexity(const qb_results *r, const trained *t, const char *method) {
    char id[128];
    snprintf(id, sizeof id, "%s/%s/cpu", t->name, method);
    const qb_json *c = qb_results_case(r, id);
    if (!c) fail_msg("no case %s", id);
    const qb_json *row = qb_json_first(qb_json_get(c, "metrics"));
    assert_string_equal(qb_json_string(qb_json_get(row, "name")), "perplexity");
    return number(row, "value");
}

static void assert_near(const char *what, double got, double expected, double relative) {
    double off = fabs(got / expected - 1);
    print_message("%s: %.6f, reference %.6f, off by %.1e\n", what, got, expected, off);
    if (!(off <= relative)) fail_msg("%s is off by more than %.1e", what, relative);
}

static void check(const char *name) {
    trained t = trained_open(name);
    const qb_json *rounded = qb_json_get(t.reference, "rounded_perplexity");
    const char *root = getenv("QB_SHARED");
    char data[512], what[64];
    snprintf(data, sizeof data, "%s/data", root ? root : QB_SHARED_DIR);
    bool calibrated = qb_path_exists(data);
    check_ids(&t);
    qb_results r = run_methods(&t, calibrated ? data : NULL);
    snprintf(what, sizeof what, "%s f16", name);
    assert_near(what, perplexity(&r, &t, "f16"), number(t.reference, "perplexity"), 1e-4);
    /* four digits are kept, and our scales are float16 */
    for (int bits = 3; bits <= 4; bits++) {
        char rtn[32], gptq[32], key[4];
        snprintf(key, sizeof key, "%d", bits);
        snprintf(rtn, sizeof rtn, "rtn-%db-g128", bits);
        snprintf(gptq, sizeof gptq, "gptq-%db-g128", bits);
        snprintf(what, sizeof what, "%s %s", name, rtn);
        double plain = perplexity(&r, &t, rtn);
        assert_near(what, plain, number(rounded, key), 5e-4);
        if (!calibrated) continue;
        double better = perplexity(&r, &t, gptq);
        print_message("%s %s: %.6f\n", name, gptq, better);
        if (!(better <= plain)) fail_msg("%s: GPTQ %.4f, RTN %.4f at %d bits", name, better, plain, bits);
    }
    qb_results_close(&r);
    qb_json_free(t.reference);
    if (calibrated) return;
    print_message("skipped: %s is absent, GPTQ was not calibrated\n", data);
    skip();
}

static void test_trained__qwen2(void **state) {
    (void)state;
    check("qwen2");
}

static void test_trained__bloom(void **state) {
    (void)state;
    check("bloom");
}

static void test_trained__opt(void **state) {
    (void)state;
    check("opt");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trained__qwen2),
        cmocka_unit_test(test_trained__bloom),
        cmocka_unit_test(test_trained__opt),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}
