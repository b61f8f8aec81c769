/* The cache of quantized checkpoints: what is damaged is made anew, what is in use stays, what would differ
 * has a key of its own. */
#include "tests/support.h"

#include "base/json.h"
#include "base/lock.h"
#include "base/str.h"
#include "kernels/cpu/cpu.h"
#include "results/results.h"

#include <sys/wait.h>

static char *scratch;

static int shell(const char *command) {
    qb_str line = {0};
    qb_str_printf(&line, "cd '%s' && { %s; }", scratch, command);
    assert_false(line.failed);
    int status = system(line.text);
    qb_str_free(&line);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Runs the suite with the given words before and after; whether the case was cached. Standard error lands in
 * err. */
static bool run(const char *before, const char *after) {
    qb_str line = {0};
    qb_str_printf(&line, "rm -f r.json; %s '%s' run --suite suite.json --synthetic -o r.json %s >out 2>err",
                  before, QB_BENCH_PROGRAM, after);
    int code = shell(qb_str_get(&line));
    qb_str_free(&line);
    if (code != 0) {
        (void)shell("cat err >&2");
        fail_msg("bench run %s: exit %d", after, code);
    }
    char *path = qb_path_join(scratch, "r.json");
    qb_results r;
    assert_ok(qb_results_open(path, &r));
    const qb_json *c = qb_results_case(&r, "tiny/rtn-4b-row/cpu");
    assert_non_null(c);
    bool cached = qb_json_true(qb_json_get(qb_json_get(c, "quantization"), "cached"));
    qb_results_close(&r);
    qb_free(path);
    return cached;
}

static void expect_entries(int n) {
    char command[200];
    snprintf(
        command, sizeof command,
        "test $(ls -d cache/quantized/*/ 2>/dev/null | wc -l) = %d || { ls -la cache/quantized; false; }", n);
    assert_int_equal(shell(command), 0);
}

static int make_scratch(void **state) {
    (void)state;
    scratch = scratch_make();
    char *cache = qb_path_join(scratch, "cache");
    setenv("BENCH_CACHE", cache, 1);
    qb_free(cache);
    return shell(
        "mkdir tiny && printf '%s' '{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\","
        "\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
        "\"num_key_value_heads\":2,\"vocab_size\":96,\"max_position_embeddings\":64,"
        "\"rms_norm_eps\":1e-5,\"rope_theta\":10000,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,"
        "\"torch_dtype\":\"float16\"}' >tiny/config.json && "
        "printf '%s' "
        "'{\"name\":\"t\",\"summary\":\"s\",\"models\":[\"./tiny\"],\"metrics\":[\"memory\"],"
        "\"datasets\":[\"wikitext2\"],\"protocols\":[\"gptq-64\"],"
        "\"methods\":[{\"method\":\"rtn\",\"bits\":4,\"group_size\":-1}]}' >suite.json");
}
static int remove_scratch(void **state) {
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static void test_cache__a_hit_is_verified(void **state) {
    (void)state;
    static const struct {
        const char *damage, *said;
    } rows[] = {
        /* Size and times stay as they were: only the contents tell. */
        {"f=$(ls cache/quantized/*/model.safetensors); touch -r $f t; printf x | dd of=$f bs=1 seek=9000 "
         "conv=notrunc 2>&-; "
         "touch -r t $f",
         "its weights are not those that were written"},
        {"truncate -s 5000 cache/quantized/*/model.safetensors", "model.safetensors"},
        {"sed -i s/10000/10001/ cache/quantized/*/config.json", "a file beside its weights was changed"},
        {"rm cache/quantized/*/config.json", "config.json"},
        {"rm cache/quantized/*/cache.json", "cache.json"},
        {"printf '{' >$(ls cache/quantized/*/cache.json)", "cache.json"},
        {"sed -i 's/\\(program.*\\)$/\\1/; s/memory/m/; s/row/rov/; s/rtn/rtm/' cache/quantized/*/cache.json",
         "of another model, method, program or machine"},
        {"printf '{' >$(ls cache/quantized/*/quantize_report.json)", "a file beside its weights was changed"},
    };
    assert_false(run("", ""));
    assert_true(run("", ""));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char check[300];
        assert_int_equal(shell(rows[i].damage), 0);
        if (run("", "")) fail_msg("believed after: %s", rows[i].damage);
        snprintf(check, sizeof check,
                 "grep -q 'is dropped and made anew: .*%s' err || { cat err >&2; false; }", rows[i].said);
        assert_int_equal(shell(check), 0);
        assert_true(run("", ""));
        expect_entries(1);
    }
}

static void test_cache__no_cache_reads_nothing_and_leaves_nothing(void **state) {
    (void)state;
    (void)run("", "");
    assert_true(run("", ""));
    assert_false(run("", "--no-cache"));
    expect_entries(1);
    assert_int_equal(shell("test -z \"$(ls cache/quantized | grep -E 'tmp|partial|lock')\""), 0);
}

static void test_cache__the_key_holds_the_instruction_set(void **state) {
    (void)state;
    assert_int_equal(shell("rm -rf cache"), 0);
    (void)run("", "");
    expect_entries(1);
    if (!strcmp(qb_cpu_simd(), "generic")) {
        print_message("skipped: this CPU has one instruction set only\n");
        skip();
    }
    assert_false(run("BENCH_SIMD=generic", ""));
    assert_true(run("BENCH_SIMD=generic", ""));
    assert_true(run("", ""));
    expect_entries(2);
}

static void test_cache__what_is_in_use_is_not_removed(void **state) {
    (void)state;
    assert_int_equal(shell("rm -rf cache"), 0);
    (void)run("", "");
    assert_int_equal(shell("ls -d cache/quantized/*/ | head -1 | xargs basename >name"), 0);
    char *text, *name = qb_path_join(scratch, "name");
    size_t n;
    assert_ok(qb_file_read(name, 100, &text, &n));
    text[strcspn(text, "\n")] = 0;
    char entry[1200];
    snprintf(entry, sizeof entry, "%s/cache/quantized/%s", scratch, text);
    qb_file_lock lock;
    qb_lock_answer answer;
    assert_ok(qb_file_lock_try(entry, QB_LOCK_SHARED, &lock, &answer));
    assert_int_equal(answer, QB_LOCK_TAKEN);
    (void)run("", "--cache-gb 0.000000001");
    assert_true(qb_path_exists(entry));
    /* Damaged while another measures it: not removed below that one's feet, but not used either. */
    assert_int_equal(shell("rm cache/quantized/*/config.json"), 0);
    assert_false(run("", ""));
    assert_true(qb_path_exists(entry));
    qb_file_unlock(&lock);
    /* Another makes it: this run makes its own and does not wait. */
    assert_ok(qb_file_lock_try(entry, QB_LOCK_EXCLUSIVE, &lock, &answer));
    assert_false(run("", ""));
    assert_int_equal(shell("grep -q 'makes its own' err"), 0);
    qb_file_unlock(&lock);
    (void)run("", "--cache-gb 0.000000001");
    assert_false(qb_path_exists(entry));
    qb_free(text);
    qb_free(name);
}

/* Three nodes that start at once on one folder: every case of each is ok. */
static void test_cache__runs_side_by_side_do_not_disturb_each_other(void **state) {
    (void)state;
    qb_str line = {0};
    for (int round = 0; round < 3; round++) {
        qb_str_free(&line);
        qb_str_printf(
            &line,
            "rm -rf cache; for i in 1 2 3; do '%s' run --suite suite.json --synthetic %s -o r$i.json "
            ">o$i 2>e$i & eval p$i=$!; done; wait $p1 && wait $p2 && wait $p3 || { cat e1 e2 e3 >&2; false; "
            "}",
            QB_BENCH_PROGRAM, round == 1 ? "--no-cache" : "");
        assert_int_equal(shell(qb_str_get(&line)), 0);
        assert_int_equal(shell("test -z \"$(ls cache/quantized | grep -E 'tmp|partial|lock')\""), 0);
    }
    qb_str_free(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache__a_hit_is_verified),
        cmocka_unit_test(test_cache__no_cache_reads_nothing_and_leaves_nothing),
        cmocka_unit_test(test_cache__the_key_holds_the_instruction_set),
        cmocka_unit_test(test_cache__what_is_in_use_is_not_removed),
        cmocka_unit_test(test_cache__runs_side_by_side_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
