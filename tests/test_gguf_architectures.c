/* What the rows of gguf_architectures.def make of metadata and tensors: defaults of absent keys, forms of one
   architecture, the order of rows, and every key that changes the computation refused where a row does not
   read it. Whole models: tests/test_families.c. */
#include "tests/checkpoint_files.h"
#include "tests/gguf_files.h"

#include "base/log.h"
#include "checkpoint/layout.h"
#include "model/config.h"

#include <math.h>

/* ---- a file: 64 wide, four heads of 16, a vocabulary of 10 ---- */

typedef struct {
    const char *key; /* below the architecture */
    qb_gguf_kind kind;
    double number;
    const char *text;
} value;

typedef struct {
    const char *name;
    int n_dims;
    uint64_t cols, rows;
    uint32_t type;
} tensor;

typedef struct {
    const char *architecture;
    uint32_t layers;
    value values[8];
    bool pattern;       /* attention.sliding_window_pattern: true, false, true, false */
    const char *floats; /* a whole key, of an array of so many */
    uint64_t n_floats;
    tensor tensors[4];
    void (*fill)(uint8_t *data); /* of the tensors, which lie one behind the other from the first */
    uint32_t vocab;              /* 0: 10 */
} recipe;

static void put_value(gguf_file *f, const char *key, const value *v) {
    if (v->kind == QB_GGUF_STRING) {
        gguf_text(f, key, v->text);
    } else if (v->kind == QB_GGUF_F32) {
        gguf_real(f, key, (float)v->number);
    } else if (v->kind == QB_GGUF_BOOL) {
        gguf_key(f, key, QB_GGUF_BOOL);
        gguf_put(f, &(uint8_t){v->number != 0}, 1);
    } else {
        gguf_int(f, key, (uint32_t)v->number);
    }
}

static uint64_t bytes_of(const tensor *t) {
    const qb_ggml_type *type = qb_ggml_type_find(t->type);
    uint64_t n = t->cols * (t->n_dims == 2 ? t->rows : 1);
    return n / (uint64_t)type->block_columns * (uint64_t)type->block_bytes;
}

static size_t count_values(const recipe *r) {
    size_t n = 0;
    while (n < 8 && r->values[n].key) n++;
    return n;
}

static size_t count_tensors(const recipe *r) {
    size_t n = 0;
    while (n < 4 && r->tensors[n].name) n++;
    return n;
}

/* Values of the recipe stand in place of these. */
static size_t put_common(gguf_file *f, const recipe *r, bool write) {
    const value rows[] = {{"context_length", QB_GGUF_U32, 128, NULL},
                          {"embedding_length", QB_GGUF_U32, 64, NULL},
                          {"feed_forward_length", QB_GGUF_U32, 96, NULL},
                          {"block_count", QB_GGUF_U32, r->layers, NULL},
                          {"attention.head_count", QB_GGUF_U32, 4, NULL},
                          {"attention.layer_norm_epsilon", QB_GGUF_F32, 1e-5, NULL},
                          {"attention.layer_norm_rms_epsilon", QB_GGUF_F32, 1e-6, NULL}};
    size_t n = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char key[128];
        bool own = false;
        for (size_t j = 0; j < count_values(r); j++) own = own || !strcmp(r->values[j].key, rows[i].key);
        if (own) continue;
        snprintf(key, sizeof key, "%s.%s", r->architecture, rows[i].key);
        if (write) put_value(f, key, &rows[i]);
        n++;
    }
    return n;
}

static gguf_file build(const recipe *r) {
    char key[128];
    size_t n_values = count_values(r), n_tensors = count_tensors(r);
    gguf_file f = gguf_begin(3, 1 + n_tensors,
                             1 + put_common(NULL, r, false) + n_values + r->pattern + (r->floats != NULL));
    gguf_text(&f, "general.architecture", r->architecture);
    put_common(&f, r, true);
    for (size_t i = 0; i < n_values; i++) {
        snprintf(key, sizeof key, "%s.%s", r->architecture, r->values[i].key);
        put_value(&f, key, &r->values[i]);
    }
    if (r->pattern) {
        snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", r->architecture);
        gguf_array(&f, key, QB_GGUF_BOOL, 4);
        gguf_put(&f, (uint8_t[]){1, 0, 1, 0}, 4);
    }
    if (r->floats) gguf_array(&f, r->floats, QB_GGUF_F32, r->n_floats);
    for (uint64_t i = 0; r->floats && i < r->n_floats; i++) gguf_put(&f, &(float){1}, 4);
    uint64_t vocab = r->vocab ? r->vocab : 10, at = 64 * vocab * 2; /* embedding: F16 */
    gguf_info(&f, "token_embd.weight", 2, (uint64_t[]){64, vocab}, 1, 0);
    for (size_t i = 0; i < n_tensors; i++) {
        const tensor *t = &r->tensors[i];
        gguf_info(&f, t->name, t->n_dims, (uint64_t[]){t->cols, t->rows}, t->type, at);
        at += (bytes_of(t) + 31) / 32 * 32;
    }
    gguf_data(&f, 32, 0);
    size_t start = f.bytes.length;
    static const uint8_t zeros[1 << 16];
    for (uint64_t left = at, n; left > 0; left -= n) {
        n = left < sizeof zeros ? left : sizeof zeros;
        gguf_put(&f, zeros, n);
    }
    if (r->fill) r->fill((uint8_t *)f.bytes.text + start + 64 * vocab * 2);
    return f;
}

