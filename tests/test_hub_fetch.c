/* Fetching from a hub on the loopback that cuts, stalls, lies and refuses: what arrives is whole and
   verified, or nothing is there and one line says why. */
#include "hub/cache.h"
#include "hub/fetch.h"
#include "tests/hub_server.h"
#include "tests/program.h"

static const char weights[] = "0123456789abcdefghijklmnopqrstuvwxyz, as good as weights";
static const char config[] = "{\"architectures\": [\"X\"]}";
static const qb_hub_repo tiny = {QB_HUB_MODEL, "org/tiny", NULL};

static qb_hub hub;
static char endpoint[64];
static int n_caches;

/* A hub of its own for every test, in a hurry. */
static int fresh(void **state) {
    (void)state;
    char name[32];
    snprintf(name, sizeof name, "hub-%d", n_caches++);
    server_reset();
    snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%d", server.hub_port);
    hub = (qb_hub){
        .endpoint = endpoint, .cache = qb_strdup(scratch_path(name)), .answer_ms = 3000, .stall_ms = 300};
    server_add("config.json", config, false);
    server_add("model.safetensors", weights, true);
    return 0;
}
static int stale(void **state) {
    (void)state;
    qb_free(hub.cache);
    return 0;
}

static qb_fetch_options hurry(void) {
    return (qb_fetch_options){.second_ms = 5};
}

static qb_status fetch_of(const qb_hub_repo *repo, qb_fetched *out) {
    qb_fetch_options o = hurry();
    qb_hub_listing list;
    int64_t skipped;
    *out = (qb_fetched){0};
    qb_status st = qb_hub_list(&hub, repo, &o, &list);
    if (st == QB_OK) st = qb_hub_choose(&list, NULL, repo->id, &skipped);
    if (st == QB_OK) st = qb_hub_fetch(&hub, repo, &list, &o, out);
    qb_hub_listing_free(&list);
    return st;
}

static qb_status fetch(void) {
    qb_fetched f;
    qb_status st = fetch_of(&tiny, &f);
    qb_fetched_free(&f);
    return st;
}

static void assert_content(const char *path, const char *content) {
    char full[2048], *text;
    size_t n;
    snprintf(full, sizeof full, "%s/models--org--tiny/snapshots/%s/%s", hub.cache, SERVED_COMMIT, path);
    assert_ok(qb_file_read(full, 1 << 20, &text, &n));
    assert_int_equal(n, strlen(content));
    assert_memory_equal(text, content, n);
    qb_free(text);
}

/* main leads to the snapshot only when all of it is there. */
static void assert_ref(bool there) {
    char *dir, commit[QB_HUB_COMMIT], path[2048];
    snprintf(path, sizeof path, "%s/models--org--tiny/refs/main", hub.cache);
    assert_int_equal(qb_path_exists(path), there);
    if (!there) return;
    assert_ok(qb_hub_snapshot(hub.cache, &tiny, &dir, commit));
    assert_string_equal(commit, SERVED_COMMIT);
    qb_free(dir);
}

static void assert_whole(void) {
    assert_content("config.json", config);
    assert_content("model.safetensors", weights);
    assert_ref(true);
}

/* Neither the weights' blob nor a part of it. (Of the config, fetched beside, a part may wait for the next
 * try.) */
static void assert_nothing_left(const char *needle) {
    char command[2300];
    snprintf(command, sizeof command,
             "test -z \"$(find '%s' -regextype posix-extended -regex '.*/blobs/[0-9a-f]{64}.*')\"",
             hub.cache);
    if (system(command) != 0) fail_msg("something is left in %s (%s)", hub.cache, needle);
    assert_ref(false);
}

/* ---- what goes well ---- */

