/* GGUF files as models: logits against a plain float64 forward pass (tools/record_gguf_golden.py), text, and
   the same model in safetensors. Their tokenizers against llama.cpp's vectors. */
#include "tests/gguf_files.h"

#include "base/json.h"
#include "bench/gguf_tokenizer.h"
#include "datasets/datasets.h"
#include "eval/eval.h"
#include "kernels/cpu/cpu.h"
#include "model/decoder.h"
#include "model/model.h"
#include "tokenizer/protobuf.h"

#include <math.h>

#define GOLDEN QB_SOURCE_DIR "/tests/golden/gguf"

typedef struct {
    qb_model *model;
    qb_device *dev;
    int64_t planned_bytes; /* of all weights, before they are loaded */
} fixture;

static fixture fixture_open(const char *path) {
    fixture f;
    assert_ok(qb_model_open(path, &f.model));
    f.planned_bytes = qb_model_weight_bytes(f.model);
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 2}, &f.dev));
    assert_ok(qb_model_load(f.model, f.dev, f.model->config.max_positions, true));
    return f;
}

static void fixture_close(fixture *f) {
    qb_model_close(f->model);
    qb_memory m;
    f->dev->backend->memory(f->dev, &m);
    assert_int_equal(m.now_bytes[QB_MEMORY_WEIGHTS], 0);
    f->dev->backend->close(f->dev);
}

/* ---- logits ---- */

static void last_logits(fixture *f, const int32_t *ids, int64_t n, float *logits) {
    const qb_config *c = &f->model->config;
    const qb_backend *be = f->dev->backend;
    qb_workspace ws;
    qb_kv kv;
    float *x, *out;
    assert_ok(qb_workspace_create(f->model, n, &ws));
    assert_ok(qb_kv_create(f->model, QB_DTYPE_F32, c->n_layers, 1, n, &kv));
    assert_ok(be->alloc(f->dev, QB_MEMORY_ACTIVATIONS, n * c->hidden * 4, &x));
    assert_ok(be->alloc(f->dev, QB_MEMORY_ACTIVATIONS, c->vocab * 4, &out));
    qb_span span = {1, n, 0, &kv, 0};
    assert_ok(qb_model_next(f->model, &ws, x, ids, &span, out));
    assert_ok(be->download(f->dev, logits, out, c->vocab * 4));
    be->free(f->dev, x);
    be->free(f->dev, out);
    qb_kv_free(f->model, &kv);
    qb_workspace_free(f->model, &ws);
}

static void check_model(const qb_json *m) {
    char path[512];
    int32_t ids[64];
    int64_t n = 0;
    snprintf(path, sizeof path, GOLDEN "/%s", qb_json_string(qb_json_get(m, "file")));
    fixture f = fixture_open(path);
    const qb_json *want = qb_json_get(m, "logits");
    int64_t vocab = f.model->config.vocab;
    assert_int_equal(vocab, qb_json_count(want));
    for (const qb_json *j = qb_json_first(qb_json_get(m, "ids")); j; j = qb_json_next(j))
        ids[n++] = (int32_t)qb_json_number(j);
    float *logits;
    assert_ok(qb_alloc((size_t)vocab, 4, &logits));
    last_logits(&f, ids, n, logits);
    double worst = 0, largest = 0;
    const qb_json *j = qb_json_first(want);
    for (int64_t i = 0; i < vocab; i++, j = qb_json_next(j)) {
        double error = fabs((double)logits[i] - qb_json_number(j));
        if (!(error <= worst)) worst = error;
        if (fabs(qb_json_number(j)) > largest) largest = fabs(qb_json_number(j));
    }
    print_message("%s: logits up to %.3f, off by %.1e\n", qb_json_string(qb_json_get(m, "file")), largest,
                  worst);
    assert_true(largest > 0.5 && worst < 1e-5 * largest);
    /* A quantized table stays packed, and is the head where that is tied. */
    bool tied = f.model->config.tied_head;
    assert_int_equal(f.model->head_is_embed, tied);
    assert_non_null(f.model->embed.packed);
    const qb_matrix *head = &f.model->leave.w.matrices[f.model->topology.head];
    assert_non_null(head->packed);
    assert_true((head->packed == f.model->embed.packed) == tied);
    assert_true(f.model->embed.bytes < vocab * f.model->config.hidden * 2);
    double planned = (double)f.planned_bytes, loaded = (double)qb_model_weight_bytes(f.model);
    print_message("planned %.0f bytes of weights, loaded %.0f\n", planned, loaded);
    /* A plan is for any device; the CPU keeps K types' bits and the factors of their scales, which saves
     * more.
     */
    assert_true(planned > loaded * 0.97 && planned < loaded * 1.7);
    assert_int_equal(tied, qb_checkpoint_find(f.model->checkpoint, "lm_head.weight") == NULL);
    qb_free(logits);
    fixture_close(&f);
}

