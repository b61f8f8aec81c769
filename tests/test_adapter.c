/* Merging adapters: every case of tests/golden/adapters (tools/record_adapter_golden.py) against the logits
   of the unmerged model in PEFT, nf4 bases bit for bit, and adapters that do not fit. */
#include "tests/support.h"

#include "adapter/match.h"
#include "adapter/merge.h"
#include "base/hash.h"
#include "checkpoint/writer.h"
#include "kernels/cpu/cpu.h"
#include "model/decoder.h"
#include "quant/convert.h"
#include "tests/checkpoint_files.h"

#include <dirent.h>
#include <math.h>

#define GOLDEN   QB_SOURCE_DIR "/tests/golden/adapters"
#define FAMILIES QB_SOURCE_DIR "/tests/golden/families"
enum { TOKENS = 6 };
static const int32_t ids[TOKENS] = {7, 40, 3, 5, 81, 12};
#define TOLERANCE 1e-5F

static void path_of(char out[512], const char *root, const char *name) {
    snprintf(out, 512, "%s/%s", root, name);
}

/* ---- merging and running ---- */

static qb_status merge(const char *base, const char *adapter, qb_dtype as, bool residual_base,
                       const char *target, qb_merge_report *report) {
    qb_model *m = NULL;
    qb_adapter a = {0};
    qb_status st;
    QB_TRY(st, qb_model_open(base, &m));
    QB_TRY(st, qb_adapter_open(adapter, residual_base, &a));
    st = qb_merge_model(m, &a, as, NULL, &(qb_quant_target){.dir = target, .replace = true}, report);
out:
    qb_adapter_close(&a);
    qb_model_close(m);
    return st;
}

static float *logits_of(const char *dir, int64_t *n) {
    qb_model *m;
    qb_device *dev;
    qb_workspace ws;
    qb_kv kv;
    float *x, *logits, *host;
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 1}, &dev));
    const qb_backend *be = dev->backend;
    assert_ok(qb_model_open(dir, &m));
    assert_ok(qb_model_load(m, dev, TOKENS, true));
    assert_ok(qb_workspace_create(m, TOKENS, &ws));
    assert_ok(qb_kv_create(m, QB_DTYPE_F32, m->config.n_layers, 1, TOKENS, &kv));
    *n = TOKENS * m->config.vocab;
    assert_ok(be->alloc(dev, QB_MEMORY_ACTIVATIONS, TOKENS * m->config.hidden * 4, &x));
    assert_ok(be->alloc(dev, QB_MEMORY_ACTIVATIONS, *n * 4, &logits));
    assert_ok(qb_alloc((size_t)*n, sizeof *host, &host));
    assert_ok(qb_model_forward(m, &ws, x, ids, &(qb_span){.n_seq = 1, .n_tok = TOKENS, .kv = &kv}));
    assert_ok(qb_model_head(m, &ws, logits, x, TOKENS));
    assert_ok(be->download(dev, host, logits, *n * 4));
    be->free(dev, x);
    be->free(dev, logits);
    qb_kv_free(m, &kv);
    qb_workspace_free(m, &ws);
    qb_model_close(m);
    be->close(dev);
    return host;
}

static void base_of(const char *adapter, char out[512]) {
    qb_checkpoint *ck;
    assert_ok(qb_checkpoint_open_adapter(adapter, &ck));
    path_of(out, FAMILIES, qb_json_string(qb_json_get(qb_checkpoint_config(ck), "base_model_name_or_path")));
    qb_checkpoint_close(ck);
}

static void check_case(const char *name, const char *scratch) {
    char adapter[512], base[512], target[512], file[600];
    qb_merge_report report;
    char *bytes;
    size_t size;
    int64_t n;
    float largest = 0;
    path_of(adapter, GOLDEN, name);
    path_of(target, scratch, name);
    snprintf(file, sizeof file, "%s/logits.bin", adapter);
    base_of(adapter, base);
    assert_ok(merge(base, adapter, QB_DTYPE_COUNT, false, target, &report));
    float *got = logits_of(target, &n);
    assert_ok(qb_file_read(file, 1 << 20, &bytes, &size));
    assert_int_equal(size, (size_t)n * 4);
    const float *want = (const float *)(const void *)bytes;
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= largest)) largest = fabsf(got[i] - want[i]);
    if (!(largest <= TOLERANCE)) fail_msg("%s: logits differ by %g", name, (double)largest);
    assert_true(report.lora > 0 && report.rounded == 0);
    assert_string_equal(report.dtype, "float32");
    qb_free(got);
    qb_free(bytes);
}

