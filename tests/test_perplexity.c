/* Perplexities against /golden/perplexity-*.json of the shared material (an independent PyTorch
   implementation), and the two ways of running (resident, layer-major) against each other. */
#include "base/json.h"
#include "datasets/datasets.h"
#include "eval/eval.h"
#include "kernels/cpu/cpu.h"
#include "tests/support.h"

#include <math.h>

/* Sanitized builds check one row, others the shorter ones and of wikimini the shortest of each protocol.
   The other rows are tests of their own, skipped unless QB_TEST_LONG=1 asks for them. */
#if defined(QB_SANITIZED)
enum { ROWS_AT_MOST = 1 };
#else
enum { ROWS_AT_MOST = 100 };
#endif

typedef struct {
    qb_model *model;
    qb_device *dev;
    qb_tokenizer *tokenizer;
} fixture;

static void fixture_open(fixture *f, const char *dir, int threads, bool resident) {
    assert_ok(qb_model_open(dir, &f->model));
    assert_ok(qb_tokenizer_open(dir, &f->tokenizer));
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = threads}, &f->dev));
    assert_ok(qb_model_load(f->model, f->dev, f->model->config.max_positions, resident));
}

static void fixture_close(fixture *f) {
    qb_model_close(f->model);
    qb_tokenizer_close(f->tokenizer);
    f->dev->backend->close(f->dev);
}

static void check_row(fixture *f, const qb_json *row) {
    const char *protocol_name = qb_json_string(qb_json_get(row, "protocol"));
    char dataset[64];
    snprintf(dataset, sizeof dataset, "%s", qb_json_string(qb_json_get(row, "dataset")));
    dataset[strcspn(dataset, " ")] = 0; /* "wikitext2 raw bytes": llamacpp reads those by definition */
    qb_protocol protocol;
    qb_windows windows;
    qb_data_files files;
    assert_ok(qb_protocol_parse(protocol_name, &protocol));
    qb_special_tokens special = qb_protocol_special_tokens(protocol.kind);
    const char *rule = qb_json_string(qb_json_get(row, "special_tokens"));
    if (rule) assert_ok(qb_special_tokens_parse(rule, &special));
    assert_ok(qb_dataset_windows(&(qb_source){dataset, shared_path("data"), f->tokenizer, special}, &protocol,
                                 0, &windows, &files));
    assert_int_equal(windows.total_tokens, (int64_t)qb_json_number(qb_json_get(row, "tokens")));
    assert_int_equal(windows.count, (int64_t)qb_json_number(qb_json_get(row, "windows")));
    assert_int_equal(qb_windows_scored(&windows), (int64_t)qb_json_number(qb_json_get(row, "scored_tokens")));
    qb_measure got;
    assert_ok(qb_perplexity(f->model, f->dev, &windows, 0, &got));
    double expected = qb_json_number(qb_json_get(row, "perplexity")), off = fabs(got.value / expected - 1);
    print_message("%s %s: %.6f, golden %.6f, off by %.1e\n", protocol_name, dataset, got.value, expected,
                  off);
    assert_true(off < 1e-4);
    double error = qb_json_number(qb_json_get(row, "stderr"));
    if (!isnan(error)) assert_true(fabs(got.stderr_value / error - 1) < 1e-3);
    qb_measure_free(&got);
    qb_windows_free(&windows);
}

/* Whether the rows have a shorter one of the row's protocol, whatever its length. */
static bool has_shorter(const qb_json *rows, const qb_json *row) {
    const char *name = qb_json_string(qb_json_get(row, "protocol"));
    for (const qb_json *r = qb_json_first(rows); r; r = qb_json_next(r))
        if (!strncmp(name, qb_json_string(qb_json_get(r, "protocol")), strcspn(name, "-") + 1) &&
            qb_json_number(qb_json_get(r, "tokens")) < qb_json_number(qb_json_get(row, "tokens")))
            return true;
    return false;
}

typedef struct {
    const char *model, *golden;
    double most_tokens;  /* longer rows are long */
    bool every_protocol; /* but the shortest of each protocol is not */
} golden_rows;

