/* Every case of tests/golden/families (tools/make_family_goldens.py): logits against the reference at once
   and token by token, old spellings of the config, the GGUF twin, perplexity, and a quantization of every
   linear. */
#include "tests/support.h"

#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "datasets/datasets.h"
#include "eval/eval.h"
#include "kernels/cpu/cpu.h"
#include "model/decoder.h"
#include "quant/convert.h"
#include "quant/driver.h"

#include <math.h>

#define GOLDEN QB_SOURCE_DIR "/tests/golden/families"
enum { TOKENS = 64, CASES_MAX = 256 };

static int32_t ids[TOKENS];

typedef struct {
    const qb_json *row; /* of the manifest */
    char dir[512];
    int64_t vocab;
    float *want, largest; /* [TOKENS, V], and its largest absolute value */
    double tolerance;
} family_case;

/* ---- a loaded model ---- */

typedef struct {
    qb_model *m;
    qb_device *dev;
    qb_workspace ws;
    qb_kv kv;
    float *x, *logits;
} runner;

static runner load(qb_model *m) {
    runner r = {.m = m};
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 1}, &r.dev));
    assert_ok(qb_model_load(m, r.dev, TOKENS, true));
    assert_ok(qb_workspace_create(m, TOKENS, &r.ws));
    assert_ok(qb_kv_create(m, QB_DTYPE_F32, m->config.n_layers, 1, TOKENS, &r.kv));
    const qb_backend *be = r.dev->backend;
    assert_ok(be->alloc(r.dev, QB_MEMORY_ACTIVATIONS, TOKENS * m->config.hidden * 4, &r.x));
    assert_ok(be->alloc(r.dev, QB_MEMORY_ACTIVATIONS, TOKENS * m->config.vocab * 4, &r.logits));
    return r;
}

static void unload(runner *r) {
    const qb_backend *be = r->dev->backend;
    be->free(r->dev, r->x);
    be->free(r->dev, r->logits);
    qb_kv_free(r->m, &r->kv);
    qb_workspace_free(r->m, &r->ws);
    qb_model_close(r->m);
    be->close(r->dev);
}

/* Logits of all ids, `step` tokens at a time: new memory [TOKENS, V]. */
static float *logits_of(runner *r, int64_t step) {
    int64_t vocab = r->m->config.vocab;
    float *out;
    assert_ok(qb_alloc((size_t)(TOKENS * vocab), sizeof *out, &out));
    for (int64_t first = 0; first < TOKENS; first += step) {
        qb_span s = {.n_seq = 1, .n_tok = step, .first = first, .kv = &r->kv};
        assert_ok(qb_model_forward(r->m, &r->ws, r->x, ids + first, &s));
        assert_ok(qb_model_head(r->m, &r->ws, r->logits, r->x, step));
        assert_ok(r->dev->backend->download(r->dev, out + first * vocab, r->logits, step * vocab * 4));
    }
    return out;
}

/* The largest difference over the largest logit; infinite where one is not finite. */
static double distance(const family_case *c, const float *got, const float *want) {
    double worst = 0;
    for (int64_t i = 0; i < TOKENS * c->vocab; i++) {
        double error = fabs((double)got[i] - (double)want[i]);
        if (!isfinite(error)) return INFINITY;
        if (error > worst) worst = error;
    }
    return worst / (double)c->largest;
}

static void check_distance(const family_case *c, const char *what, double found, double limit) {
    print_message("%s: %s off by %.1e of the largest logit\n", qb_json_string(qb_json_get(c->row, "name")),
                  what, found);
    if (!(found < limit)) fail_msg("%s is off by %.1e, allowed are %.1e", what, found, limit);
}

/* ---- the checks ---- */

static void check_prefill(const family_case *c, const char *what, const char *path, double limit) {
    qb_model *m;
    assert_ok(qb_model_open(path, &m));
    assert_int_equal(m->config.vocab, c->vocab);
    runner r = load(m);
    float *got = logits_of(&r, TOKENS);
    check_distance(c, what, distance(c, got, c->want), limit);
    qb_free(got);
    unload(&r);
}