static void test_adapter__merged_logits_are_those_of_the_unmerged_model(void **state) {
    (void)state;
    char *scratch = scratch_make();
    DIR *dir = opendir(GOLDEN);
    int n = 0;
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] != '.' && strcmp(e->d_name, "nf4") != 0) {
            check_case(e->d_name, scratch);
            n++;
        }
    closedir(dir);
    assert_true(n >= 38);
    scratch_remove(scratch);
}

/* ---- nf4 ---- */

static void hash_tensor(const char *dir, const char *name, char hex[QB_SHA256_HEX]) {
    qb_checkpoint *ck;
    const qb_tensor *t;
    const void *bytes;
    assert_ok(qb_checkpoint_open(dir, &ck));
    assert_ok(qb_checkpoint_need(ck, name, &t));
    assert_ok(qb_checkpoint_acquire(ck, t, &bytes));
    assert_ok(qb_hash_bytes(bytes, (size_t)t->bytes, hex));
    qb_checkpoint_release(ck, t);
    qb_checkpoint_close(ck);
}

/* bitsandbytes' dequantization and PEFT's update, added in float32 and rounded by torch. */
static void test_adapter__an_nf4_base_is_what_the_adapter_saw(void **state) {
    (void)state;
    char *scratch = scratch_make(), target[512], hex[QB_SHA256_HEX];
    qb_merge_report report;
    qb_json *want;
    path_of(target, scratch, "merged");
    assert_ok(merge(GOLDEN "/nf4/base", GOLDEN "/nf4", QB_DTYPE_COUNT, false, target, &report));
    assert_int_equal(report.dequantized, 14);
    assert_int_equal(report.tensors, 4);
    assert_ok(qb_json_read(GOLDEN "/nf4/merged.json", 1 << 20, &want));
    for (const qb_json *j = qb_json_first(want); j; j = qb_json_next(j)) {
        hash_tensor(target, qb_json_key(j), hex);
        if (strcmp(hex, qb_json_string(j)) != 0) fail_msg("%s is not what torch makes", qb_json_key(j));
    }
    qb_json_free(want);
    qb_checkpoint *ck;
    assert_ok(qb_checkpoint_open(target, &ck));
    assert_null(qb_json_get(qb_checkpoint_config(ck), "quantization_config"));
    qb_checkpoint_close(ck);
    scratch_remove(scratch);
}

static void quantize_nf4(const char *from, const char *to) {
    const qb_quant_method *method = qb_quant_method_find("nf4");
    qb_quant_config config = {0};
    qb_quant_report report = {0};
    qb_device *dev;
    qb_model *m;
    qb_options_defaults(method->options, &config);
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 1}, &dev));
    assert_ok(qb_model_open(from, &m));
    assert_ok(qb_quantize_model(m, dev, method, &config, NULL, &(qb_quant_target){.dir = to}, &report));
    qb_quant_report_free(&report);
    qb_model_close(m);
    dev->backend->close(dev);
}

static void convert(const char *from, const char *type, const char *to) {
    qb_model *m;
    qb_conversion report;
    assert_ok(qb_model_open(from, &m));
    assert_ok(qb_convert_model(m, type, &(qb_quant_target){.dir = to}, &report));
    qb_model_close(m);
}

static void assert_same_tensors(const char *a, const char *b) {
    char x[QB_SHA256_HEX], y[QB_SHA256_HEX];
    qb_checkpoint *ck, *other;
    assert_ok(qb_checkpoint_open(a, &ck));
    assert_ok(qb_checkpoint_open(b, &other));
    assert_int_equal(qb_checkpoint_count(ck), qb_checkpoint_count(other));
    qb_checkpoint_close(other);
    for (size_t i = 0; i < qb_checkpoint_count(ck); i++) {
        hash_tensor(a, qb_checkpoint_at(ck, i)->name, x);
        hash_tensor(b, qb_checkpoint_at(ck, i)->name, y);
        if (strcmp(x, y) != 0) fail_msg("%s differs", qb_checkpoint_at(ck, i)->name);
    }
    qb_checkpoint_close(ck);
}