static const golden_rows wikimini = {"models/wikimini-hf", "golden/perplexity-wikimini.json", 140000, true};
static const golden_rows stories = {"models/stories260K-hf", "golden/perplexity-stories260K.json", 300000,
                                    false};

static void check_golden(const golden_rows *g, bool the_long_ones) {
    double most_tokens = ROWS_AT_MOST == 1 ? 140000 : g->most_tokens;
    qb_json *json;
    assert_ok(qb_json_read(shared_path(g->golden), 1 << 20, &json));
    fixture f;
    fixture_open(&f, shared_path(g->model), 0, true);
    int checked = 0, left = 0;
    const qb_json *rows = qb_json_get(json, "rows");
    for (const qb_json *row = qb_json_first(rows); row; row = qb_json_next(row)) {
        bool is_long = qb_json_number(qb_json_get(row, "tokens")) > most_tokens &&
                       (!g->every_protocol || has_shorter(rows, row));
        if (is_long != the_long_ones) continue;
        if (checked == ROWS_AT_MOST || (is_long && !getenv("QB_TEST_LONG"))) {
            left++;
            continue;
        }
        check_row(&f, row);
        checked++;
    }
    fixture_close(&f);
    qb_json_free(json);
    if (left) print_message("%d rows of %s are not checked here\n", left, g->golden);
    if (!checked && the_long_ones) skip();
    assert_true(checked > 0);
}

static void test_perplexity__wikimini_equals_golden(void **state) {
    (void)state;
    check_golden(&wikimini, false);
}

static void test_perplexity__wikimini_long_rows_equal_golden(void **state) {
    (void)state;
    check_golden(&wikimini, true);
}

static void test_perplexity__stories_equals_golden(void **state) {
    (void)state;
    check_golden(&stories, false);
}

static void test_perplexity__stories_long_rows_equal_golden(void **state) {
    (void)state;
    check_golden(&stories, true);
}

/* The row's sums over windows: so many, each of `each` windows, and all that was scored in them. */
static void check_sums(const qb_measure *row, int64_t count, int64_t each) {
    const qb_json *nll = qb_json_get(row->extra, "window_nll_nats"),
                  *tokens = qb_json_get(row->extra, "window_tokens_scored");
    assert_int_equal(qb_json_count(nll), count);
    assert_int_equal(qb_json_count(tokens), count);
    assert_int_equal((int64_t)qb_json_number(qb_json_get(row->extra, "windows_per_sum")), each);
    double sum = 0, n = 0, total = qb_json_number(qb_json_get(row->extra, "nll_total_nats"));
    for (const qb_json *v = qb_json_first(nll); v; v = qb_json_next(v)) sum += qb_json_number(v);
    for (const qb_json *v = qb_json_first(tokens); v; v = qb_json_next(v)) n += qb_json_number(v);
    assert_true(fabs(sum / total - 1) < 1e-12);
    assert_int_equal((int64_t)n, row->n);
}

/* `count` random windows of `length` tokens, the last one of `last`, on a synthetic model: no
   shared material needed. */
typedef struct {
    int threads;
    bool resident;
    int64_t memory_bytes, count;
    int32_t length, last;
    int64_t sums, windows_per_sum; /* expected */
} synthetic;

static double run_synthetic(const synthetic *s) {
    char *dir = scratch_make();
    char *path = qb_path_join(dir, "config.json");
    static const char config[] = "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,"
                                 "\"intermediate_size\":96,\"num_hidden_layers\":3,"
                                 "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":97,"
                                 "\"max_position_embeddings\":64}";
    assert_ok(qb_file_write_atomic(path, config, sizeof config - 1));
    char spec[512];
    snprintf(spec, sizeof spec, "synthetic:%s", dir);
    qb_model *m;
    qb_device *dev;
    assert_ok(qb_model_open(spec, &m));
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = s->threads}, &dev));
    assert_ok(qb_model_load(m, dev, 64, s->resident));
    qb_windows w;
    assert_ok(qb_random_windows(97, s->count, s->length, 3, &w));
    for (int64_t i = 0; i < w.count; i++) {
        w.windows[i].score_begin = 1;
        w.windows[i].score_end = w.windows[i].length;
    }
    w.windows[s->count - 1].length = w.windows[s->count - 1].score_end = s->last;
    w.mean = QB_MEAN_OF_TOKENS;
    qb_measure got;
    assert_ok(qb_perplexity(m, dev, &w, s->memory_bytes, &got));
    assert_int_equal(got.n, (s->count - 1) * (s->length - 1) + s->last - 1);
    assert_true(got.value > 20 && got.value < 1000 && got.stderr_value > 0);
    check_sums(&got, s->sums, s->windows_per_sum);
    double value = got.value;
    qb_measure_free(&got);
    qb_windows_free(&w);
    qb_model_close(m);
    dev->backend->close(dev);
    qb_free(path);
    scratch_remove(dir);
    return value;
}