static void test_gguf_model__logits_equal_a_plain_forward_pass(void **state) {
    (void)state;
    qb_json *json;
    int n = 0;
    assert_ok(qb_json_read(GOLDEN "/golden.json", 1 << 20, &json));
    for (const qb_json *m = qb_json_first(qb_json_get(json, "models")); m; m = qb_json_next(m), n++)
        check_model(m);
    assert_int_equal(n, 2);
    qb_json_free(json);
}

/* ---- the same model in safetensors ---- */

typedef struct {
    int32_t ids[64];
    size_t n;
} generated;
static bool keep_id(void *ctx, int32_t id) {
    generated *g = ctx;
    g->ids[g->n++] = id;
    return g->n < 60;
}

static void measure(const char *path, qb_ids *text_ids, double *perplexity, generated *greedy) {
    static const char text[] =
        "Once upon a time, there was a  little girl <s> named L\xC3\xADly.\n\xE4\xB8\x96";
    fixture f = fixture_open(path);
    const qb_gguf *g = qb_checkpoint_gguf(f.model->checkpoint);
    qb_tokenizer *t;
    qb_protocol protocol;
    qb_windows windows;
    qb_data_files files;
    qb_measure row;
    assert_ok(g ? qb_gguf_tokenizer(g, &t) : qb_tokenizer_open(path, &t));
    assert_ok(qb_tokenizer_encode(t, text, sizeof text - 1, true, text_ids));
    assert_true(qb_tokenizer_adds_bos(t, QB_ENDS_TEMPLATE));
    assert_int_equal(qb_tokenizer_eos(t), 2);
    assert_ok(qb_protocol_parse("gptq-128", &protocol));
    assert_ok(qb_dataset_windows(&(qb_source){"wikitext2", shared_path("data"), t, QB_SPECIAL_TEXT},
                                 &protocol, 8, &windows, &files));
    assert_ok(qb_perplexity(f.model, f.dev, &windows, 0, &row));
    *perplexity = row.value;
    qb_measure_free(&row);
    qb_windows_free(&windows);
    *greedy = (generated){0};
    qb_generate_config config = {.tokens = 60, .top_p = 1};
    assert_ok(qb_generate(f.model, f.dev, text_ids->ids, 12, &config, keep_id, greedy));
    qb_tokenizer_close(t);
    fixture_close(&f);
}

static void test_gguf_model__equals_the_same_model_in_safetensors(void **state) {
    (void)state;
    qb_ids a = {0}, b = {0};
    double x, y;
    generated g, h;
    measure(shared_path("fixtures/stories260K-f32.gguf"), &a, &x, &g);
    measure(shared_path("models/stories260K-hf"), &b, &y, &h);
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.ids, b.ids, a.count * sizeof *a.ids);
    assert_true(x == y);
    assert_int_equal(g.n, h.n);
    assert_true(g.n > 20);
    assert_memory_equal(g.ids, h.ids, g.n * sizeof *g.ids);
    qb_ids_free(&a);
    qb_ids_free(&b);
}

/* ---- tokenizers ---- */

typedef struct {
    qb_str tokens, scores, types;
    size_t n;
} pieces;