/* Two ways to the same bytes: merging onto nf4, and dequantizing first and merging onto what that wrote. */
static void test_adapter__merging_onto_nf4_is_dequantizing_and_adding(void **state) {
    (void)state;
    char *scratch = scratch_make(), half[512], nf4[512], dense[512], at_once[512], in_turn[512];
    qb_merge_report report;
    path_of(half, scratch, "half");
    path_of(nf4, scratch, "nf4");
    path_of(dense, scratch, "dense");
    path_of(at_once, scratch, "at-once");
    path_of(in_turn, scratch, "in-turn");
    convert(FAMILIES "/llama", "f16", half);
    quantize_nf4(half, nf4);
    convert(nf4, "f16", dense);
    assert_ok(merge(nf4, GOLDEN "/patterns", QB_DTYPE_COUNT, false, at_once, &report));
    assert_int_equal(report.dequantized, 14);
    assert_string_equal(report.dtype, "float16");
    assert_ok(merge(dense, GOLDEN "/patterns", QB_DTYPE_COUNT, false, in_turn, &report));
    assert_int_equal(report.dequantized, 0);
    assert_same_tensors(at_once, in_turn);
    scratch_remove(scratch);
}

/* ---- adapters that do not fit ---- */

/* A copy of a golden adapter with one thing changed. */
typedef struct {
    const char *adapter, *base;
    const char *key, *value;                 /* of adapter_config.json: this JSON instead */
    const char *tensor;                      /* without "base_model.model." */
    enum { KEEP, DROP, NARROW, RENAME } how; /* NARROW: one row less */
    const char *name;                        /* RENAME */
    qb_status status;
    const char *needle;
} spoil;

static bool is_spoilt(const spoil *s, const qb_tensor *t) {
    return s->tensor && !strcmp(t->name + strlen("base_model.model."), s->tensor);
}

static void write_spoilt(const spoil *s, const char *target) {
    char from[512], old[600], new[600], name[600];
    qb_checkpoint *ck;
    qb_writer *w;
    qb_json *value;
    path_of(from, GOLDEN, s->adapter);
    assert_ok(qb_checkpoint_open_adapter(from, &ck));
    assert_ok(qb_writer_create(target, true, 0, &w));
    for (int put = 0; put < 2; put++) {
        for (size_t i = 0; i < qb_checkpoint_count(ck); i++) {
            const qb_tensor *t = qb_checkpoint_at(ck, i);
            bool spoilt = is_spoilt(s, t);
            int64_t shape[2] = {t->shape[0] - (spoilt && s->how == NARROW), t->shape[1]};
            const void *bytes;
            snprintf(name, sizeof name, "%s", spoilt && s->how == RENAME ? s->name : t->name);
            if (spoilt && s->how == DROP) continue;
            if (!put) {
                assert_ok(qb_writer_plan(w, name, t->dtype, t->n_dims, shape));
                continue;
            }
            assert_ok(qb_checkpoint_acquire(ck, t, &bytes));
            assert_ok(qb_writer_put(w, name, bytes, qb_writer_planned_bytes(w, name)));
            qb_checkpoint_release(ck, t);
        }
        if (!put) assert_ok(qb_writer_begin(w));
    }
    qb_json *config = qb_json_copy(qb_checkpoint_config(ck));
    if (s->key) {
        assert_ok(qb_json_parse(s->value, strlen(s->value), "value", &value));
        qb_json_put(config, s->key, value);
    }
    assert_ok(qb_writer_put_json(w, "adapter_config.json", config));
    qb_json_free(config);
    assert_ok(qb_writer_finish(w));
    qb_checkpoint_close(ck);
    snprintf(old, sizeof old, "%s/model.safetensors", target);
    snprintf(new, sizeof new, "%s/adapter_model.safetensors", target);
    assert_int_equal(rename(old, new), 0);
}