static void test_fetch__a_model_and_only_what_it_needs(void **state) {
    (void)state;
    static const char *const other[] = {"pytorch_model.bin", "model.onnx", "README.md",
                                        "original/params.json", "consolidated.safetensors"};
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) server_add(other[i], "another", true);
    server_add("tokenizer.json", "{}", false);
    server.page = 3; /* the list comes in pages */
    qb_fetched f;
    assert_ok(fetch_of(&tiny, &f));
    assert_int_equal(f.n_new, 3);
    assert_int_equal(f.new_bytes, strlen(weights) + strlen(config) + 2);
    qb_fetched_free(&f);
    assert_whole();
    assert_content("tokenizer.json", "{}");
    assert_int_equal(server_saw("/tree/", false, NULL), 3);
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
        assert_int_equal(server_saw(other[i], false, NULL), 0);

    /* Again: the files are asked for no more. */
    server.n_seen = 0;
    assert_ok(fetch_of(&tiny, &f));
    assert_int_equal(f.n_new, 0);
    qb_fetched_free(&f);
    assert_int_equal(server_saw("resolve", false, NULL), 0);
}

static void test_fetch__bin_where_there_are_no_safetensors(void **state) {
    (void)state;
    server.files[1] = (served_file){0};
    server_add("pytorch_model.bin", weights, true);
    server_add("training_args.bin", "x", true);
    assert_ok(fetch());
    assert_content("pytorch_model.bin", weights);
    assert_int_equal(server_saw("training_args", false, NULL), 0);
}

static void test_fetch__globs_choose(void **state) {
    (void)state;
    server.files[1] = (served_file){0};
    server_add("tiny.Q4_0.gguf", weights, true);
    server_add("tiny.Q8_0.gguf", weights, true);
    assert_fails(fetch(), QB_ERR_NOT_FOUND,
                 "there are tiny.Q4_0.gguf, tiny.Q8_0.gguf: choose with --include GLOB");
    qb_fetch_options o = hurry();
    qb_hub_listing list;
    int64_t skipped;
    assert_ok(qb_hub_list(&hub, &tiny, &o, &list));
    assert_ok(qb_hub_choose(&list, "*Q4_0*", "org/tiny", &skipped));
    assert_int_equal(list.n, 1);
    assert_fails(qb_hub_choose(&list, "*.bin", "org/tiny", &skipped), QB_ERR_NOT_FOUND,
                 "no file matches '*.bin'");
    qb_hub_listing_free(&list);
}

static void test_fetch__a_renamed_repository_is_followed(void **state) {
    (void)state;
    qb_hub_repo old = {QB_HUB_MODEL, "old", NULL};
    qb_fetch_options o = hurry();
    qb_hub_listing list;
    assert_fails(qb_hub_list(&hub, &old, &o, &list), QB_ERR_FORMAT,
                 "expected a list"); /* the tree, renamed too */
    assert_int_equal(server_saw("/api/models/org/tiny/revision/main", false, NULL), 2);
}

/* ---- cuts and stalls ---- */

static void test_fetch__goes_on_after_cuts(void **state) {
    (void)state;
    server.files[1].cuts = 3;
    server.files[1].cut_at = 10;
    assert_ok(fetch());
    assert_whole();
    assert_int_equal(server_saw("/content/", true, NULL), 4);
    int ranged = 0;
    for (int i = 0; i < server.n_seen; i++)
        ranged += !strcmp(server.seen[i].range, "bytes=10-") || !strcmp(server.seen[i].range, "bytes=20-") ||
                  !strcmp(server.seen[i].range, "bytes=30-");
    assert_int_equal(ranged, 3);
}

static void test_fetch__the_next_run_goes_on(void **state) {
    (void)state;
    char part[2048], hex[QB_SHA256_HEX];
    hash_of(&server.files[1], hex);
    snprintf(part, sizeof part, "%s/models--org--tiny/blobs", hub.cache);
    assert_ok(qb_make_dirs(part));
    snprintf(part, sizeof part, "%s/models--org--tiny/blobs/%s.incomplete", hub.cache, hex);
    assert_ok(qb_file_write_atomic(part, weights, 25)); /* as a run that was killed leaves it */
    assert_ok(fetch());
    assert_whole();
    assert_int_equal(server_saw("/content/", true, NULL), 1);
    bool ranged = false;
    for (int i = 0; i < server.n_seen; i++) ranged = ranged || !strcmp(server.seen[i].range, "bytes=25-");
    assert_true(ranged);
}