static void test_perplexity__same_bits_however_it_runs(void **state) {
    (void)state;
    synthetic s = {1, true, 0, 9, 40, 17, 9, 1};
    double value = run_synthetic(&s);
    s.threads = 2;
    assert_true(run_synthetic(&s) == value);
    s.resident = false;
    assert_true(run_synthetic(&s) == value);
    s.memory_bytes = 1; /* the least memory: one batch a pass */
    assert_true(run_synthetic(&s) == value);
}

/* Above 1024 windows the row keeps sums of neighbours, so that a document stays small. */
static void test_perplexity__many_windows_share_sums(void **state) {
    (void)state;
    run_synthetic(&(synthetic){1, true, 0, 1024, 3, 2, 1024, 1});
    run_synthetic(&(synthetic){1, true, 0, 1025, 3, 2, 513, 2});
}

static void test_determinism__same_logits_twice(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, shared_path("models/stories260K-hf"), 0, true);
    qb_measures rows = {0};
    assert_ok(qb_determinism(f.model, f.dev, &rows));
    assert_ok(qb_determinism(f.model, f.dev, &rows));
    assert_string_equal(qb_json_string(qb_json_get(rows.rows[0].extra, "sha256")),
                        qb_json_string(qb_json_get(rows.rows[1].extra, "sha256")));
    qb_measures_free(&rows);
    fixture_close(&f);
}

static bool collect(void *ctx, int32_t id) {
    qb_ids *ids = ctx;
    assert_ok(qb_grow(&ids->ids, &ids->capacity, ids->count + 1, sizeof *ids->ids));
    ids->ids[ids->count++] = id;
    return true;
}

/* llama2.c's own run of stories260K at temperature 0 starts so (its README and test vectors). */
static void test_generate__stories_speaks_english(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, shared_path("models/stories260K-hf"), 0, true);
    qb_ids prompt = {0}, out = {0};
    qb_str text = {0};
    assert_ok(qb_tokenizer_encode(f.tokenizer, "", 0, true, &prompt));
    qb_generate_config config = {.tokens = 60};
    assert_ok(qb_generate(f.model, f.dev, prompt.ids, (int64_t)prompt.count, &config, collect, &out));
    assert_ok(qb_tokenizer_decode(f.tokenizer, out.ids, out.count, &text));
    print_message("%s\n", qb_str_get(&text));
    assert_non_null(strstr(
        qb_str_get(&text),
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."));
    config.tokens = 600;
    assert_fails(qb_generate(f.model, f.dev, prompt.ids, (int64_t)prompt.count, &config, collect, &out),
                 QB_ERR_USAGE, "exceed the model's 512 positions");
    qb_str_free(&text);
    qb_ids_free(&prompt);
    qb_ids_free(&out);
    fixture_close(&f);
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_perplexity__same_bits_however_it_runs),
        cmocka_unit_test(test_perplexity__many_windows_share_sums),
        cmocka_unit_test(test_perplexity__wikimini_equals_golden),
        cmocka_unit_test(test_perplexity__wikimini_long_rows_equal_golden),
        cmocka_unit_test(test_perplexity__stories_equals_golden),
        cmocka_unit_test(test_perplexity__stories_long_rows_equal_golden),
        cmocka_unit_test(test_determinism__same_logits_twice),
        cmocka_unit_test(test_generate__stories_speaks_english),
    };
    return cmocka_run_group_tests_name("perplexity", tests, NULL, NULL);
}
