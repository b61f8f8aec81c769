/* quantize, convert, inspect, diff and the model card as a user meets them: exit codes, what is printed. */
#include "tests/support.h"

#include "base/json.h"
#include "base/str.h"

#include <sys/wait.h>

static char *scratch;

/* Runs "bench ARGUMENTS" in the scratch folder. Standard output or error land in `text` (qb_free). */
static int bench(const char *arguments, bool error, char **text) {
    qb_str line = {0};
    size_t n;
    qb_str_printf(&line, "cd '%s' && '%s' %s >out 2>err", scratch, QB_BENCH_PROGRAM, arguments);
    assert_false(line.failed);
    int status = system(line.text);
    qb_str_free(&line);
    char *path = qb_path_join(scratch, error ? "err" : "out");
    assert_ok(qb_file_read(path, 16 << 20, text, &n));
    qb_free(path);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void assert_prints(const char *arguments, int code, const char *needle) {
    char *out, *err;
    int found = bench(arguments, false, &out);
    if (found != code || !strstr(out, needle)) {
        (void)bench(arguments, true, &err);
        fail_msg("bench %s: exit %d, \"%s\" \"%s\"; expected exit %d and \"%s\"", arguments, found, out, err,
                 code, needle);
    }
    qb_free(out);
}

/* Nothing on standard output, one line on standard error that holds the needle. */
static void assert_refused(const char *arguments, int code, const char *needle) {
    char *err;
    int found = bench(arguments, true, &err);
    const char *line = strstr(err, "bench: ");
    if (found != code || !line || !strstr(line, needle) || strchr(line, '\n') != line + strlen(line) - 1)
        fail_msg("bench %s: exit %d, \"%s\"; expected exit %d and \"%s\"", arguments, found, err, code,
                 needle);
    qb_free(err);
}

static int make_scratch(void **state) {
    (void)state;
    scratch = scratch_make();
    char *cache = qb_path_join(scratch, "cache"), *model = qb_path_join(scratch, "model");
    setenv("BENCH_CACHE", cache, 1);
    int made = symlink(QB_SOURCE_DIR "/bench/demo", model);
    qb_free(cache);
    qb_free(model);
    return made;
}
static int remove_scratch(void **state) {
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static void test_cli__converts_and_compares(void **state) {
    (void)state;
    assert_prints("quantize model -m rtn --bits 4 --group-size 32 -o w4 -q", 0, "28 modules");
    assert_prints("quantize model -m rtn --bits 4 --group-size 32 --format gptq_v2 -o v2 -q", 0,
                  "28 modules");
    assert_prints("diff w4 v2", 0, "equal: 28 modules and 11 other tensors hold the same numbers");
    assert_prints("convert w4 --to f32 -o f32 -q", 0, "every weight is the same number");
    assert_prints("convert w4 --to f16 -o f16 -q", 0, "rounded once from float32, --to f32 is exact");
    assert_prints("diff w4 f32 --json", 0, "\"equal\":\ttrue");
    assert_prints("diff w4 f16", 1, "different: 28 of 28 modules, 0 of 11 other tensors");
    assert_prints("diff model w4", 1, "relative error");
    assert_prints("inspect w4", 0, "stored minus one (v1), as labelled");
    assert_prints("inspect w4 --json", 0, "\"sound\":\ttrue");
    assert_prints("quantize model -m rtn --bits 3 --group-size 32 --no-sym -o a3 -q", 0, "28 modules");
    assert_prints("inspect a3", 0, "asymmetric zero points cannot confirm it");
}

static void test_cli__refuses_what_cannot_be_kept(void **state) {
    (void)state;
    assert_refused("convert model --to gptq -o no", 1, "is dense: making gptq of it would lose information");
    assert_refused("convert model --to gptk -o no", 2, "no checkpoint format 'gptk'; known: ");
    assert_refused("convert model -o no", 2, "--to is missing");
    assert_refused("convert model --to f32", 2, "--output is missing");
    assert_refused("quantize model -m rtn --no-sym --format gptq -o no", 2, "write gptq_v2");
    assert_refused("quantize model -m nf4 --format gptq -o no", 1, "hold affine groups, not nf4");
    assert_refused("quantize model -m rtn --format gptk -o no", 2, "did you mean gptq?");
    assert_refused("diff model", 2, "B is missing");
    assert_refused("inspect nowhere", 1, "nowhere");
}

static void test_cli__inspect_reports_damage_with_exit_1(void **state) {
    (void)state;
    char *text, *path = qb_path_join(scratch, "broken/config.json");
    size_t n;
    assert_prints("quantize model -m rtn --bits 4 --group-size 32 -o broken -q", 0, "28 modules");
    assert_ok(qb_file_read(path, 1 << 20, &text, &n));
    /* Groups of 64 do not fit the scales that are there. */
    char *at = strstr(text, "\"group_size\":\t32");
    assert_non_null(at);
    memcpy(at, "\"group_size\":\t64", 16);
    assert_ok(qb_file_write_atomic(path, text, n));
    assert_prints("inspect broken", 1, "damaged: model.layers.0.self_attn.q_proj");
    assert_prints("inspect broken --json", 1, "\"sound\":\tfalse");
    qb_free(text);
    qb_free(path);
}

static void test_cli__the_card_says_how_and_how_good(void **state) {
    (void)state;
    char *card, *path = qb_path_join(scratch, "carded/README.md");
    size_t n;
    assert_prints("quantize model -m rtn --bits 4 --group-size 32 -o carded -q", 0, "28 modules");
    assert_ok(qb_file_read(path, 1 << 20, &card, &n));
    static const char *const facts[] = {"bench quantize model -m rtn --bits 4 --group-size 32 -o carded -q",
                                        "| bits | 4 |", "| SHA-256 of its weights | ",
                                        "| perplexity | not measured"};
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++)
        if (!strstr(card, facts[i])) fail_msg("no \"%s\" in %s", facts[i], card);
    qb_free(card);
    static const char *const evals[] = {
        "eval carded --dataset demo --protocol gptq-128 --max-windows 2 --card -q",
        "eval carded --dataset demo --protocol gptq-128 --max-windows 3 --card -q",
        "eval carded --dataset demo --protocol llamacpp-128 --max-windows 2 --card -q"};
    for (size_t i = 0; i < 3; i++) assert_prints(evals[i], 0, "perplexity ");
    assert_ok(qb_file_read(path, 1 << 20, &card, &n));
    assert_null(strstr(card, "not measured"));
    assert_null(strstr(card, "(2 windows, 254")); /* replaced by the second */
    assert_non_null(strstr(card, "| perplexity, demo, gptq-128 | "));
    assert_non_null(strstr(card, "(3 windows, "));
    assert_non_null(strstr(card, "| perplexity, demo, llamacpp-128 | "));
    qb_free(card);
    qb_free(path);
    assert_refused("eval model --dataset demo --protocol gptq-128 --max-windows 1 --card -q", 1,
                   "is it the card that bench wrote?");
}

/* Replaces the first `from` in a file of the scratch folder by `to`, of the same length. */
static void edit(const char *file, const char *from, const char *to) {
    char *text, *path = qb_path_join(scratch, file);
    size_t n;
    assert_ok(qb_file_read(path, 1 << 20, &text, &n));
    char *at = strstr(text, from);
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    assert_ok(qb_file_write_atomic(path, text, n));
    qb_free(text);
    qb_free(path);
}

static void in_scratch(const char *command) {
    qb_str line = {0};
    qb_str_printf(&line, "cd '%s' && %s", scratch, command);
    assert_int_equal(system(qb_str_get(&line)), 0);
    qb_str_free(&line);
}

static void test_cli__never_replaces_the_model_that_it_reads(void **state) {
    (void)state;
    in_scratch(
        "cp -rL model own && chmod -R u+w own && ln -s own alias && mkdir own/sub && cp -r own/*.* own/sub");
    static const char *const outputs[] = {"own", "own/", "./sub/../own", "alias"};
    in_scratch("mkdir sub");
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) {
        char line[128];
        snprintf(line, sizeof line, "quantize own -m rtn --force -o %s -q", outputs[i]);
        assert_refused(line, 2, "holds the model that is read");
        snprintf(line, sizeof line, "convert own --to f32 --force -o %s -q", outputs[i]);
        assert_refused(line, 2, "holds the model that is read");
    }
    assert_refused("convert own/sub --to f32 --force -o own -q", 2, "holds the model that is read");
    assert_prints("diff model own", 0, "equal: ");
}