static void test_fetch__a_part_that_does_not_fit_is_dropped(void **state) {
    (void)state;
    static const char *const parts[] = {"not the beginning",
                                        "longer than the whole ......................................"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char part[2048], hex[QB_SHA256_HEX];
        hash_of(&server.files[1], hex);
        snprintf(part, sizeof part, "%s/models--org--tiny/blobs", hub.cache);
        assert_ok(qb_remove_tree(hub.cache));
        assert_ok(qb_make_dirs(part));
        snprintf(part, sizeof part, "%s/models--org--tiny/blobs/%s.incomplete", hub.cache, hex);
        assert_ok(qb_file_write_atomic(part, parts[i], strlen(parts[i])));
        assert_ok(fetch());
        assert_whole();
        assert_false(qb_path_exists(part));
    }
}

static void test_fetch__stalls_are_noticed(void **state) {
    (void)state;
    hub.stall_ms = 100;
    server.files[1].stalls = 2;
    assert_ok(fetch());
    assert_whole();
    assert_int_equal(server_saw("/content/", true, NULL), 3);
}

static void test_fetch__a_server_that_only_cuts_ends_the_run(void **state) {
    (void)state;
    server.files[1].cuts = 1000;
    server.files[1].cut_at = 0;
    assert_fails(fetch(), QB_ERR_IO, "stopped at 0 of 56 bytes");
    assert_non_null(strstr(qb_error_text(), "fetch again, which goes on from there"));
    assert_ref(false);
}

static void test_fetch__servers_without_ranges(void **state) {
    (void)state;
    server.files[1].no_ranges = true;
    server.files[1].cuts = 1;
    server.files[1].cut_at = 30;
    assert_ok(fetch());
    assert_whole();
}

/* ---- lies ---- */

static void test_fetch__lies_are_refused(void **state) {
    (void)state;
    served_file *f = &server.files[1];
    static const struct {
        const char *needle;
        int which;
    } rows[] = {
        {"the hub contradicts itself", 0},         {"the hub contradicts itself", 1},
        {"the hub contradicts itself", 2},         {"says no hash of model.safetensors that could be", 3},
        {"sends more than the 56 bytes", 4},       {"does not have the hash that the hub says", 5},
        {"the server announces 56 bytes where", 6}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        stale(NULL);
        fresh(NULL);
        f->listed_more = rows[i].which == 0 || rows[i].which == 6 ? 5 : 0;
        f->head_more = rows[i].which == 1 || rows[i].which == 6 ? 5 : 0;
        f->wrong_hash = rows[i].which == 2;
        f->no_hash = rows[i].which == 3;
        f->overlong = rows[i].which == 4;
        f->wrong_bytes = rows[i].which == 5 ? 100 : 0;
        assert_fails(fetch(), QB_ERR_FORMAT, rows[i].needle);
        assert_nothing_left(rows[i].needle);
    }
}

static void test_fetch__a_range_from_elsewhere_is_refused(void **state) {
    (void)state;
    server.files[1].cuts = 1;
    server.files[1].cut_at = 10;
    server.files[1].wrong_range = true;
    assert_fails(fetch(), QB_ERR_FORMAT, "asked for bytes from 10 of 56, the server sends those from 0");
    assert_nothing_left("range");
}