static void check_logits_and_perplexity(const family_case *c) {
    qb_model *m;
    assert_ok(qb_model_open(c->dir, &m));
    runner r = load(m);
    float *at_once = logits_of(&r, TOKENS), *one_by_one = logits_of(&r, 1);
    check_distance(c, "prefill", distance(c, at_once, c->want), c->tolerance);
    check_distance(c, "token by token against prefill", distance(c, one_by_one, at_once), 1e-5);
    qb_free(at_once);
    qb_free(one_by_one);

    qb_window window = {.length = TOKENS, .score_begin = 1, .score_end = TOKENS};
    qb_windows windows = {.ids = ids,
                          .n_ids = TOKENS,
                          .windows = &window,
                          .count = 1,
                          .max_length = TOKENS,
                          .mean = QB_MEAN_OF_TOKENS,
                          .protocol = "golden",
                          .dataset = "golden"};
    qb_measure measure;
    assert_ok(qb_perplexity(r.m, r.dev, &windows, 0, &measure));
    double off = fabs(measure.value / qb_json_number(qb_json_get(c->row, "perplexity")) - 1);
    if (!(off < 1e-4)) fail_msg("perplexity is %.6f, off by %.1e", measure.value, off);
    qb_measure_free(&measure);
    unload(&r);
}

static void check_old_config(const family_case *c) {
    char path[600], *dir = scratch_make(), *config = qb_path_join(dir, "config.json"),
                    *weights = qb_path_join(dir, "model.safetensors");
    snprintf(path, sizeof path, "%s/config-old.json", c->dir);
    assert_ok(qb_copy_file(path, config));
    snprintf(path, sizeof path, "%s/model.safetensors", c->dir);
    assert_ok(qb_copy_file(path, weights));
    check_prefill(c, "config-old.json", dir, c->tolerance);
    qb_free(config);
    qb_free(weights);
    scratch_remove(dir);
}

/* Experts that the class stacks: kept in one tensor they are not quantized; apart, in GPTQ's layout alone. */
static const char *why_not_quantized(const qb_topology *t, const char *method) {
    for (int64_t l = 0; l < t->n_layers; l++)
        for (size_t i = 0; i < t->layers[l].n_linears; i++) {
            const qb_linear *w = &t->layers[l].linears[i];
            if (w->stored >= QB_STORED_STACKED_ROWS) return "three dimensions";
            if (w->stack && !strcmp(method, "nf4"))
                return "no program reads experts of this family one by one";
        }
    return NULL;
}

/* Written as a directory, it is a checkpoint of the family: names, shapes and order of rows are the class's.
 */
static void check_shapes(const family_case *c, const char *written) {
    qb_checkpoint *own, *made;
    size_t both = 0;
    assert_ok(qb_checkpoint_open(c->dir, &own));
    assert_ok(qb_checkpoint_open(written, &made));
    for (size_t i = 0; i < qb_checkpoint_count(own); i++) {
        const qb_tensor *a = qb_checkpoint_at(own, i), *b = qb_checkpoint_find(made, a->name);
        if (!b) continue; /* published under other names, or in other parts */
        both++;
        if (a->n_dims != b->n_dims || memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof *a->shape) != 0) {
            char expected[128], found[128];
            fail_msg("%s: %s is %s for the class, and written as %s", written, a->name,
                     qb_shape_text(a->n_dims, a->shape, expected), qb_shape_text(b->n_dims, b->shape, found));
        }
    }
    if (both < 3) print_message("%s: published under other names\n", c->dir);
    assert_true(both > 2 || !strstr(c->dir, "qwen")); /* theirs are the class's own */
    qb_checkpoint_close(own);
    qb_checkpoint_close(made);
}
static void check_gguf_written(const family_case *c, const char *path) {
    qb_conversion conversion;
    qb_model *m;
    char *dir = scratch_make(), *out = qb_path_join(dir, "dense");
    assert_ok(qb_model_open(path, &m));
    assert_ok(qb_convert_model(m, "f32", &(qb_quant_target){.dir = out}, &conversion));
    qb_model_close(m);
    check_prefill(c, "f32 of model.gguf", out, c->tolerance);
    check_shapes(c, out);
    qb_free(out);
    scratch_remove(dir);
}

static void check_gguf(const family_case *c, const char *path) {
    check_prefill(c, "model.gguf", path, c->tolerance);
    check_gguf_written(c, path);
}

/* Linears that methods quantize, and whether the GPTQ layout holds all their shapes. */
static size_t quantized_linears(const qb_topology *t, bool *gptq) {
    size_t n = 0;
    *gptq = true;
    for (int64_t l = 0; l < t->n_layers; l++)
        for (size_t i = 0; i < t->layers[l].n_linears; i++) {
            const qb_linear *w = &t->layers[l].linears[i];
            n += w->quantized;
            if (w->quantized && (w->rows % 32 || w->cols % 32)) *gptq = false;
        }
    return n;
}

static bool ends_like_one(const char *name, const qb_json *ends) {
    size_t length = strlen(name);
    for (const qb_json *j = qb_json_first(ends); j; j = qb_json_next(j)) {
        size_t n = strlen(qb_json_string(j));
        if (n < length && !strcmp(name + length - n, qb_json_string(j))) return true;
    }
    return false;
}