/* One piece of a SentencePiece model: text, score, type. */
static void add_piece(qb_proto m, pieces *p) {
    qb_proto_field f;
    bool more;
    float score = 0;
    int32_t type = 1;
    while (qb_proto_next(&m, &f, &more) == QB_OK && more) {
        uint64_t n = f.length;
        if (f.number == 1) qb_str_append(&p->tokens, &n, 8), qb_str_append(&p->tokens, f.bytes, f.length);
        if (f.number == 2) score = qb_proto_float(&f);
        if (f.number == 3) type = (int32_t)f.value;
    }
    qb_str_append(&p->scores, &score, 4);
    qb_str_append(&p->types, &type, 4);
    p->n++;
}

static gguf_file vocabulary(const char *model) {
    char *bytes;
    size_t n;
    pieces p = {0};
    assert_ok(qb_file_read(model, 1 << 24, &bytes, &n));
    qb_proto m = {(const uint8_t *)bytes, (const uint8_t *)bytes + n, model, (const uint8_t *)bytes};
    qb_proto_field f;
    bool more;
    while (qb_proto_next(&m, &f, &more) == QB_OK && more)
        if (f.number == 1) add_piece(qb_proto_inside(&m, &f), &p);
    gguf_file g = gguf_begin(3, 0, 6);
    gguf_text(&g, "tokenizer.ggml.model", "llama");
    gguf_int(&g, "tokenizer.ggml.bos_token_id", 1);
    gguf_int(&g, "tokenizer.ggml.eos_token_id", 2);
    gguf_array(&g, "tokenizer.ggml.tokens", QB_GGUF_STRING, p.n);
    gguf_put(&g, p.tokens.text, p.tokens.length);
    gguf_array(&g, "tokenizer.ggml.scores", QB_GGUF_F32, p.n);
    gguf_put(&g, p.scores.text, p.scores.length);
    gguf_array(&g, "tokenizer.ggml.token_type", QB_GGUF_I32, p.n);
    gguf_put(&g, p.types.text, p.types.length);
    qb_str_free(&p.tokens);
    qb_str_free(&p.scores);
    qb_str_free(&p.types);
    qb_free(bytes);
    return g;
}

static qb_status open_tokenizer(const gguf_file *f, qb_tokenizer **out) {
    qb_arena arena = {0};
    qb_gguf g;
    assert_ok(qb_gguf_parse((const uint8_t *)f->bytes.text, f->bytes.length, "x.gguf", &arena, &g));
    qb_status st = qb_gguf_tokenizer(&g, out);
    qb_gguf_free(&g);
    qb_arena_free(&arena);
    return st;
}

/* llama.cpp's own ids for its Llama 2 vocabulary: texts between marker lines, a line of ids each, no BOS. */
static void test_gguf_model__tokenizer_equals_published_vectors(void **state) {
    (void)state;
    static const char marker[] = "\n__ggml_vocab_test__\n";
    gguf_file f = vocabulary(shared_path("tokenizers/llama2/tokenizer.model"));
    char *texts, *lines, *end;
    qb_tokenizer *t;
    int checked = 0;
    assert_ok(qb_file_read(shared_path("tokenizers/vectors/llama-spm.inp"), 1 << 20, &texts, NULL));
    assert_ok(qb_file_read(shared_path("tokenizers/vectors/llama-spm.out"), 1 << 20, &lines, NULL));
    assert_ok(open_tokenizer(&f, &t));
    char *line = lines;
    for (char *text = texts; (end = strstr(text, marker)); text = end + sizeof marker - 1, checked++) {
        qb_ids ids = {0};
        assert_ok(qb_tokenizer_encode(t, text, (size_t)(end - text), false, &ids));
        for (size_t i = 0; i < ids.count; i++) assert_int_equal(ids.ids[i], strtol(line, &line, 10));
        while (*line == ' ') line++;
        assert_int_equal(*line++, '\n');
        qb_ids_free(&ids);
    }
    assert_true(checked >= 40);
    qb_tokenizer_close(t);
    qb_free(texts);
    qb_free(lines);
    gguf_free(&f);
}

