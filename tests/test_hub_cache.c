/* The hub's cache on disk: what Python's tools leave is found, and what is written lies as theirs does. */
#include "base/file.h"
#include "hub/cache.h"
#include "model/model.h"
#include "tests/program.h"

#include <sys/stat.h>

#define COMMIT_A "0123456789abcdef0123456789abcdef01234567"
#define COMMIT_B "89abcdef0123456789abcdef0123456789abcdef"
#define ETAG     "da39a3ee5e6b4b0d3255bfef95601890afd80709"

static void put(const char *path, const char *text) {
    char *dir = qb_path_dir(path);
    assert_ok(qb_make_dirs(dir));
    assert_ok(qb_file_write_atomic(path, text, strlen(text)));
    qb_free(dir);
}

/* Every variable that says where the cache lies. */
static void clear_variables(void) {
    static const char *const names[] = {"HF_HUB_CACHE",
                                        "HUGGINGFACE_HUB_CACHE",
                                        "HF_HOME",
                                        "XDG_CACHE_HOME",
                                        "HF_TOKEN",
                                        "HUGGING_FACE_HUB_TOKEN",
                                        "HF_TOKEN_PATH",
                                        "HF_HUB_DISABLE_IMPLICIT_TOKEN",
                                        "HF_ENDPOINT",
                                        "HF_HUB_OFFLINE",
                                        "HF_HUB_DISABLE_SYMLINKS"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unsetenv(names[i]);
}

static void test_hub__the_cache_is_where_the_variables_say(void **state) {
    (void)state;
    static const struct {
        const char *name, *value, *expected;
    } rows[] = {{"HOME", "/h", "/h/.cache/huggingface/hub"},
                {"XDG_CACHE_HOME", "/x", "/x/huggingface/hub"},
                {"HF_HOME", "~/f", "/h/f/hub"},
                {"HUGGINGFACE_HUB_CACHE", "$HOME/old", "/h/old"},
                {"HF_HUB_CACHE", "/a${HOME}/$NOT_SET_HERE/c", "/a/h/$NOT_SET_HERE/c"}};
    char *home = qb_strdup(getenv("HOME") ? getenv("HOME") : "/");
    clear_variables();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) { /* each wins over those before */
        setenv(rows[i].name, rows[i].value, 1);
        char *dir = qb_hub_cache_dir();
        assert_string_equal(dir, rows[i].expected);
        qb_free(dir);
    }
    clear_variables();
    setenv("HOME", home, 1);
    qb_free(home);
}

static void test_hub__endpoint_token_and_switches(void **state) {
    (void)state;
    qb_hub hub;
    clear_variables();
    setenv("HF_HOME", scratch_path("home"), 1);
    assert_ok(qb_hub_open(&hub));
    assert_string_equal(hub.endpoint, "https://huggingface.co");
    assert_null(hub.token);
    assert_false(hub.offline);
    qb_hub_free(&hub);

    put(scratch_path("home/token"), "hf_from_file\n");
    setenv("HF_ENDPOINT", "http://127.0.0.1:9//", 1);
    setenv("HF_HUB_OFFLINE", "yes", 1);
    assert_ok(qb_hub_open(&hub));
    assert_string_equal(hub.endpoint, "http://127.0.0.1:9");
    assert_string_equal(hub.token, "hf_from_file");
    assert_true(hub.offline);
    qb_hub_free(&hub);

    setenv("HF_TOKEN", " hf_own \r\n", 1);
    assert_ok(qb_hub_open(&hub));
    assert_string_equal(hub.token, "hf_own");
    qb_hub_free(&hub);
    setenv("HF_TOKEN", "hf_a\tb", 1); /* would be another header */
    assert_fails(qb_hub_open(&hub), QB_ERR_USAGE, "HF_TOKEN holds a character that no token has");
    setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1", 1);
    assert_ok(qb_hub_open(&hub));
    assert_null(hub.token);
    qb_hub_free(&hub);
    setenv("HF_ENDPOINT", "file:///etc", 1);
    assert_fails(qb_hub_open(&hub), QB_ERR_USAGE, "HF_ENDPOINT");
    clear_variables();
}