static qb_status open_checkpoint(const recipe *r, qb_checkpoint **out) {
    char *dir = scratch_make(), *path = qb_path_join(dir, "x.gguf");
    gguf_file f = build(r);
    write_bytes(dir, "x.gguf", f.bytes.text, f.bytes.length);
    qb_status st = qb_checkpoint_open(path, out);
    gguf_free(&f);
    qb_free(path);
    scratch_remove(dir); /* a mapping outlives its name */
    return st;
}

static qb_status read_config(const recipe *r, qb_config *c) {
    qb_checkpoint *ck;
    qb_status st = open_checkpoint(r, &ck);
    if (st == QB_OK) st = qb_config_parse(qb_checkpoint_config(ck), "x.gguf", c);
    qb_checkpoint_close(ck);
    return st;
}

static void refuse(const recipe *r, qb_status status, const char *needle) {
    qb_config c;
    assert_fails(read_config(r, &c), status, needle);
    qb_error_clear();
}

#define INT(key, n)                                                                                          \
    { key, QB_GGUF_U32, n, NULL }
#define REAL(key, x)                                                                                         \
    { key, QB_GGUF_F32, x, NULL }
#define TEXT(key, s)                                                                                         \
    { key, QB_GGUF_STRING, 0, s }

/* ---- Gemma ---- */

static void test_gguf_architectures__gemma_2_takes_the_classs_caps_and_window(void **state) {
    (void)state;
    qb_config c;
    recipe r = {.architecture = "gemma2", .layers = 4};
    assert_ok(read_config(&r, &c));
    assert_true(c.attention_softcap == 50 && c.logit_softcap == 30);
    assert_int_equal(c.window, 4096);
    assert_true(c.attention_scale == 0.25f && c.head_dim == 16 && c.n_kv_heads == 4);
    assert_true((c.layers[0] & QB_LAYER_SLIDING) && !(c.layers[1] & QB_LAYER_SLIDING));
    recipe own = {.architecture = "gemma2",
                  .layers = 46, /* 27B: divided by hidden / heads */
                  .values = {REAL("attn_logit_softcapping", 20), REAL("final_logit_softcapping", 0),
                             INT("attention.sliding_window", 9), INT("attention.key_length", 64)}};
    assert_ok(read_config(&own, &c));
    assert_true(c.attention_softcap == 20 && c.logit_softcap == 0 && c.window == 9);
    assert_int_equal(c.head_dim, 64);
    assert_true(c.attention_scale == 0.25f); /* 64 / 4 heads */
    own.layers = 42;
    assert_ok(read_config(&own, &c));
    assert_true(c.attention_scale == 0.125f);
    own.values[4] = (value)REAL("rope.freq_base_swa", 5000);
    refuse(&own, QB_ERR_UNSUPPORTED,
           "gemma2.rope.freq_base_swa is 5000: another rope in sliding layers is not supported");
}

static void test_gguf_architectures__gemma_3_needs_its_window(void **state) {
    (void)state;
    qb_config c;
    recipe r = {.architecture = "gemma3", .layers = 6};
    refuse(&r, QB_ERR_FORMAT, "metadata gemma3.attention.sliding_window is missing");
    r.values[0] = (value)INT("attention.sliding_window", 9);
    r.values[1] = (value)REAL("rope.freq_base", 1e6);
    assert_ok(read_config(&r, &c));
    assert_true(c.attention_softcap == 0 && c.logit_softcap == 0 && c.window == 9);
    for (int l = 0; l < 6; l++) assert_int_equal((c.layers[l] & QB_LAYER_SLIDING) != 0, l < 5);
    assert_true(c.ropes[0].theta == 1e6 && c.ropes[1].theta == 1e4);
    r.values[2] = (value)REAL("rope.freq_base_swa", 5000);
    r.values[3] = (value)INT("attention.sliding_window_pattern", 2);
    assert_ok(read_config(&r, &c));
    assert_true(c.ropes[1].theta == 5000);
    for (int l = 0; l < 6; l++) assert_int_equal((c.layers[l] & QB_LAYER_SLIDING) != 0, l % 2 == 0);
    r.values[3] = (value){0};
    r.pattern = true; /* of four layers */
    refuse(&r, QB_ERR_FORMAT, "sliding_window_pattern lists 4 of 6 layers");
    r.layers = 4;
    assert_ok(read_config(&r, &c));
    for (int l = 0; l < 4; l++) assert_int_equal((c.layers[l] & QB_LAYER_SLIDING) != 0, l % 2 == 0);
}