/* Pieces <unk>, <s>, </s>, the space symbol, a, b, ab and, usually user-defined, "a b". */
static gguf_file small_vocabulary(const char *model, size_t n_scores, int32_t user_type, uint32_t bos) {
    static const char *const texts[] = {"<unk>", "<s>", "</s>", "\xE2\x96\x81", "a", "b", "ab", "a b"};
    const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, user_type};
    gguf_file g = gguf_begin(2, 0, 6);
    gguf_text(&g, "tokenizer.ggml.model", model);
    gguf_int(&g, "tokenizer.ggml.bos_token_id", bos);
    gguf_key(&g, "tokenizer.ggml.add_space_prefix", QB_GGUF_BOOL);
    gguf_put(&g, "\0", 1);
    gguf_array(&g, "tokenizer.ggml.tokens", QB_GGUF_STRING, 8);
    for (int i = 0; i < 8; i++) gguf_string(&g, texts[i]);
    gguf_array(&g, "tokenizer.ggml.scores", QB_GGUF_F32, n_scores);
    for (size_t i = 0; i < n_scores; i++) gguf_put(&g, (float[]){-(float)i}, 4);
    gguf_array(&g, "tokenizer.ggml.token_type", QB_GGUF_I32, 8);
    gguf_put(&g, types, sizeof types);
    return g;
}

static void test_gguf_model__tokenizer_follows_its_metadata(void **state) {
    (void)state;
    static const int32_t expected[] = {1, 6, 7, 3, 3, 2, 4}; /* no space before, none squeezed */
    gguf_file f = small_vocabulary("llama", 8, 4, 1);
    qb_tokenizer *t;
    qb_ids ids = {0};
    qb_str text = {0};
    assert_ok(open_tokenizer(&f, &t));
    assert_ok(qb_tokenizer_encode(t, "aba b  </s>a", 12, true, &ids));
    assert_int_equal(ids.count, 7);
    assert_memory_equal(ids.ids, expected, sizeof expected);
    assert_ok(qb_tokenizer_decode(t, ids.ids, ids.count, &text));
    assert_string_equal(text.text, "aba b  a");
    qb_ids_free(&ids);
    assert_ok(qb_tokenizer_encode_as(t, "</s>", 4, &(qb_encoding){.special = QB_SPECIAL_TEXT},
                                     &ids)); /* plain text: unknown characters */
    assert_int_equal(ids.ids[0], 0);
    assert_int_equal(qb_tokenizer_eos(t), -1);
    qb_ids_free(&ids);
    qb_str_free(&text);
    qb_tokenizer_close(t);
    gguf_free(&f);
}

static void refuse(gguf_file f, qb_status status, const char *needle) {
    qb_tokenizer *t;
    assert_fails(open_tokenizer(&f, &t), status, needle);
    gguf_free(&f);
}

static void test_gguf_model__tokenizers_that_are_not_understood_are_refused(void **state) {
    (void)state;
    refuse(small_vocabulary("bert", 8, 4, 1), QB_ERR_UNSUPPORTED,
           "tokenizer.ggml.model \"bert\" is not supported");
    refuse(small_vocabulary("gpt2", 8, 4, 1), QB_ERR_FORMAT, "metadata tokenizer.ggml.merges is missing");
    refuse(small_vocabulary("none", 8, 4, 1), QB_ERR_UNSUPPORTED, "has no tokenizer");
    refuse(small_vocabulary("llama", 7, 4, 1), QB_ERR_FORMAT, "has 7 items, tokenizer.ggml.tokens 8");
    refuse(small_vocabulary("llama", 8, 9, 1), QB_ERR_FORMAT, "piece 7 has the unknown type 9");
    refuse(small_vocabulary("llama", 8, -1, 1), QB_ERR_FORMAT, "piece 7 has the unknown type 0");
    refuse(small_vocabulary("llama", 8, 2, 1), QB_ERR_FORMAT, "are both of type UNKNOWN");
    refuse(gguf_begin(3, 0, 0), QB_ERR_FORMAT, "tokenizer.ggml.model is missing");
    refuse(small_vocabulary("llama", 8, 4, 8), QB_ERR_FORMAT,
           "the bos token is 8, though the vocabulary has 8 pieces");
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_model__logits_equal_a_plain_forward_pass),
        cmocka_unit_test(test_gguf_model__equals_the_same_model_in_safetensors),
        cmocka_unit_test(test_gguf_model__tokenizer_equals_published_vectors),
        cmocka_unit_test(test_gguf_model__tokenizer_follows_its_metadata),
        cmocka_unit_test(test_gguf_model__tokenizers_that_are_not_understood_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