static void test_hub__names(void **state) {
    (void)state;
    static const char *const ids[] = {"gpt2", "facebook/opt-125m", "a_b/c.d-e"},
                             *const no_ids[] = {"",     "/x",      "x/",    "a/b/c", "a--b/c", "a/b..c",
                                                "-a/b", "a/b.git", "a b/c", "../x",  "a/.b"},
                             *const paths[] = {"config.json", "a/b/c.bin", "wiki..raw"},
                             *const no_paths[] = {"",       "/a", "a/",    "a//b", "../a",
                                                  "a/../b", ".",  "a/./b", "a\nb", "a\\b"};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) assert_true(qb_hub_is_id(ids[i]));
    for (size_t i = 0; i < sizeof no_ids / sizeof no_ids[0]; i++) assert_false(qb_hub_is_id(no_ids[i]));
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) assert_true(qb_hub_is_path(paths[i]));
    for (size_t i = 0; i < sizeof no_paths / sizeof no_paths[0]; i++)
        assert_false(qb_hub_is_path(no_paths[i]));
    assert_true(qb_hub_is_commit(COMMIT_A));
    assert_false(qb_hub_is_commit("main"));
    assert_true(qb_hub_is_etag(ETAG));
    assert_false(qb_hub_is_etag("../x"));
    qb_hub_repo repo = {QB_HUB_MODEL, "a/b", "../../x"};
    assert_fails(qb_hub_check_repo(&repo), QB_ERR_USAGE, "is no revision");

    char name[32];
    assert_true(qb_hub_name_of("/c/models--facebook--opt-125m/snapshots/" COMMIT_A, name, sizeof name));
    assert_string_equal(name, "opt-125m");
    assert_true(qb_hub_name_of("/c/models--gpt2/snapshots/1", name, sizeof name));
    assert_string_equal(name, "gpt2");
    assert_false(qb_hub_name_of("/c/gpt2", name, sizeof name));
    assert_false(qb_hub_name_of("/c/snapshots/1", name, sizeof name));
}

/* ---- writing, then reading ---- */

static char *cache; /* of the tests below */
static const qb_hub_repo repo = {QB_HUB_MODEL, "org/tiny", NULL};

static void test_hub__written_as_python_writes(void **state) {
    (void)state;
    qb_hub hub = {.cache = cache};
    bool there;
    assert_ok(qb_hub_make_folders(cache, &repo));
    char *blob = qb_hub_blob(cache, &repo, ETAG), target[64] = "", pointer[1024];
    put(blob, "{}");
    assert_ok(qb_hub_link(&hub, &repo, COMMIT_A, "config.json", ETAG));
    assert_ok(qb_hub_link(&hub, &repo, COMMIT_A, "a/b/c.json", ETAG));
    assert_ok(qb_hub_link(&hub, &repo, COMMIT_A, "a/b/c.json", ETAG)); /* again */
    snprintf(pointer, sizeof pointer, "%s/models--org--tiny/snapshots/" COMMIT_A "/a/b/c.json", cache);
    assert_true(readlink(pointer, target, sizeof target - 1) > 0);
    assert_string_equal(target, "../../../../blobs/" ETAG);
    assert_ok(qb_hub_has(cache, &repo, COMMIT_A, "a/b/c.json", &there));
    assert_true(there);
    assert_ok(qb_hub_has(cache, &repo, COMMIT_A, "other.json", &there));
    assert_false(there);

    hub.copies = true;
    assert_ok(qb_hub_link(&hub, &repo, COMMIT_B, "config.json", ETAG));
    snprintf(pointer, sizeof pointer, "%s/models--org--tiny/snapshots/" COMMIT_B "/config.json", cache);
    struct stat info;
    assert_int_equal(lstat(pointer, &info), 0);
    assert_true(S_ISREG(info.st_mode));

    assert_ok(qb_hub_set_ref(cache, &repo, COMMIT_A));
    qb_hub_repo pull = {QB_HUB_MODEL, "org/tiny", "refs/pr/1"};
    assert_ok(qb_hub_set_ref(cache, &pull, COMMIT_B));
    assert_ok(qb_hub_set_absent(cache, &repo, COMMIT_A, "a/none.json"));
    snprintf(pointer, sizeof pointer, "%s/models--org--tiny/.no_exist/" COMMIT_A "/a/none.json", cache);
    assert_true(qb_path_exists(pointer));
    snprintf(pointer, sizeof pointer, "%s/CACHEDIR.TAG", cache);
    assert_true(qb_path_exists(pointer));
    qb_free(blob);
}

static void assert_snapshot(const char *revision, const char *commit) {
    qb_hub_repo asked = {QB_HUB_MODEL, "org/tiny", revision};
    char *dir, found[QB_HUB_COMMIT];
    assert_ok(qb_hub_snapshot(cache, &asked, &dir, found));
    assert_string_equal(found, commit);
    assert_int_equal(dir != NULL, *commit != 0);
    qb_free(dir);
}

static void test_hub__revisions_lead_to_snapshots(void **state) {
    (void)state;
    assert_snapshot(NULL, COMMIT_A);
    assert_snapshot("main", COMMIT_A);
    assert_snapshot("refs/pr/1", COMMIT_B);
    assert_snapshot(COMMIT_B, COMMIT_B);
    assert_snapshot("v2", "");
    assert_snapshot("ffffffffffffffffffffffffffffffffffffffff", "");
}