/* optimum finds a GPTQ directory's blocks by their name, and what is quantized there by the ends of names:
   all linears without a list. */
static void check_blocks(const char *dir, const qb_json *quantization) {
    const qb_json *lists = qb_json_get(quantization, "modules_in_block_to_quantize");
    const char *block = qb_json_string(qb_json_get(quantization, "block_name_to_quantize"));
    char name[QB_NAME_BYTES];
    qb_model *m;
    if (strcmp(qb_json_string(qb_json_get(quantization, "quant_method")), "gptq") != 0) {
        assert_null(block);
        assert_null(lists);
        return;
    }
    assert_ok(qb_model_open(dir, &m));
    for (int64_t layer = 0; layer < m->topology.n_layers; layer++)
        for (size_t i = 0; i < m->topology.layers[layer].n_linears; i++) {
            const qb_linear *l = &m->topology.layers[layer].linears[i];
            qb_linear_name(l, layer, name);
            assert_memory_equal(name, block, strlen(block));
            assert_int_equal(l->quantized, !lists || ends_like_one(name, qb_json_first(lists)));
        }
    qb_model_close(m);
}

/* A wrapper's language model is written alone, as a model of its own class: its names fit no wrapper. */
static void check_config(const char *dir) {
    char *path = qb_path_join(dir, "config.json");
    qb_json *config;
    assert_ok(qb_json_read(path, 1 << 20, &config));
    assert_null(qb_json_get(config, "text_config"));
    check_blocks(dir, qb_json_get(config, "quantization_config"));
    const char *name = qb_json_string(qb_json_first(qb_json_get(config, "architectures")));
    assert_null(strstr(name, "ForConditionalGeneration"));
    const qb_family *f = qb_family_find(name);
    assert_non_null(f);
    assert_ptr_equal(f, qb_family_of_type(qb_json_string(qb_json_get(config, "model_type"))));
    qb_json_free(config);
    qb_free(path);
}

static float *logits_of_directory(const char *path) {
    qb_model *m;
    assert_ok(qb_model_open(path, &m));
    runner r = load(m);
    float *got = logits_of(&r, TOKENS);
    unload(&r);
    return got;
}

/* Written out dense again, the weights are the same numbers, in the form that the family's files have. */
static void check_dequantized(const family_case *c, const char *quantized) {
    qb_conversion conversion;
    qb_model *m;
    char *dir = scratch_make(), *out = qb_path_join(dir, "dense");
    assert_ok(qb_model_open(quantized, &m));
    assert_ok(qb_convert_model(m, "f32", &(qb_quant_target){.dir = out}, &conversion));
    qb_model_close(m);
    float *want = logits_of_directory(quantized), *got = logits_of_directory(out);
    check_distance(c, "f32 of it", distance(c, got, want), 1e-5);
    qb_free(want);
    qb_free(got);
    qb_free(out);
    scratch_remove(dir);
}

/* n: the linears that are written. */
static void quantize(const family_case *c, const char *name, bool true_sequential, size_t n, double limit) {
    const qb_quant_method *method = qb_quant_method_find(name);
    qb_quant_config config = {0};
    qb_quant_report report;
    qb_windows windows = {0};
    qb_model *m;
    qb_device *dev;
    char what[64], *dir = scratch_make(), *out = qb_path_join(dir, "quantized");
    qb_options_defaults(method->options, &config);
    if (strcmp(name, "nf4") != 0)
        config.bits = 8, config.group_size = (int64_t)qb_json_number(qb_json_get(c->row, "group"));
    config.true_sequential = true_sequential;
    if (method->needs) assert_ok(qb_random_windows(c->vocab, 4, TOKENS, 1, &windows));
    assert_ok(qb_model_open(c->dir, &m));
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 1}, &dev));
    qb_status st = qb_quantize_model(m, dev, method, &config, method->needs ? &windows : NULL,
                                     &(qb_quant_target){.dir = out}, &report);
    const char *why = why_not_quantized(&m->topology, name);
    if (why) {
        assert_fails(st, QB_ERR_UNSUPPORTED, why);
        qb_error_clear();
    } else {
        assert_ok(st);
        assert_int_equal(report.n_modules, n);
    }
    qb_quant_report_free(&report);
    qb_windows_free(&windows);
    qb_model_close(m);
    dev->backend->close(dev);
    snprintf(what, sizeof what, "%s%s", name, true_sequential ? ", site by site," : "");
    if (!why) {
        check_prefill(c, what, out, limit);
        check_config(out);
        check_dequantized(c, out);
    }
    qb_free(out);
    scratch_remove(dir);
}