static void check_spoilt(const spoil *s) {
    char *scratch = scratch_make(), adapter[512], base[512], target[512];
    qb_merge_report report;
    path_of(adapter, scratch, "adapter");
    path_of(target, scratch, "target");
    path_of(base, FAMILIES, s->base ? s->base : "llama");
    write_spoilt(s, adapter);
    qb_status st = merge(base, adapter, QB_DTYPE_COUNT, false, target, &report);
    if (s->status == QB_OK) {
        assert_ok(st);
    } else {
        assert_fails(st, s->status, s->needle);
        assert_null(strchr(qb_error_text(), '\n'));
        assert_false(qb_path_exists(target));
    }
    scratch_remove(scratch);
}

#define Q0 "model.layers.0.self_attn.q_proj."

static void test_adapter__what_does_not_fit_is_refused_in_one_line(void **state) {
    (void)state;
    static const spoil cases[] = {
        {"plain", .status = QB_OK},
        /* another base */
        {"plain", "gpt2", .status = QB_ERR_FORMAT, .needle = "which the base gpt2 does not have"},
        {"plain", "llama-head-dim", .status = QB_ERR_FORMAT, .needle = "is this the base"},
        {"experts", "llama", .status = QB_ERR_FORMAT, .needle = "does not have"},
        {"lora-bias", "llama", .status = QB_ERR_UNSUPPORTED, .needle = "the base has no such bias"},
        /* ranks */
        {"plain", .key = "r", .value = "4", .status = QB_ERR_FORMAT,
         .needle = "a rank of 2, but adapter_config.json says 4"},
        {"plain", .key = "rank_pattern", .value = "{\"layers.1.self_attn.q_proj\":3}",
         .status = QB_ERR_FORMAT,
         .needle = "layers.1.self_attn.q_proj.lora_A.weight is [2, 32]: a rank of 2"},
        {"plain", .tensor = Q0 "lora_A.weight", .how = NARROW, .status = QB_ERR_FORMAT,
         .needle = "a rank of 1"},
        {"experts", "mixtral", .key = "r", .value = "3", .status = QB_ERR_FORMAT, .needle = "rank x experts"},
        /* missing and unused tensors */
        {"plain", .tensor = Q0 "lora_A.weight", .how = DROP, .status = QB_ERR_FORMAT,
         .needle = "has no lora_A"},
        {"plain", .tensor = Q0 "lora_B.weight", .how = DROP, .status = QB_ERR_FORMAT,
         .needle = "has no lora_B"},
        {"plain", .key = "target_modules", .value = "[\"q_proj\",\"v_proj\",\"o_proj\"]",
         .status = QB_ERR_FORMAT,
         .needle = "names model.layers.0.self_attn.o_proj.weight, but there is no tensor"},
        {"plain", .key = "target_modules", .value = "[\"q_proj\",\"v_proj\",\"embed_tokens\"]",
         .status = QB_ERR_FORMAT, .needle = "embed_tokens.weight"},
        {"plain", .key = "target_modules", .value = "[\"q_proj\"]", .status = QB_ERR_FORMAT,
         .needle = "does not name its module"},
        {"plain", .key = "layers_to_transform", .value = "[0]", .status = QB_ERR_FORMAT,
         .needle = "layers.1.self_attn.q_proj.lora_A.weight is there, but"},
        {"plain", .tensor = Q0 "lora_B.weight", .how = RENAME, .name = "base_model.model." Q0 "lora_C.weight",
         .status = QB_ERR_UNSUPPORTED, .needle = "lora_C.weight is not one"},
        {"plain", .tensor = Q0 "lora_B.weight", .how = RENAME, .name = "model." Q0 "lora_B.weight",
         .status = QB_ERR_UNSUPPORTED, .needle = "is not one that a LoRA adapter is merged from"},
        {"saved", .key = "modules_to_save", .value = "[\"lm_head\"]", .status = QB_ERR_FORMAT,
         .needle = "modules_to_save"},
        {"saved", .tensor = "lm_head.weight", .how = NARROW, .status = QB_ERR_UNSUPPORTED,
         .needle = "to 95 rows, the base's has 96, and the adapter does not hold the whole embedding"},
        {"grown", .tensor = "lm_head.weight", .how = NARROW, .status = QB_ERR_UNSUPPORTED,
         .needle = "the whole head"},
        {"grown-auto", .tensor = "lm_head.weight", .how = DROP, .status = QB_ERR_UNSUPPORTED,
         .needle = "the whole head"},
        {"bias-all", "llama-bias", .key = "bias", .value = "\"none\"", .status = QB_ERR_FORMAT,
         .needle = "bias"},
        {"dora", .tensor = Q0 "lora_magnitude_vector", .how = DROP, .status = QB_ERR_FORMAT,
         .needle = "has no lora_magnitude_vector"},
        {"dora", .key = "use_dora", .value = "false", .status = QB_ERR_FORMAT, .needle = "is of DoRA"},
        {"lora-bias", "llama-bias", .tensor = Q0 "lora_B.bias", .how = DROP, .status = QB_ERR_FORMAT,
         .needle = "has no lora_B.bias"},
        /* rows of tokens */
        {"tokens", .key = "trainable_token_indices", .value = "null", .status = QB_ERR_FORMAT,
         .needle = "names no rows"},
        {"tokens", .key = "trainable_token_indices", .value = "[3,96,7]", .status = QB_ERR_FORMAT,
         .needle = "names token 96"},
        {"tokens", .key = "trainable_token_indices", .value = "[3,7]", .status = QB_ERR_FORMAT,
         .needle = "expected [2, 32]"},
        /* initialisations that changed the base */
        {"plain", .key = "init_lora_weights", .value = "\"pissa\"", .status = QB_ERR_UNSUPPORTED,
         .needle = "--residual-base"},
        {"plain", .key = "init_lora_weights", .value = "\"pissa_niter_16\"", .status = QB_ERR_UNSUPPORTED,
         .needle = "\"pissa_niter_16\", which changed the base"},
        {"plain", .key = "init_lora_weights", .value = "\"olora\"", .status = QB_ERR_UNSUPPORTED,
         .needle = "changed the base"},
        {"plain", .key = "init_lora_weights", .value = "\"corda\"", .status = QB_ERR_UNSUPPORTED,
         .needle = "changed the base"},
        {"plain", .key = "init_lora_weights", .value = "\"lora_ga\"", .status = QB_ERR_UNSUPPORTED,
         .needle = "changed the base"},
        {"plain", .key = "init_lora_weights", .value = "\"loftq\"", .status = QB_ERR_UNSUPPORTED,
         .needle = "changed the base"},
        {"plain", .key = "init_lora_weights", .value = "\"eva\"", .status = QB_OK},
        {"plain", .key = "init_lora_weights", .value = "\"mica\"", .status = QB_OK},
        {"plain", .key = "init_lora_weights", .value = "\"new\"", .status = QB_ERR_UNSUPPORTED,
         .needle = "\"new\" is not known"},
        /* keys */
        {"plain", .key = "peft_type", .value = "\"ADALORA\"", .status = QB_ERR_UNSUPPORTED,
         .needle = "type ADALORA"},
        {"plain", .key = "alora_invocation_tokens", .value = "[1,2]", .status = QB_ERR_UNSUPPORTED,
         .needle = "alora_invocation_tokens is set"},
        {"plain", .key = "layer_replication", .value = "[[0,1]]", .status = QB_ERR_UNSUPPORTED,
         .needle = "layer_replication"},
        {"plain", .key = "use_qalora", .value = "true", .status = QB_ERR_UNSUPPORTED, .needle = "use_qalora"},
        {"plain", .key = "kasa_config", .value = "{\"beta\":1}", .status = QB_ERR_UNSUPPORTED,
         .needle = "kasa_config"},
        {"plain", .key = "a_new_key", .value = "true", .status = QB_ERR_UNSUPPORTED,
         .needle = "the key a_new_key is not known"},
        {"plain", .key = "a_new_key", .value = "false", .status = QB_OK},
        {"plain", .key = "r", .value = "0", .status = QB_ERR_FORMAT, .needle = "\"r\""},
        {"plain", .key = "target_modules", .value = "\"(q_proj\"", .status = QB_ERR_FORMAT,
         .needle = "the pattern \"(q_proj\""},
        {"plain", .key = "alpha_pattern", .value = "{\"((.|.)+)+[!?]\":2}", .status = QB_ERR_FORMAT,
         .needle = "the pattern"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_spoilt(&cases[i]);
}

static void test_adapter__a_residual_base_is_taken_when_it_is_said(void **state) {
    (void)state;
    char *scratch = scratch_make(), adapter[512], target[512];
    qb_merge_report report;
    path_of(adapter, scratch, "adapter");
    path_of(target, scratch, "target");
    write_spoilt(&(spoil){"plain", .key = "init_lora_weights", .value = "\"pissa\""}, adapter);
    assert_ok(merge(FAMILIES "/llama", adapter, QB_DTYPE_COUNT, true, target, &report));
    scratch_remove(scratch);
}

static void test_adapter__directories_that_are_no_adapter(void **state) {
    (void)state;
    char *scratch = scratch_make();
    qb_adapter a = {0};
    assert_fails(qb_adapter_open(FAMILIES "/llama", false, &a), QB_ERR_USAGE, "is a model");
    qb_adapter_close(&a);
    assert_fails(qb_adapter_open(scratch, false, &a), QB_ERR_NOT_FOUND, "holds no adapter_config.json");
    qb_adapter_close(&a);
    write_text(scratch, "adapter_config.json", "{\"peft_type\":\"LORA\"}");
    assert_fails(qb_adapter_open(scratch, false, &a), QB_ERR_NOT_FOUND, "neither adapter_model.safetensors");
    qb_adapter_close(&a);
    write_text(scratch, "adapter_model.safetensors", "short");
    assert_true(qb_adapter_open(scratch, false, &a) != QB_OK);
    qb_adapter_close(&a);
    scratch_remove(scratch);
}

/* A vocabulary that grew comes with the tokenizer that knows its tokens; any other keeps the base's. */
static void test_adapter__new_rows_come_with_their_tokenizer(void **state) {
    (void)state;
    static const char *const names[] = {"grown", "plain"};
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};
    for (int i = 0; i < 2; i++) {
        char *scratch = scratch_make(), from[600], adapter[512], target[512];
        qb_merge_report report;
        qb_model *m;
        path_of(adapter, scratch, "adapter");
        path_of(target, scratch, "target");
        assert_ok(qb_make_dirs(adapter));
        for (int k = 0; k < 2; k++) {
            char *to = qb_path_join(adapter, files[k]);
            snprintf(from, sizeof from, GOLDEN "/%s/%s", names[i], files[k]);
            assert_ok(qb_copy_file(from, to));
            qb_free(to);
        }
        write_text(adapter, "tokenizer.json", "{\"of\":\"the adapter\"}");
        assert_ok(merge(FAMILIES "/llama", adapter, QB_DTYPE_COUNT, false, target, &report));
        char *tokenizer = qb_path_join(target, "tokenizer.json");
        assert_true(qb_path_exists(tokenizer) == (i == 0));
        qb_free(tokenizer);
        assert_ok(qb_model_open(target, &m));
        assert_int_equal(m->config.vocab, i == 0 ? 99 : 96);
        qb_model_close(m);
        scratch_remove(scratch);
    }
}

/* ---- names ---- */

static qb_json *config_of(const char *text, qb_adapter_config *c) {
    qb_json *json;
    assert_ok(qb_json_parse(text, strlen(text), "test", &json));
    assert_ok(qb_adapter_config_parse(json, "test", false, c));
    return json;
}

/* Answers of peft 0.21.2's check_target_module_exists. */
static void test_adapter__targets_are_named_as_peft_names_them(void **state) {
    (void)state;
    static const struct {
        const char *config, *path;
        bool targeted;
    } cases[] = {
        {"\"target_modules\":[\"q_proj\"]", "model.layers.0.self_attn.q_proj", true},
        {"\"target_modules\":[\"proj\"]", "model.layers.0.self_attn.q_proj", false},
        {"\"target_modules\":[\"self_attn.q_proj\"]", "model.layers.0.self_attn.q_proj", true},
        {"\"target_modules\":[\"lm_head\"]", "lm_head", true},
        {"\"target_modules\":\"q_proj\"", "model.layers.0.self_attn.q_proj", false},
        {"\"target_modules\":\".*q_proj\"", "model.layers.0.self_attn.q_proj", true},
        {"\"target_modules\":\".*q_proj|.*v_pro\"", "model.layers.0.self_attn.v_proj", false},
        {"\"target_modules\":\".*layers.(1|11)\\\\..*\"", "model.layers.11.mlp.up_proj", true},
        {"\"target_modules\":[\"q_proj\"],\"exclude_modules\":[\"0.self_attn.q_proj\"]",
         "model.layers.0.self_attn.q_proj", false},
        {"\"target_modules\":[\"q_proj\"],\"exclude_modules\":\".*\\\\.0\\\\..*\"",
         "model.layers.0.self_attn.q_proj", false},
        {"\"target_modules\":[\"q_proj\"],\"modules_to_save\":[\"self_attn\"]",
         "model.layers.0.self_attn.q_proj", false},
        {"\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[1,3]", "model.layers.3.self_attn.q_proj",
         true},
        {"\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[1,3]", "model.layers.13.self_attn.q_proj",
         false},
        {"\"target_modules\":[\"q_proj\"],\"layers_to_transform\":0", "model.layers.0.self_attn.q_proj",
         true},
        {"\"target_modules\":[\"w1\"],\"layers_to_transform\":[1]", "model.layers.1.mlp.experts.0.w1", true},
        {"\"target_modules\":[\"c_fc\"],\"layers_to_transform\":[1],\"layers_pattern\":\"h\"",
         "transformer.h.1.mlp.c_fc", true},
        {"\"target_modules\":[\"c_fc\"],\"layers_to_transform\":[1],\"layers_pattern\":[\"layers\"]",
         "transformer.h.1.mlp.c_fc", false},
        {"\"target_modules\":null", "lm_head", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        qb_adapter_config c;
        bool targeted;
        snprintf(text, sizeof text, "{\"peft_type\":\"LORA\",%s}", cases[i].config);
        qb_json *json = config_of(text, &c);
        assert_ok(qb_adapter_targets(&c, cases[i].path, &targeted));
        if (targeted != cases[i].targeted) fail_msg("%s: %s", text, cases[i].path);
        qb_json_free(json);
    }
}

static void test_adapter__the_first_pattern_that_matches_counts(void **state) {
    (void)state;
    static const char text[] =
        "{\"peft_type\":\"LORA\",\"r\":8,\"lora_alpha\":16,"
        "\"rank_pattern\":{\"q_proj\":4,\"^model.layers.1.mlp.up_proj\":2,\"^layers.0.mlp.up_proj\":3,"
        "\"1.self_attn.q_proj\":5},\"alpha_pattern\":{\"mlp\\\\..*\":32.5}}";
    static const struct {
        const char *path;
        int64_t rank;
        double scale;
    } cases[] = {
        {"model.layers.1.self_attn.q_proj", 4, 4},   {"model.layers.1.mlp.up_proj", 2, 16.25},
        {"model.layers.0.mlp.up_proj", 8, 32.5 / 8}, {"model.layers.11.mlp.up_proj", 8, 32.5 / 8},
        {"model.layers.0.self_attn.xq_proj", 8, 2},
    };
    qb_adapter_config c;
    qb_json *json = config_of(text, &c);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t rank;
        double scale;
        assert_ok(qb_adapter_rank(&c, cases[i].path, &rank, &scale));
        assert_int_equal(rank, cases[i].rank);
        assert_true(scale == cases[i].scale);
    }
    qb_json_free(json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adapter__merged_logits_are_those_of_the_unmerged_model),
        cmocka_unit_test(test_adapter__an_nf4_base_is_what_the_adapter_saw),
        cmocka_unit_test(test_adapter__merging_onto_nf4_is_dequantizing_and_adding),
        cmocka_unit_test(test_adapter__what_does_not_fit_is_refused_in_one_line),
        cmocka_unit_test(test_adapter__a_residual_base_is_taken_when_it_is_said),
        cmocka_unit_test(test_adapter__directories_that_are_no_adapter),
        cmocka_unit_test(test_adapter__new_rows_come_with_their_tokenizer),
        cmocka_unit_test(test_adapter__targets_are_named_as_peft_names_them),
        cmocka_unit_test(test_adapter__the_first_pattern_that_matches_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