static void test_hub__list_models_shows_the_cache(void **state) {
    (void)state;
    setenv("HF_HUB_CACHE", cache, 1);
    outcome o = BENCH("list", "models", "--json");
    assert_worked(&o);
    qb_json *j = json_of(&o);
    int found = 0;
    for (const qb_json *m = qb_json_first(j); m; m = qb_json_next(m)) {
        const char *revision = qb_json_string(qb_json_get(m, "revision"));
        if (!revision) continue;
        found++;
        assert_string_equal(qb_json_string(qb_json_get(m, "name")), "org/tiny");
        bool first = !strcmp(revision, COMMIT_A);
        assert_string_equal(qb_json_string(qb_json_get(m, "refs")), first ? "main" : "refs/pr/1");
        assert_true(qb_json_number(qb_json_get(m, "files")) == (first ? 2 : 1));
        assert_true(qb_json_number(qb_json_get(m, "bytes")) == (first ? 4 : 2));
    }
    assert_int_equal(found, 2);
    qb_json_free(j);
    outcome_free(&o);
    unsetenv("HF_HUB_CACHE");
}

/* One whose file of weights holds none: what is looked at is the note, and that it was read. */
static void test_an_adapter_is_found_by_its_id(void) {
    static const char config[] = "{\"peft_type\":\"LORA\",\"r\":1,\"target_modules\":[\"q_proj\"]}";
    qb_hub hub = {.cache = cache, .copies = true};
    qb_hub_repo tuned = {QB_HUB_MODEL, "org/tuned", NULL};
    assert_ok(qb_hub_make_folders(cache, &tuned));
    char *blob = qb_hub_blob(cache, &tuned, ETAG);
    assert_ok(qb_file_write_atomic(blob, config, sizeof config - 1));
    assert_ok(qb_hub_link(&hub, &tuned, COMMIT_B, "adapter_config.json", ETAG));
    assert_ok(qb_hub_set_ref(cache, &tuned, COMMIT_B));
    qb_free(blob);
    char *out = scratch_path("merged");
    outcome o = BENCH("merge", "org/demo", "org/tuned", "-o", out);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "org/tuned is taken from the hub's cache: "));
    assert_non_null(strstr(o.err, COMMIT_B " (revision main)"));
    assert_non_null(strstr(o.err, "adapter_model"));
    outcome_free(&o);
}

/* The demo model, laid into the cache, is found by its id in every command, which says where; its name is the
   repository's, not the commit. */
static void test_hub__a_model_is_found_by_its_id(void **state) {
    (void)state;
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json"};
    const char *share = getenv("BENCH_SHARE");
    qb_hub hub = {.cache = cache, .copies = true};
    qb_hub_repo demo = {QB_HUB_MODEL, "org/demo", NULL};
    assert_ok(qb_hub_make_folders(cache, &demo));
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char from[1024];
        snprintf(from, sizeof from, "%s/demo/%s", share ? share : "", files[i]);
        if (!qb_path_exists(from)) continue;
        char *blob = qb_hub_blob(cache, &demo, ETAG);
        assert_ok(qb_copy_file(from, blob));
        assert_ok(qb_hub_link(&hub, &demo, COMMIT_A, files[i], ETAG));
        qb_free(blob);
    }
    assert_ok(qb_hub_set_ref(cache, &demo, COMMIT_A));
    setenv("HF_HUB_CACHE", cache, 1);
    outcome o = BENCH("inspect", "org/demo");
    assert_worked(&o);
    assert_non_null(strstr(o.err, "org/demo is taken from the hub's cache: "));
    assert_non_null(strstr(o.err, COMMIT_A " (revision main)"));
    outcome_free(&o);
    qb_model *m;
    char *spec;
    assert_ok(qb_model_resolve("org/demo", &spec));
    assert_ok(qb_model_open(spec, &m));
    assert_string_equal(m->name, "demo");
    qb_model_close(m);
    qb_free(spec);
    test_an_adapter_is_found_by_its_id();
    char *ref = qb_path_join(cache, "models--org--demo/refs/main");
    assert_int_equal(remove(ref), 0);
    qb_free(ref);
    o = BENCH("inspect", "org/demo");
    assert_worked(&o);
    assert_non_null(strstr(o.err, COMMIT_A " (no revision leads to it: the last of its snapshots)"));
    outcome_free(&o);
    assert_refused(BENCH("eval", "org/absent", "--dataset", "demo"), 1, "`bench fetch org/absent` gets it");
    unsetenv("HF_HUB_CACHE");
}

static int begin(void **state) {
    int code = program_begin(state);
    cache = qb_strdup(scratch_path("hub"));
    return code;
}
static int end(void **state) {
    qb_free(cache);
    return program_end(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hub__the_cache_is_where_the_variables_say),
        cmocka_unit_test(test_hub__endpoint_token_and_switches),
        cmocka_unit_test(test_hub__names),
        cmocka_unit_test(test_hub__written_as_python_writes),
        cmocka_unit_test(test_hub__revisions_lead_to_snapshots),
        cmocka_unit_test(test_hub__list_models_shows_the_cache),
        cmocka_unit_test(test_hub__a_model_is_found_by_its_id),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