static void test_cli__leaves_a_folder_alone_that_has_the_name_of_a_partial_one(void **state) {
    (void)state;
    in_scratch("mkdir mine.partial && echo precious >mine.partial/notes.txt");
    assert_refused("quantize model -m rtn -o mine -q", 1, "was not left by an interrupted run");
    in_scratch("grep -q precious mine.partial/notes.txt");
}

static void test_cli__tensors_beside_the_linears_must_fit_the_config(void **state) {
    (void)state;
    assert_prints("quantize model -m rtn --bits 4 --group-size 32 -o beside -q", 0, "28 modules");
    edit("beside/config.json", "\"vocab_size\":\t1024", "\"vocab_size\":\t1000");
    assert_prints(
        "inspect beside", 1,
        "damaged: model.embed_tokens.weight: beside: tensor model.embed_tokens.weight: expected F16 "
        "[1000, 128], found F16 [1024, 128]");
    assert_refused("convert beside --to f32 -o no -q", 1, "expected F16 [1000, 128], found F16 [1024, 128]");
    in_scratch("test ! -e no");
}

static void test_cli__names_what_is_no_checkpoint(void **state) {
    (void)state;
    in_scratch(
        "cp -rL model pointer && chmod -R u+w pointer && printf 'version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:0\nsize 9\n' >pointer/model.safetensors");
    assert_refused("inspect pointer", 1, "is a Git LFS pointer");
    in_scratch("cp -rL model pipe && chmod -R u+w pipe && rm pipe/config.json && mkfifo pipe/config.json");
    assert_refused("inspect pipe", 1, "pipe/config.json");
}