static void ones(uint8_t *data) {
    for (int i = 0; i < 64; i++) memcpy(data + 4 * i, &(float){1.5f}, 4);
}

static void test_gguf_architectures__norms_lose_the_converters_one(void **state) {
    (void)state;
    static const char *const rows[] = {"gemma", "gemma2", "nemotron"};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        recipe r = {.architecture = rows[i],
                    .layers = 1,
                    .values = {INT("attention.key_length", 16)},
                    .tensors = {{"output_norm.weight", 1, 64, 0, 0}},
                    .fill = ones};
        qb_checkpoint *ck;
        float *got;
        assert_ok(open_checkpoint(&r, &ck));
        assert_ok(qb_checkpoint_read_f32(ck, "model.norm.weight", 64, 0, &got));
        assert_true(got[0] == 0.5f && got[63] == 0.5f);
        qb_free(got);
        qb_checkpoint_close(ck);
        r.fill = NULL;         /* as float32 it would not fit */
        r.tensors[0].type = 1; /* F16 */
        refuse(&r, QB_ERR_UNSUPPORTED, "tensor output_norm.weight: expected a vector of F32, found F16");
        r.tensors[0].type = 8; /* Q8_0 */
        refuse(&r, QB_ERR_UNSUPPORTED, "tensor output_norm.weight: expected a vector of F32, found Q8_0");
    }
}

/* ---- scales, rope ---- */

static void test_gguf_architectures__granite_scales_scores_by_key_or_by_width(void **state) {
    (void)state;
    qb_config c;
    recipe r = {.architecture = "granite", .layers = 1, .values = {REAL("logit_scale", 8)}};
    assert_ok(read_config(&r, &c));
    assert_true(c.attention_scale == 0.25f && c.logit_scale == 0.125f && c.embed_scale == 1);
    r.values[1] = (value)REAL("attention.scale", 0);
    r.values[2] = (value)REAL("residual_scale", 0);
    assert_ok(read_config(&r, &c));
    assert_true(c.attention_scale == 0.25f && c.residual_scale == 1);
    r.values[1].number = 0.5, r.values[2].number = 0.5;
    assert_ok(read_config(&r, &c));
    assert_true(c.attention_scale == 0.5f && c.residual_scale == 0.5f);
}

static void fill_factors(uint8_t *data) {
    for (int i = 0; i < 8; i++) {
        memcpy(data + 4 * i, &(float){1.0f + (float)i}, 4);      /* short */
        memcpy(data + 32 + 4 * i, &(float){2.0f + (float)i}, 4); /* long, 32 bytes on */
    }
}

static void test_gguf_architectures__longrope_needs_what_it_computes_with(void **state) {
    (void)state;
    qb_config c;
    recipe r = {
        .architecture = "phi3",
        .layers = 1,
        .tensors = {{"rope_factors_short.weight", 1, 8, 0, 0}, {"rope_factors_long.weight", 1, 8, 0, 0}},
        .fill = fill_factors};
    refuse(&r, QB_ERR_FORMAT, "metadata phi3.rope.scaling.attn_factor is missing");
    r.values[0] = (value)REAL("rope.scaling.attn_factor", 1.25);
    refuse(&r, QB_ERR_FORMAT, "metadata phi3.rope.scaling.original_context_length is missing");
    r.values[1] = (value)INT("rope.scaling.original_context_length", 32);
    assert_ok(read_config(&r, &c));
    const qb_rope_spec *rope = &c.ropes[0];
    assert_int_equal(rope->scaling, QB_ROPE_LONGROPE);
    assert_true(rope->attention_factor == 1.25 && rope->original_positions == 32);
    assert_true(rope->factors[7] == 8 && rope->long_factors[7] == 9 && c.window == 0);
    r.values[2] = (value)TEXT("rope.scaling.type", "yarn"),
    r.values[3] = (value)REAL("rope.scaling.factor", 4);
    refuse(&r, QB_ERR_UNSUPPORTED, "together with another rope scaling");
    r.values[2] = (value)INT("rope.dimension_count", 12), r.values[3] = (value){0};
    refuse(&r, QB_ERR_FORMAT, "rope_factors_short.weight: expected F32 [6], found F32 of 32 bytes");
    r.values[2] = (value)TEXT("rope.scaling.type", "longrope");
    assert_ok(read_config(&r, &c));
    r.tensors[1] = r.tensors[0] = (tensor){0};
    refuse(&r, QB_ERR_UNSUPPORTED, "phi3.rope.scaling.attn_factor is 1.25");
}