static void test_fetch__answers_that_are_none(void **state) {
    (void)state;
    static const struct {
        const char *info, *tree, *needle;
    } rows[] = {
        {"{\"sha\": \"../x\"}", NULL, "no commit of 40 digits"},
        {"[]", NULL, "expected an object"},
        {"<html>", NULL, "org/tiny"},
        {NULL, "{}", "expected a list of files"},
        {NULL, "[{\"type\":\"file\",\"path\":\"../../x\",\"size\":1,\"oid\":\"" SERVED_COMMIT "\"}]",
         "no path below a folder"},
        {NULL, "[{\"type\":\"file\",\"path\":\"x.bin\",\"size\":-1,\"oid\":\"" SERVED_COMMIT "\"}]",
         "\"size\""},
        {NULL, "[{\"type\":\"file\",\"path\":\"x.bin\",\"size\":1,\"oid\":\"../../x\"}]", "expected SHA-256"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        server.info = rows[i].info;
        server.tree = rows[i].tree;
        assert_fails(fetch(), QB_ERR_FORMAT, rows[i].needle);
    }
}

/* ---- tokens and hosts ---- */

static void test_fetch__the_token_stays_with_the_hub(void **state) {
    (void)state;
    static char token[] = "hf_secret";
    int with;
    server.token = token;
    assert_fails(fetch(), QB_ERR_IO, "org/tiny is gated (403): accept its licence at http://127.0.0.1:");
    static char wrong[] = "hf_wrong";
    hub.token = wrong;
    assert_fails(fetch(), QB_ERR_IO,
                 "the hub does not take the token for org/tiny (401, Invalid credentials");
    hub.token = token;
    server.n_seen = 0;
    assert_ok(fetch());
    assert_whole();
    assert_true(server_saw("/", false, &with) == with && with > 0);
    assert_int_equal(server_saw("/content/", true, &with), 1);
    assert_int_equal(with, 0);
    hub.token = NULL;
}

static void test_fetch__the_api_of_another_host_is_not_asked(void **state) {
    (void)state;
    char away[100];
    static char token[] = "hf_secret";
    hub.token = token;
    snprintf(away, sizeof away, "http://127.0.0.1:%d/api/models/org/tiny/revision/main", server.other_port);
    server.away = away;
    assert_fails(fetch(), QB_ERR_IO, "leads to another host");
    assert_int_equal(server_saw("/", true, NULL), 0);
    server.away = "file:///etc/passwd";
    assert_fails(fetch(), QB_ERR_FORMAT, "only http and https are followed");
    server.away = "/api/models/x/tree/0";
    server.tree = "[]";
    assert_fails(fetch(), QB_ERR_IO, "redirected more than 10 times");
    hub.token = NULL;
}

static void test_fetch__a_signed_address_that_ran_out_is_renewed(void **state) {
    (void)state;
    server.files[1].statuses[0] = 403;
    assert_ok(fetch());
    assert_whole();
    assert_int_equal(server_saw("HEAD /org/tiny/resolve", false, NULL), 3); /* two files, and once more */
    stale(NULL);
    fresh(NULL);
    for (int i = 0; i < STATUSES_MAX; i++) server.files[1].statuses[i] = 403;
    assert_fails(fetch(), QB_ERR_IO, "the hub refuses org/tiny (403)");
}

/* ---- refusals ---- */

static void test_fetch__what_passes_is_asked_again(void **state) {
    (void)state;
    static const int passing[] = {429, 503, 500, 408};
    for (int i = 0; i < 4; i++) server.api_statuses[i] = server.files[1].statuses[i] = passing[i];
    server.api_header = server.files[1].status_header = "Retry-After: 2\r\nratelimit: \"api\";r=0;t=3\r\n";
    assert_ok(fetch());
    assert_whole();
    stale(NULL);
    fresh(NULL);
    for (int i = 0; i < 6; i++) server.api_statuses[i] = 429;
    assert_fails(fetch(), QB_ERR_IO, "limits how often it is asked (429)");
    assert_int_equal(server_saw("/api/", false, NULL), 5);
    stale(NULL);
    fresh(NULL);
    for (int i = 0; i < 6; i++) server.api_statuses[i] = 503;
    server.api_header = "Retry-After: 3600\r\n";
    assert_fails(fetch(), QB_ERR_IO, "asks to wait for 3600 s");
    assert_int_equal(server_saw("/api/", false, NULL), 1);
}

static void test_fetch__refusals_say_what_to_do(void **state) {
    (void)state;
    qb_hub_repo absent = {QB_HUB_MODEL, "org/absent", NULL}, other = {QB_HUB_MODEL, "org/tiny", "none"},
                no = {QB_HUB_MODEL, "a/../b", NULL};
    qb_fetched f;
    assert_fails(fetch_of(&absent, &f), QB_ERR_IO, "the hub shows no model org/absent (401): check the name");
    assert_fails(fetch_of(&other, &f), QB_ERR_NOT_FOUND, "org/tiny has no revision 'none'");
    assert_fails(fetch_of(&no, &f), QB_ERR_USAGE, "names no repository");
    server.api_statuses[server.api_calls] = 404;
    assert_fails(fetch(), QB_ERR_NOT_FOUND, "the hub has no model org/tiny (404)");
    server.api_statuses[server.api_calls] = 418;
    assert_fails(fetch(), QB_ERR_IO, "the hub answered 418");
    for (int i = 0; i < 5; i++) server.files[0].statuses[i] = 416;
    assert_fails(fetch(), QB_ERR_IO, "the hub answered 416");
}

static void test_fetch__no_network(void **state) {
    (void)state;
    static char nowhere[] = "http://127.0.0.1:1"; /* nobody listens there */
    hub.endpoint = nowhere;
    assert_fails(fetch(), QB_ERR_IO, "is there a network?");
    hub.endpoint = endpoint;
    hub.offline = true;
    assert_fails(fetch(), QB_ERR_NOT_FOUND, "HF_HUB_OFFLINE is set");
    assert_int_equal(server.n_seen, 0);
}

static void test_fetch__a_full_disk_is_seen_before(void **state) {
    (void)state;
    qb_fetch_options o = hurry();
    qb_hub_listing list;
    qb_fetched f;
    assert_ok(qb_hub_list(&hub, &tiny, &o, &list));
    o.free_bytes = 1000;
    server.n_seen = 0;
    assert_fails(qb_hub_fetch(&hub, &tiny, &list, &o, &f), QB_ERR_IO, "make room, or name another place");
    assert_int_equal(server.n_seen, 0);
    qb_hub_listing_free(&list);
}

/* Datasets: files by name, one commit for all, and what is not there is remembered. */
static void test_fetch__files_by_name(void **state) {
    (void)state;
    static const char *const paths[] = {"en/shard.json.gz", "config.json"}, *const lost[] = {"en/none.json"};
    qb_hub_repo data = {QB_HUB_DATASET, "org/tiny", "refs/convert/parquet"};
    qb_fetch_options o = hurry();
    qb_hub_listing list;
    qb_fetched f;
    char path[2048];
    server_add("en/shard.json.gz", weights, true);
    assert_ok(qb_hub_list_named(&hub, &data, paths, 2, &o, &list));
    assert_int_equal(qb_hub_listing_bytes(&list), strlen(weights) + strlen(config));
    assert_ok(qb_hub_fetch(&hub, &data, &list, &o, &f));
    snprintf(path, sizeof path, "%s/en/shard.json.gz", f.dir);
    assert_true(qb_path_exists(path));
    assert_int_equal(
        server_saw("HEAD /datasets/org/tiny/resolve/refs%2Fconvert%2Fparquet/en/shard.json.gz", false, NULL),
        1);
    assert_int_equal(server_saw("HEAD /datasets/org/tiny/resolve/" SERVED_COMMIT "/config.json", false, NULL),
                     2);
    qb_fetched_free(&f);
    qb_hub_listing_free(&list);
    assert_fails(qb_hub_list_named(&hub, &data, lost, 1, &o, &list), QB_ERR_NOT_FOUND,
                 "has no file en/none.json");
    snprintf(path, sizeof path, "%s/datasets--org--tiny/.no_exist/" SERVED_COMMIT "/en/none.json", hub.cache);
    assert_true(qb_path_exists(path));
}

static _Atomic int asked_to_stop;
static bool stop_soon(void) {
    return ++asked_to_stop > 3;
}
static void test_fetch__can_be_interrupted(void **state) {
    (void)state;
    qb_fetch_options o = hurry();
    qb_hub_listing list;
    qb_fetched f;
    hub.stall_ms = 60000;
    server.files[1].stalls = 100;
    assert_ok(qb_hub_list(&hub, &tiny, &o, &list));
    asked_to_stop = 0;
    o.stopped = stop_soon;
    assert_fails(qb_hub_fetch(&hub, &tiny, &list, &o, &f), QB_ERR_INTERRUPTED, "interrupted");
    qb_hub_listing_free(&list);
    assert_ref(false);
}

/* ---- the program ---- */

static void set_variables(void) {
    setenv("HF_ENDPOINT", endpoint, 1);
    setenv("HF_HUB_CACHE", hub.cache, 1);
    unsetenv("HF_TOKEN");
    setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1", 1);
}

static void test_fetch__the_command(void **state) {
    (void)state;
    set_variables();
    outcome o = BENCH("fetch", "org/tiny", "--dry-run");
    assert_worked(&o);
    assert_non_null(strstr(o.out, "56 B  model.safetensors"));
    outcome_free(&o);
    assert_ref(false);
    o = BENCH("fetch", "org/tiny", "--json");
    assert_worked(&o);
    qb_json *j = json_of(&o);
    assert_string_equal(qb_json_string(qb_json_get(j, "commit")), SERVED_COMMIT);
    assert_true(qb_json_number(qb_json_get(j, "fetched_files")) == 2);
    qb_json_free(j);
    outcome_free(&o);
    assert_whole();
    o = BENCH("fetch", "org/tiny");
    assert_worked(&o);
    assert_non_null(strstr(o.err, "all 2 files are in the cache already"));
    assert_non_null(strstr(o.out, "/models--org--tiny/snapshots/" SERVED_COMMIT "\n"));
    outcome_free(&o);

    /* Offline: what is here is the answer, and nothing is asked. */
    setenv("HF_HUB_OFFLINE", "1", 1);
    server.n_seen = 0;
    o = BENCH("fetch", "org/tiny");
    assert_worked(&o);
    outcome_free(&o);
    assert_refused(BENCH("fetch", "org/other"), 1, "HF_HUB_OFFLINE forbids asking for it");
    assert_int_equal(server.n_seen, 0);
    unsetenv("HF_HUB_OFFLINE");
    assert_refused(BENCH("fetch"), 2, "MODEL|DATASET");
    assert_refused(BENCH("fetch", "demo"), 2, "comes with the program");
    assert_refused(BENCH("fetch", "a b"), 2, "names no repository");
    assert_refused(BENCH("fetch", "org/tiny", "--type", "dataset"), 2, "needs --include");
}

static void test_fetch__a_dataset_is_found_where_it_was_put(void **state) {
    (void)state;
    set_variables();
    server_add("en/c4-validation.00000-of-00008.json.gz", "no gzip", true);
    outcome o = BENCH("fetch", "c4", "--split", "evaluation");
    assert_worked(&o);
    outcome_free(&o);
    assert_int_equal(server_saw("HEAD /datasets/allenai/c4/resolve/main/en/c4-validation", false, NULL), 1);
    assert_refused(BENCH("tokenize", "demo", "--dataset", "c4"), 1,
                   "datasets--allenai--c4/snapshots/" SERVED_COMMIT "/en/c4-val");
    assert_refused(BENCH("fetch", "c4", "--split", "calibration"), 1,
                   "has no file en/c4-train.00000-of-01024.json.gz");
    assert_refused(BENCH("tokenize", "demo", "--dataset", "c4", "--split", "calibration"), 1,
                   "`bench fetch c4` gets it from the hub");
}

/* The demo's own files under another name, which a run gets for itself. */
static void test_fetch__a_run_gets_what_is_missing(void **state) {
    (void)state;
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json"};
    char *content[4] = {0};
    const char *share = getenv("BENCH_SHARE"), *suite = scratch_path("suite.json");
    static const char text[] =
        "{\"name\":\"s\",\"summary\":\"s\",\"models\":[\"org/tiny\"],\"methods\":[{\"method\":\"none\"}],"
        "\"metrics\":[\"perplexity\"],\"datasets\":[\"demo\"],\"protocols\":[\"gptq-256\"],\"max_windows\":"
        "1}";
    set_variables();
    server_reset();
    for (size_t i = 0; i < 4; i++) {
        char path[1024];
        size_t n;
        snprintf(path, sizeof path, "%s/demo/%s", share ? share : "", names[i]);
        assert_ok(qb_file_read(path, 16 << 20, &content[i], &n));
        server_add(names[i], content[i], i == 1)->n = n;
    }
    assert_ok(qb_file_write_atomic(suite, text, strlen(text)));
    assert_refused(BENCH("run", "--suite", suite), 1, "`bench fetch org/tiny` gets it");
    assert_refused(BENCH("run", "--suite", suite, "--fetch", "--dry-run"), 2, "choose one");
    outcome o = BENCH("run", "--suite", suite, "--fetch", "--json");
    assert_worked(&o);
    assert_non_null(strstr(o.err, "model org/tiny is not here: fetching it"));
    qb_json *j = json_of(&o);
    const qb_json *one = qb_json_first(qb_json_get(j, "cases"));
    assert_string_equal(qb_json_string(qb_json_get(one, "status")), "ok");
    qb_json_free(j);
    outcome_free(&o);
    server.n_seen = 0;
    o = BENCH("run", "--suite", suite, "--fetch"); /* nothing is missing now */
    assert_worked(&o);
    assert_int_equal(server.n_seen, 0);
    outcome_free(&o);
    for (size_t i = 0; i < 4; i++) qb_free(content[i]);
}

static int begin(void **state) {
    int code = program_begin(state);
    unsetenv("http_proxy"); /* the loopback is nobody else's */
    unsetenv("HTTP_PROXY");
    unsetenv("all_proxy");
    unsetenv("ALL_PROXY");
    server_start();
    return code;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, stale)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_fetch__a_model_and_only_what_it_needs),
        TEST(test_fetch__bin_where_there_are_no_safetensors),
        TEST(test_fetch__globs_choose),
        TEST(test_fetch__a_renamed_repository_is_followed),
        TEST(test_fetch__goes_on_after_cuts),
        TEST(test_fetch__the_next_run_goes_on),
        TEST(test_fetch__a_part_that_does_not_fit_is_dropped),
        TEST(test_fetch__stalls_are_noticed),
        TEST(test_fetch__a_server_that_only_cuts_ends_the_run),
        TEST(test_fetch__servers_without_ranges),
        TEST(test_fetch__lies_are_refused),
        TEST(test_fetch__a_range_from_elsewhere_is_refused),
        TEST(test_fetch__answers_that_are_none),
        TEST(test_fetch__the_token_stays_with_the_hub),
        TEST(test_fetch__the_api_of_another_host_is_not_asked),
        TEST(test_fetch__a_signed_address_that_ran_out_is_renewed),
        TEST(test_fetch__what_passes_is_asked_again),
        TEST(test_fetch__refusals_say_what_to_do),
        TEST(test_fetch__no_network),
        TEST(test_fetch__a_full_disk_is_seen_before),
        TEST(test_fetch__files_by_name),
        TEST(test_fetch__can_be_interrupted),
        TEST(test_fetch__the_command),
        TEST(test_fetch__a_dataset_is_found_where_it_was_put),
        TEST(test_fetch__a_run_gets_what_is_missing),
    };
    return cmocka_run_group_tests(tests, begin, program_end);
}