static void test_cli__inspect_and_eval_agree_on_bits_per_weight(void **state) {
    (void)state;
    /* Blocks of llama.cpp say less than a neutral form of them would take: 6.5625 bits for Q6_K. */
    assert_prints("inspect '" QB_SOURCE_DIR "/tests/golden/gguf/k.gguf'", 0, "bits per weight  4.682291667");
    assert_prints("inspect '" QB_SOURCE_DIR "/tests/golden/gguf/k.gguf'", 0, "  6.5625  ");
    assert_prints("eval '" QB_SOURCE_DIR "/tests/golden/gguf/k.gguf' --dataset model/test.txt --protocol "
                  "gptq-32 --max-windows 1 --json -q",
                  0, "\"bits_per_weight\":\t4.68229166666");
}

/* The tokenizer inside a GGUF file becomes tokenizer.json, for both commands that write a directory from one.
 */
static void test_cli__a_directory_made_from_gguf_has_its_tokenizer(void **state) {
    (void)state;
    static const char *const made[] = {"convert t.gguf --to f32 -o of-gguf -q",
                                       "quantize t.gguf --method nf4 -o of-gguf -q"};
    char *link = qb_path_join(scratch, "t.gguf"), *before, *after;
    assert_int_equal(symlink(QB_SOURCE_DIR "/tests/golden/families/llama-linear/model.gguf", link), 0);
    assert_int_equal(bench("tokenize t.gguf --text 'abc<s>xyz' --ids", false, &before), 0);
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        assert_prints(made[i], 0, "");
        assert_int_equal(bench("tokenize of-gguf --text 'abc<s>xyz' --ids", false, &after), 0);
        assert_string_equal(after, before);
        qb_free(after);
        /* which transformers asks for */
        in_scratch("grep -q '\"model_type\":.*\"llama\"' of-gguf/config.json && rm -r of-gguf");
    }
    qb_free(before);
    qb_free(link);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cli__converts_and_compares),
        cmocka_unit_test(test_cli__a_directory_made_from_gguf_has_its_tokenizer),
        cmocka_unit_test(test_cli__refuses_what_cannot_be_kept),
        cmocka_unit_test(test_cli__inspect_reports_damage_with_exit_1),
        cmocka_unit_test(test_cli__the_card_says_how_and_how_good),
        cmocka_unit_test(test_cli__never_replaces_the_model_that_it_reads),
        cmocka_unit_test(test_cli__leaves_a_folder_alone_that_has_the_name_of_a_partial_one),
        cmocka_unit_test(test_cli__tensors_beside_the_linears_must_fit_the_config),
        cmocka_unit_test(test_cli__names_what_is_no_checkpoint),
        cmocka_unit_test(test_cli__inspect_and_eval_agree_on_bits_per_weight),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