static void test_gguf_architectures__yarn_is_read_whole(void **state) {
    (void)state;
    qb_config c;
    recipe r = {.architecture = "llama",
                .layers = 1,
                .values = {TEXT("rope.scaling.type", "yarn"), REAL("rope.scaling.factor", 4),
                           INT("rope.scaling.original_context_length", 32),
                           REAL("rope.scaling.yarn_beta_fast", 16), REAL("rope.scaling.yarn_beta_slow", 2)}};
    assert_ok(read_config(&r, &c));
    const qb_rope_spec *rope = &c.ropes[0];
    assert_int_equal(rope->scaling, QB_ROPE_YARN);
    assert_true(rope->factor == 4 && rope->beta_fast == 16 && rope->beta_slow == 2);
    assert_int_equal(rope->original_positions, 32);
    r.values[5] = (value)REAL("rope.scaling.yarn_log_multiplier", 0.1);
    refuse(&r, QB_ERR_UNSUPPORTED, "llama.rope.scaling.yarn_log_multiplier is 0.1");
    r.values[5] = (value)REAL("rope.scaling.attn_factor", 2);
    refuse(&r, QB_ERR_UNSUPPORTED, "an attention factor of rope scaling is not supported");
    r.values[5] = (value){0}, r.values[1] = (value)INT("vocab_size", 10);
    refuse(&r, QB_ERR_FORMAT, "metadata llama.rope.scaling.factor is missing");
}