/* Round to nearest and GPTQ with 8 bits, or NF4 where the GPTQ layout cannot hold a shape: every linear of
   every layer is written, read back and computed with. Experts that no program reads are refused.
   The limits are wide: a router or a deep sandwich of norms makes much of a small error. */
static void check_quantized(const family_case *c) {
    if (qb_json_string(qb_json_get(c->row, "stored"))) {
        print_message("skipped: what is stored as %s is not quantized again\n",
                      qb_json_string(qb_json_get(c->row, "stored")));
        return;
    }
    qb_model *m;
    bool gptq;
    assert_ok(qb_model_open(c->dir, &m));
    size_t n = quantized_linears(&m->topology, &gptq);
    double limit = m->topology.experts > 0 ? 1 : 0.25; /* another expert is another model */
    qb_model_close(m);
    assert_true(n > 0);
    if (!gptq) {
        quantize(c, "nf4", false, n, 3);
        return;
    }
    quantize(c, "rtn", false, n, limit);
    quantize(c, "gptq", false, n, limit);
    quantize(c, "gptq", true, n, limit);
}

static family_case open_case(const qb_json *row) {
    family_case c = {.row = row,
                     .vocab = (int64_t)qb_json_number(qb_json_get(row, "vocab_size")),
                     .tolerance = qb_json_number(qb_json_get(row, "tolerance"))};
    char path[600], *bytes;
    size_t n;
    snprintf(c.dir, sizeof c.dir, GOLDEN "/%s", qb_json_string(qb_json_get(row, "name")));
    snprintf(path, sizeof path, "%s/logits.bin", c.dir);
    assert_ok(qb_file_read(path, 1 << 24, &bytes, &n));
    assert_int_equal(n, (size_t)(TOKENS * c.vocab) * sizeof *c.want);
    assert_ok(qb_alloc((size_t)(TOKENS * c.vocab), sizeof *c.want, &c.want));
    memcpy(c.want, bytes, n);
    qb_free(bytes);
    for (int64_t i = 0; i < TOKENS * c.vocab; i++) c.largest = fmaxf(c.largest, fabsf(c.want[i]));
    assert_true(c.largest > 0.5f && c.tolerance > 0 && c.tolerance <= 1e-4);
    return c;
}

static void test_families__equals_its_reference(void **state) {
    const qb_json *row = *state;
    const char *name = qb_json_string(qb_json_get(row, "name"));
    family_case c = open_case(row);
    char path[600];
    if (!qb_family_find(qb_json_string(qb_json_get(row, "architecture")))) {
        snprintf(path, sizeof path, "%s/model.gguf", c.dir);
        if (qb_path_exists(path)) check_gguf(&c, path);
        qb_free(c.want);
        print_message("not yet: %s\n", name);
        skip();
    }
    check_logits_and_perplexity(&c);
    snprintf(path, sizeof path, "%s/config-old.json", c.dir);
    assert_int_equal(qb_path_exists(path), qb_json_true(qb_json_get(row, "config_old")));
    if (qb_path_exists(path)) check_old_config(&c);
    snprintf(path, sizeof path, "%s/model.gguf", c.dir);
    if (qb_path_exists(path)) check_gguf(&c, path);
    check_quantized(&c);
    qb_free(c.want);
}

int main(int argc, char **argv) {
    static struct CMUnitTest tests[CASES_MAX];
    qb_json *manifest;
    size_t n = 0, n_ids = 0;
    qb_blas_ensure_core(argv);
    if (qb_json_read(GOLDEN "/manifest.json", 1 << 20, &manifest) != QB_OK) {
        fprintf(stderr, "%s\n", qb_error_text());
        return 1;
    }
    for (const qb_json *j = qb_json_first(qb_json_get(manifest, "ids")); j && n_ids < TOKENS;
         j = qb_json_next(j))
        ids[n_ids++] = (int32_t)qb_json_number(j);
    /* An argument: cases whose names begin so. */
    for (const qb_json *j = qb_json_first(qb_json_get(manifest, "cases")); j && n < CASES_MAX;
         j = qb_json_next(j)) {
        const char *name = qb_json_string(qb_json_get(j, "name"));
        if (argc > 1 && strncmp(name, argv[1], strlen(argv[1])) != 0) continue;
        tests[n++] = (struct CMUnitTest){.name = name,
                                         .test_func = test_families__equals_its_reference,
                                         .initial_state = (void *)(uintptr_t)j};
    }
    if (n == 0 || n_ids != TOKENS) {
        fprintf(stderr, "no cases, or not %d ids\n", TOKENS);
        return 1;
    }
    int failed = _cmocka_run_group_tests("families", tests, n, NULL, NULL);
    qb_json_free(manifest);
    return failed;
}