/* llama.cpp takes a factor without a type for linear, one of 0 for none (llama-model.cpp, load_hparams). */
static void test_gguf_architectures__a_factor_without_a_type_is_linear(void **state) {
    (void)state;
    static const struct {
        value values[3];
        qb_rope_scaling scaling;
    } rows[] = {
        {{REAL("rope.scaling.factor", 4)}, QB_ROPE_LINEAR},
        {{REAL("rope.scale_linear", 2), REAL("rope.scaling.factor", 4)}, QB_ROPE_LINEAR},
        {{REAL("rope.scaling.factor", 4), TEXT("rope.scaling.type", "none")}, QB_ROPE_DEFAULT},
        {{REAL("rope.scaling.factor", 0), TEXT("rope.scaling.type", "linear")}, QB_ROPE_DEFAULT},
        {{REAL("rope.scaling.factor", 0)}, QB_ROPE_DEFAULT},
        {{REAL("rope.scaling.factor", 1)}, QB_ROPE_DEFAULT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_config c;
        recipe r = {.architecture = "llama", .layers = 1};
        memcpy(r.values, rows[i].values, sizeof rows[i].values);
        assert_ok(read_config(&r, &c));
        assert_int_equal(c.ropes[0].scaling, rows[i].scaling);
        assert_true(c.ropes[0].scaling == QB_ROPE_DEFAULT || c.ropes[0].factor == 4);
    }
}

static void keep_warning(void *ctx, const char *text) {
    snprintf(ctx, 512, "%s", text);
}

static void test_gguf_architectures__metadata_that_nobody_knows_is_named(void **state) {
    (void)state;
    static const struct {
        value value;
        const char *told; /* NULL: nothing is */
    } rows[] = {
        {REAL("attention.gate_new", 2.5), "\"llama.attention.gate_new\" (2.5) is neither read nor"},
        {INT("expert_new", 4), "\"llama.expert_new\" (4) is"},
        {TEXT("norm.kind", "deep"), "\"llama.norm.kind\" (deep) is"},
        {{"norm.twice", QB_GGUF_BOOL, 1, NULL}, "\"llama.norm.twice\" (true) is"},
        {INT("vocab_size", 10), NULL},
        {INT("pooling_type", 1), NULL},
        {REAL("rope.freq_base", 5000), NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_config c;
        char said[512] = "";
        recipe r = {.architecture = "llama", .layers = 1};
        r.values[0] = rows[i].value;
        qb_log_capture(keep_warning, said);
        qb_status st = read_config(&r, &c);
        qb_log_capture(NULL, NULL);
        assert_ok(st);
        if (!rows[i].told) assert_string_equal(said, "");
        if (rows[i].told && !strstr(said, rows[i].told)) fail_msg("said \"%s\", not %s", said, rows[i].told);
    }
}

/* The reader's floor of head x fraction is the width, whatever it is. */
static void test_gguf_architectures__every_width_that_turns_comes_back(void **state) {
    (void)state;
    static const uint32_t heads[] = {10, 14, 80, 98, 106, 128, 254};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        for (uint32_t width = 2; width <= heads[i]; width += 2) {
            recipe r = {
                .architecture = "stablelm",
                .layers = 1,
                .values = {INT("attention.key_length", heads[i]), INT("rope.dimension_count", width)}};
            qb_config c;
            assert_ok(read_config(&r, &c));
            assert_int_equal(c.ropes[0].width, width);
        }
}

/* What a directory written from the file says is what transformers' class reads. NULL: nothing. */
static void expect_written(const recipe *r, const char *key, const char *expected) {
    qb_checkpoint *ck;
    char *text;
    assert_ok(open_checkpoint(r, &ck));
    const qb_json *found = qb_json_get(qb_checkpoint_config(ck), key);
    assert_int_equal(found != NULL, expected != NULL);
    if (expected) {
        assert_ok(qb_json_print(found, false, &text));
        assert_string_equal(text, expected);
        qb_free(text);
    }
    qb_checkpoint_close(ck);
}

static void test_gguf_architectures__keys_are_written_as_classes_read_them(void **state) {
    (void)state;
    recipe neox = {
        .architecture = "gptneox",
        .layers = 1,
        .values = {INT("rope.dimension_count", 4), {"use_parallel_residual", QB_GGUF_BOOL, 0, NULL}}};
    expect_written(&neox, "rotary_pct", "0.25");
    expect_written(&neox, "use_parallel_residual", "false");
    recipe gemma = {.architecture = "gemma2",
                    .layers = 1,
                    .values = {REAL("attn_logit_softcapping", 50), REAL("final_logit_softcapping", 0.5)}};
    expect_written(&gemma, "attn_logit_softcapping", "50.0");
    expect_written(&gemma, "final_logit_softcapping", "0.5");
    recipe exaone = {.architecture = "exaone4", .layers = 2};
    expect_written(&exaone, "layer_types", "[\"full_attention\",\"full_attention\"]");
    recipe mpt = {.architecture = "mpt",
                  .layers = 1,
                  .values = {REAL("attention.clamp_kqv", 8), REAL("attention.max_alibi_bias", 8)}};
    expect_written(&mpt, "attn_config", "{\"clip_qkv\":8.0,\"alibi_bias_max\":8}");
    recipe olmo = {.architecture = "olmo2",
                   .layers = 4,
                   .values = {INT("attention.sliding_window", 9), REAL("rope.freq_base", 777),
                              REAL("rope.freq_base_swa", 99)}};
    expect_written(&olmo, "rope_parameters",
                   "{\"full_attention\":{\"rope_type\":\"default\",\"rope_theta\":777},"
                   "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":99}}");
    olmo.values[2] = olmo.values[1], olmo.values[2].key = "rope.freq_base_swa";
    expect_written(&olmo, "rope_theta", "777");
    recipe llama4 = {.architecture = "llama4",
                     .layers = 4,
                     .values = {INT("expert_count", 16), INT("expert_used_count", 1),
                                INT("expert_feed_forward_length", 32), INT("interleave_moe_layer_step", 1)}};
    expect_written(&llama4, "use_qk_norm", "true");
    expect_written(&llama4, "intermediate_size", "32");
    expect_written(&llama4, "intermediate_size_mlp", "96");
    llama4.values[0].number = 128; /* Maverick */
    expect_written(&llama4, "use_qk_norm", "false");
    llama4.values[4] = (value)INT("attention.sliding_window", 8192);
    refuse(&llama4, QB_ERR_UNSUPPORTED, "sliding-window attention is not supported");
}

/* ---- forms of one architecture ---- */

static void test_gguf_architectures__forms_are_told_apart(void **state) {
    (void)state;
    static const struct {
        recipe r;
        const char *family;
    } rows[] = {
        {{.architecture = "olmo2", .layers = 1}, "Olmo2ForCausalLM"},
        {{.architecture = "olmo2", .layers = 1, .values = {INT("attention.sliding_window", 0)}},
         "Olmo2ForCausalLM"},
        {{.architecture = "olmo2", .layers = 1, .values = {INT("attention.sliding_window", 9)}},
         "Olmo3ForCausalLM"},
        {{.architecture = "mistral3", .layers = 1}, "LlamaForCausalLM"},
        {{.architecture = "exaone", .layers = 1}, "LlamaForCausalLM"},
        {{.architecture = "internlm2", .layers = 1}, "LlamaForCausalLM"},
        {{.architecture = "baichuan", .layers = 32}, "LlamaForCausalLM"},
        {{.architecture = "glm4", .layers = 1}, "Glm4ForCausalLM"},
        {{.architecture = "seed_oss", .layers = 1}, "SeedOssForCausalLM"},
        {{.architecture = "smollm3", .layers = 1}, "SmolLM3ForCausalLM"},
        {{.architecture = "gemma", .layers = 1}, "GemmaForCausalLM"},
        {{.architecture = "starcoder2", .layers = 1}, "Starcoder2ForCausalLM"},
        {{.architecture = "mistral3",
          .layers = 1,
          .values = {REAL("rope.scaling.yarn_log_multiplier", 1), REAL("attention.temperature_scale", 0.1),
                     TEXT("rope.scaling.type", "yarn"), REAL("rope.scaling.factor", 4)}},
         "Ministral3ForCausalLM"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_config c;
        assert_ok(read_config(&rows[i].r, &c));
        assert_string_equal(c.architecture, rows[i].family);
        assert_true(c.head_dim == 16 && c.n_kv_heads == 4); /* not the classes' own */
    }
    refuse(&(recipe){.architecture = "apertus", .layers = 2}, QB_ERR_FORMAT,
           "metadata xielu.alpha_p is missing");
    refuse(&(recipe){.architecture = "apertus", .layers = 2, .floats = "xielu.alpha_p", .n_floats = 1},
           QB_ERR_FORMAT, "xielu.alpha_p: expected 2 floats of 32 bits, one a layer, found 1 values");
    refuse(&(recipe){.architecture = "olmo",
                     .layers = 1,
                     .values = {REAL("attention.layer_norm_epsilon", 1e-6)}},
           QB_ERR_UNSUPPORTED, "olmo.attention.layer_norm_epsilon is 1e-06; the class knows 1e-05 alone");
    refuse(&(recipe){.architecture = "mistral3",
                     .layers = 1,
                     .values = {REAL("attention.temperature_scale", 0.1)}},
           QB_ERR_UNSUPPORTED, "queries that grow with their position is not supported");
}

/* ---- the order of rows ---- */

/* Row i of the file holds i, as Q8_0 with codes of one or as float32. */
static int n_rows;
static void rows_of_q8_0(uint8_t *data) {
    for (int row = 0; row < n_rows; row++)
        for (int block = 0; block < 2; block++, data += 34) {
            uint16_t scale = qb_f16_of_f32((float)row);
            memcpy(data, &scale, 2);
            memset(data + 2, 1, 32);
        }
}
static void rows_of_f32(uint8_t *data) {
    for (int row = 0; row < n_rows; row++)
        for (int col = 0; col < 64; col++, data += 4) memcpy(data, &(float){(float)row}, 4);
}

/* Row of the file that holds a row of the class's tensor: groups of 16 q rows a head, k, v. */
static int file_row(int row, int heads, int keys, int groups) {
    int q = heads / groups * 16, kv = keys / groups * 16, all = q + 2 * kv, g = row / all, at = row % all;
    if (at < q) return g * q + at;
    if (at < q + kv) return heads * 16 + g * kv + at - q;
    return heads * 16 + keys * 16 + g * kv + at - q - kv;
}

static void test_gguf_architectures__fused_rows_are_put_back_packed_or_not(void **state) {
    (void)state;
    static const struct {
        const char *architecture, *module;
        uint32_t keys;
        int groups;
    } rows[] = {{"bloom", "transformer.h.0.self_attention.query_key_value", 4, 4},
                {"gptneox", "gpt_neox.layers.0.attention.query_key_value", 4, 4},
                {"falcon", "transformer.h.0.self_attention.query_key_value", 2, 2},
                {"falcon", "transformer.h.0.self_attention.query_key_value", 1, 1},
                {"mpt", "transformer.blocks.0.attn.Wqkv", 4, 1}};
    for (size_t i = 0; i < 2 * sizeof rows / sizeof rows[0]; i++) {
        bool packed = i % 2;
        int keys = (int)rows[i / 2].keys, total = 16 * (4 + 2 * keys);
        recipe r = {.architecture = rows[i / 2].architecture,
                    .layers = 1,
                    .values = {INT("attention.head_count_kv", rows[i / 2].keys),
                               {"use_parallel_residual", QB_GGUF_BOOL, 1, NULL},
                               REAL("attention.max_alibi_bias", 8)},
                    .tensors = {{"blk.0.attn_qkv.weight", 2, 64, 192, packed ? 8 : 0}},
                    .fill = packed ? rows_of_q8_0 : rows_of_f32};
        if (strcmp(r.architecture, "mpt") != 0) r.values[2] = (value){0};
        r.tensors[0].rows = (uint64_t)(n_rows = total);
        qb_checkpoint *ck;
        qb_weight w;
        assert_ok(open_checkpoint(&r, &ck));
        assert_ok(qb_checkpoint_linear(ck, rows[i / 2].module, total, 64, &w));
        float *got;
        assert_ok(qb_alloc((size_t)total * 64, sizeof *got, &got));
        if (packed)
            qb_qweight_dequantize(w.packed, got);
        else
            assert_ok(qb_to_f32(w.dtype, w.dense, (int64_t)total * 64, got));
        for (int row = 0; row < total; row++)
            assert_true(got[row * 64 + 63] == (float)file_row(row, 4, keys, rows[i / 2].groups));
        qb_free(got);
        qb_checkpoint_free_linear(ck, rows[i / 2].module, &w);
        qb_checkpoint_close(ck);
    }
    refuse(&(recipe){.architecture = "falcon",
                     .layers = 1,
                     .values = {INT("attention.head_count_kv", 2)},
                     .tensors = {{"blk.0.attn_qkv.weight", 2, 64, 100, 0}}},
           QB_ERR_FORMAT, "100 rows are not queries of 4 heads and keys and values of 2");
}

static void three_rows(uint8_t *data) {
    for (int i = 0; i < 3 * 64; i++) memcpy(data + 4 * i, &(float){(float)(i / 64)}, 4);
}

static void test_gguf_architectures__norms_of_heads_are_tensors_of_their_own(void **state) {
    (void)state;
    recipe r = {.architecture = "stablelm",
                .layers = 1,
                .tensors = {{"blk.0.attn_q_norm.weight", 2, 64, 3, 0}},
                .fill = three_rows};
    qb_checkpoint *ck;
    assert_ok(open_checkpoint(&r, &ck));
    for (int h = 0; h < 4; h++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.0.self_attn.q_layernorm.norms.%d.weight", h);
        const qb_tensor *t = qb_checkpoint_find(ck, name);
        assert_int_equal(t != NULL, h < 3);
        if (!t) continue;
        float *got;
        assert_ok(qb_checkpoint_read_f32(ck, name, 64, 0, &got));
        assert_true(t->n_dims == 1 && got[0] == (float)h && got[63] == (float)h);
        qb_free(got);
    }
    qb_checkpoint_close(ck);
    r.tensors[0].n_dims = 1, r.fill = NULL;
    refuse(&r, QB_ERR_UNSUPPORTED, "expected rows of plain numbers, found F32");
    r.tensors[0].n_dims = 2, r.tensors[0].cols = 0, r.tensors[0].rows = INT64_MAX; /* of nothing */
    refuse(&r, QB_ERR_UNSUPPORTED, "expected rows of plain numbers, found F32");
}

/* ---- Baichuan: by layers and vocabulary four models, of which the first 7B is Llama ---- */

static void test_gguf_architectures__baichuan_is_told_by_layers_and_vocabulary(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        bool large = i % 2, second = i / 2;
        recipe r = {.architecture = "baichuan",
                    .layers = large ? 40 : 32,
                    .vocab = second ? 125696 : 0,
                    .tensors = {{"output.weight", 2, 64, 1, 1}}};
        qb_config c;
        assert_ok(read_config(&r, &c));
        assert_string_equal(c.architecture, i ? "BaichuanForCausalLM" : "LlamaForCausalLM");
        assert_int_equal(c.max_positions, 128);
        assert_int_equal(c.alibi, large ? QB_ALIBI_PLAIN : QB_ALIBI_NONE);
        assert_int_equal(c.n_ropes, large ? 0 : 1);
        if (i) expect_written(&r, "z_loss_weight", second ? "0" : NULL);
        if (i) expect_written(&r, large ? "model_max_length" : "max_position_embeddings", "128");
        if (i) expect_written(&r, large ? "max_position_embeddings" : "model_max_length", NULL);
    }
}

/* Row of the three that a row of W_pack is: neighbours in a head of q and k are halves there. */
static int baichuan_row(int row) {
    int at = row % 16;
    return row >= 128 ? row : row - at + (at < 8 ? 2 * at : 2 * (at - 8) + 1);
}

static void test_gguf_architectures__baichuans_thirds_are_put_together(void **state) {
    (void)state;
    for (int packed = 0; packed < 3; packed++) { /* 2: v in another type than q and k */
        uint32_t type = packed ? 8 : 0;
        recipe r = {.architecture = "baichuan",
                    .layers = 40,
                    .tensors = {{"blk.39.attn_q.weight", 2, 64, 64, type},
                                {"blk.39.attn_k.weight", 2, 64, 64, type},
                                {"blk.39.attn_v.weight", 2, 64, 64, packed == 2 ? 1 : type}},
                    .fill = packed ? rows_of_q8_0 : rows_of_f32};
        const char *module = "model.layers.39.self_attn.W_pack";
        n_rows = packed == 2 ? 128 : 192; /* the last ones are zero then */
        qb_checkpoint *ck;
        qb_weight w;
        float *got;
        assert_ok(open_checkpoint(&r, &ck));
        assert_ok(qb_checkpoint_linear(ck, module, 192, 64, &w));
        assert_int_equal(w.packed != NULL, packed == 1);
        assert_ok(qb_alloc(192 * 64, sizeof *got, &got));
        if (w.packed)
            qb_qweight_dequantize(w.packed, got);
        else
            assert_ok(qb_to_f32(w.dtype, w.dense, 192 * 64, got));
        for (int row = 0; row < 192; row++)
            assert_true(got[row * 64 + 63] == (float)(row < n_rows ? baichuan_row(row) : 0));
        qb_free(got);
        qb_checkpoint_free_linear(ck, module, &w);
        qb_checkpoint_close(ck);
    }
    recipe odd = {.architecture = "baichuan",
                  .layers = 40,
                  .tensors = {{"blk.0.attn_q.weight", 2, 64, 60, 0},
                              {"blk.0.attn_k.weight", 2, 64, 60, 0},
                              {"blk.0.attn_v.weight", 2, 64, 60, 0}}};
    refuse(&odd, QB_ERR_FORMAT, "60 rows are not 4 heads of an even number of elements");
    odd.tensors[2].cols = 32;
    refuse(&odd, QB_ERR_FORMAT,
           "blk.0.attn_q.weight [60, 64] and blk.0.attn_v.weight [60, 32] do not fit together");
    odd.tensors[2] = (tensor){0};
    refuse(&odd, QB_ERR_FORMAT, "there is blk.0.attn_k.weight, but no attn_v.weight");
}

/* ---- keys that change the computation ---- */

static void test_gguf_architectures__every_key_that_computes_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *key, *what;
        double usual;
        const char *same_as;
    } keys[] = {
#include "checkpoint/gguf/gguf_keys_that_compute.def"
    };
    assert_true(sizeof keys / sizeof keys[0] >= 40);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char needle[160];
        recipe r = {.architecture = "qwen3", .layers = 1, .values = {{keys[i].key, QB_GGUF_F32, 3, NULL}}};
        snprintf(needle, sizeof needle, "metadata qwen3.%s is 3: %s is not supported", keys[i].key,
                 keys[i].what);
        refuse(&r, QB_ERR_UNSUPPORTED, needle);
        qb_config c;
        r.values[0].number = keys[i].usual;
        if (!keys[i].same_as) assert_ok(read_config(&r, &c)); /* changes nothing */
    }
    recipe text = {.architecture = "qwen3", .layers = 1, .values = {TEXT("hidden_activation", "gelu")}};
    refuse(&text, QB_ERR_UNSUPPORTED, "qwen3.hidden_activation is text, which is not supported");
    recipe list = {.architecture = "qwen3", .layers = 4, .pattern = true};
    refuse(&list, QB_ERR_UNSUPPORTED, "sliding_window_pattern is an array, which is not supported");
    recipe same = {.architecture = "qwen3",
                   .layers = 1,
                   .values = {REAL("rope.freq_base", 5000), REAL("rope.freq_base_swa", 5000)}};
    qb_config c;
    assert_ok(read_config(&same, &c));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_architectures__gemma_2_takes_the_classs_caps_and_window),
        cmocka_unit_test(test_gguf_architectures__gemma_3_needs_its_window),
        cmocka_unit_test(test_gguf_architectures__norms_lose_the_converters_one),
        cmocka_unit_test(test_gguf_architectures__granite_scales_scores_by_key_or_by_width),
        cmocka_unit_test(test_gguf_architectures__longrope_needs_what_it_computes_with),
        cmocka_unit_test(test_gguf_architectures__yarn_is_read_whole),
        cmocka_unit_test(test_gguf_architectures__a_factor_without_a_type_is_linear),
        cmocka_unit_test(test_gguf_architectures__metadata_that_nobody_knows_is_named),
        cmocka_unit_test(test_gguf_architectures__every_width_that_turns_comes_back),
        cmocka_unit_test(test_gguf_architectures__keys_are_written_as_classes_read_them),
        cmocka_unit_test(test_gguf_architectures__forms_are_told_apart),
        cmocka_unit_test(test_gguf_architectures__fused_rows_are_put_back_packed_or_not),
        cmocka_unit_test(test_gguf_architectures__norms_of_heads_are_tensors_of_their_own),
        cmocka_unit_test(test_gguf_architectures__baichuan_is_told_by_layers_and_vocabulary),
        cmocka_unit_test(test_gguf_architectures__baichuans_thirds_are_put_together),
        cmocka_unit_test(test_gguf_architectures__every_key_that_computes_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
