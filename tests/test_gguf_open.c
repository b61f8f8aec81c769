/* GGUF files opened as models: where they are looked for, what their metadata may say, and what is refused by
   name. */
#include "tests/checkpoint_files.h"
#include "tests/gguf_files.h"

#include "model/model.h"

#include <math.h>

/* ---- a llama of one block, 64 wide, four heads of 16 of which two hold keys ---- */

typedef struct {
    const char *architecture, *eps_key;
    uint32_t hidden, heads, kv_heads, file_type, linear_type; /* 0: F32 */
    int n_values, n_infos;
    void (*values)(gguf_file *f); /* n_values more */
    const char *infos[4];         /* n_infos more tensors, F32 [info_size] */
    uint64_t info_size;
    void (*fill)(float *values); /* of the first of them */
    bool no_embedding;
} recipe;

static const recipe plain = {"llama", "llama.attention.layer_norm_rms_epsilon", 64, 4, 2, 0, .info_size = 64};

typedef struct {
    gguf_file *f;
    uint64_t at;
} layouter;

static void add(layouter *l, const char *name, int n_dims, uint64_t cols, uint64_t rows, uint32_t type) {
    const qb_ggml_type *t = qb_ggml_type_find(type);
    uint64_t bytes = cols / (uint64_t)t->block_columns * (uint64_t)t->block_bytes * (n_dims == 2 ? rows : 1);
    gguf_info(l->f, name, n_dims, (uint64_t[]){cols, rows}, type, l->at);
    l->at += (bytes + 31) / 32 * 32;
}

static gguf_file build(const recipe *r) {
    gguf_file f =
        gguf_begin(3, (r->no_embedding ? 10 : 11) + (uint64_t)r->n_infos, 8 + (uint64_t)r->n_values);
    gguf_text(&f, "general.architecture", r->architecture);
    gguf_int(&f, "general.file_type", r->file_type);
    gguf_int(&f, "llama.context_length", 128);
    gguf_int(&f, "llama.embedding_length", r->hidden);
    gguf_int(&f, "llama.feed_forward_length", 96);
    gguf_int(&f, "llama.block_count", 1);
    gguf_int(&f, "llama.attention.head_count", r->heads);
    gguf_real(&f, r->eps_key, 1e-6f);
    if (r->values) r->values(&f);
    layouter l = {&f, 0};
    uint64_t kv = 16 * r->kv_heads;
    uint32_t type = r->linear_type;
    if (!r->no_embedding) add(&l, "token_embd.weight", 2, 64, 10, 0);
    add(&l, "output_norm.weight", 1, 64, 0, 0);
    add(&l, "blk.0.attn_norm.weight", 1, 64, 0, 0);
    add(&l, "blk.0.attn_q.weight", 2, 64, 64, type);
    add(&l, "blk.0.attn_k.weight", 2, 64, kv, type);
    add(&l, "blk.0.attn_v.weight", 2, 64, kv, type);
    add(&l, "blk.0.attn_output.weight", 2, 64, 64, type);
    add(&l, "blk.0.ffn_norm.weight", 1, 64, 0, 0);
    add(&l, "blk.0.ffn_gate.weight", 2, 64, 96, type);
    add(&l, "blk.0.ffn_up.weight", 2, 64, 96, type);
    add(&l, "blk.0.ffn_down.weight", 2, 96, 64, type);
    uint64_t first = l.at;
    for (int i = 0; i < r->n_infos; i++) add(&l, r->infos[i], 1, r->info_size, 0, 0);
    gguf_data(&f, 32, 0);
    size_t start = f.bytes.length;
    while (f.bytes.length < start + l.at) gguf_put(&f, "", 1);
    if (r->fill) r->fill((float *)(void *)(f.bytes.text + start + first));
    return f;
}

static qb_status open_recipe(const recipe *r, qb_model **out) {
    char *dir = scratch_make(), *path = qb_path_join(dir, "x.gguf");
    gguf_file f = build(r);
    write_bytes(dir, "x.gguf", f.bytes.text, f.bytes.length);
    qb_status st = qb_model_open(path, out);
    gguf_free(&f);
    qb_free(path);
    scratch_remove(dir); /* a mapping outlives its name */
    return st;
}

static void refuse(recipe r, qb_status status, const char *needle) {
    qb_model *m;
    assert_fails(open_recipe(&r, &m), status, needle);
    assert_null(m);
}

/* ---- metadata ---- */

static void values_kv2(gguf_file *f) {
    gguf_int(f, "llama.attention.head_count_kv", 2);
}

static void values_full(gguf_file *f) {
    values_kv2(f);
    gguf_real(f, "llama.rope.freq_base", 500000.0f);
    gguf_text(f, "llama.rope.scaling.type", "linear");
    gguf_real(f, "llama.rope.scaling.factor", 4.0f);
    gguf_int(f, "tokenizer.ggml.bos_token_id", 1);
    gguf_int(f, "tokenizer.ggml.eos_token_id", 2);
    gguf_key(f, "llama.vocab_size", QB_GGUF_U64);
    gguf_put(f, (uint64_t[]){10}, 8);
}

static void test_gguf_open__metadata_becomes_the_config(void **state) {
    (void)state;
    recipe r = plain;
    r.values = values_full, r.n_values = 7;
    qb_model *m;
    assert_ok(open_recipe(&r, &m));
    const qb_config *c = &m->config;
    assert_string_equal(c->architecture, "LlamaForCausalLM");
    assert_string_equal(m->name, "x.gguf");
    assert_int_equal(c->hidden, 64);
    assert_int_equal(c->ffn, 96);
    assert_int_equal(c->n_layers, 1);
    assert_int_equal(c->n_heads, 4);
    assert_int_equal(c->n_kv_heads, 2);
    assert_int_equal(c->head_dim, 16);
    assert_int_equal(c->vocab, 10);
    assert_int_equal(c->max_positions, 128);
    assert_true(c->norm_eps == 1e-6f && c->ropes[0].theta == 500000 && c->ropes[0].factor == 4);
    assert_int_equal(c->ropes[0].scaling, QB_ROPE_LINEAR);
    assert_int_equal(c->bos, 1);
    assert_int_equal(c->eos, 2);
    assert_true(c->tied_head && !c->attention_bias && !c->mlp_bias);
    assert_string_equal(qb_checkpoint_quantization(m->checkpoint)->method, "");
    assert_true(fabs(qb_model_bits_per_weight(m) - 32) < 1e-9);
    qb_model_close(m);
}

static void test_gguf_open__biases_are_seen(void **state) {
    (void)state;
    recipe r = plain;
    r.kv_heads = 4;
    r.infos[0] = "blk.0.attn_q.bias", r.n_infos = 1;
    qb_model *m;
    assert_ok(open_recipe(&r, &m));
    assert_true(m->config.attention_bias && !m->config.mlp_bias);
    assert_non_null(qb_checkpoint_find(m->checkpoint, "model.layers.0.self_attn.q_proj.bias"));
    qb_model_close(m);
}

/* Query and key rows stand as pairs (2 i, 2 i + 1); the family's are (i, i + half). */
static void count_up(float *values) {
    for (int i = 0; i < 64; i++) values[i] = (float)i;
}
static void test_gguf_open__rows_of_queries_are_put_back(void **state) {
    (void)state;
    recipe r = plain;
    r.kv_heads = 4;
    r.infos[0] = "blk.0.attn_q.bias", r.n_infos = 1, r.fill = count_up;
    qb_model *m;
    float *bias;
    assert_ok(open_recipe(&r, &m));
    assert_ok(qb_checkpoint_read_f32(m->checkpoint, "model.layers.0.self_attn.q_proj.bias", 64, 0, &bias));
    for (int head = 0; head < 4; head++)
        for (int i = 0; i < 8; i++) {
            assert_true(bias[16 * head + i] == (float)(16 * head + 2 * i));
            assert_true(bias[16 * head + 8 + i] == (float)(16 * head + 2 * i + 1));
        }
    qb_free(bias);
    qb_model_close(m);
}

/* Llama 3.1's published numbers: theta 500000, factor 8 between wavelengths 2048 and 8192. */
static void fill_llama3(float *values) {
    for (int i = 0; i < 8; i++) {
        double wavelength = 2 * 3.14159265358979323846 * pow(500000, i / 8.0);
        double smooth = (8192 / wavelength - 1) / 3;
        values[i] = wavelength < 2048 ? 1 : wavelength > 8192 ? 8 : (float)(1 / ((1 - smooth) / 8 + smooth));
    }
}
static void fill_odd(float *values) {
    for (int i = 0; i < 8; i++) values[i] = 1.0f + (float)i;
}
static void values_theta(gguf_file *f) {
    values_kv2(f);
    gguf_real(f, "llama.rope.freq_base", 500000.0f);
}

static void test_gguf_open__rope_factors_are_recognized_or_kept(void **state) {
    (void)state;
    recipe r = plain;
    r.values = values_theta, r.n_values = 2;
    r.infos[0] = "rope_freqs.weight", r.n_infos = 1, r.info_size = 8, r.fill = fill_llama3;
    qb_model *m;
    assert_ok(open_recipe(&r, &m));
    assert_int_equal(m->config.ropes[0].scaling, QB_ROPE_LLAMA3);
    assert_true(m->config.ropes[0].factor == 8 && m->config.ropes[0].low_freq == 1 &&
                m->config.ropes[0].high_freq == 4);
    assert_int_equal(m->config.ropes[0].original_positions, 8192);
    assert_null(qb_checkpoint_find(m->checkpoint, "rope_freqs.weight"));
    qb_model_close(m);
    r.fill = fill_odd;
    assert_ok(open_recipe(&r, &m));
    assert_int_equal(m->config.ropes[0].scaling, QB_ROPE_FACTORS);
    for (int i = 0; i < 8; i++) assert_true(m->config.ropes[0].factors[i] == 1.0f + (float)i);
    qb_model_close(m);
    r.fill = NULL; /* zeros */
    refuse(r, QB_ERR_FORMAT, "rope: factor 0 in \"factors\", expected");
    r.info_size = 9;
    refuse(r, QB_ERR_FORMAT, "expected F32 [8], found F32 of 36 bytes");
    r.info_size = 8, r.values = values_full, r.n_values = 7;
    refuse(r, QB_ERR_UNSUPPORTED, "together with another rope scaling");
}

static void test_gguf_open__mixtures_are_named_where_the_tensors_agree(void **state) {
    (void)state;
    static const struct {
        uint32_t type, file_type;
        const char *method;
        int bits;
    } rows[] = {{8, 7, "q8_0", 8},     {2, 15, "q4_0", 4},       {2, 2, "q4_0", 4}, {6, 99, "q5_0", 5},
                {20, 25, "iq4_nl", 4}, {39, 38, "mxfp4_moe", 4}, {9, 99, "q8_1", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        recipe r = plain;
        r.values = values_kv2, r.n_values = 1, r.linear_type = rows[i].type, r.file_type = rows[i].file_type;
        qb_model *m;
        qb_weight w;
        assert_ok(open_recipe(&r, &m));
        const qb_quantization *q = qb_checkpoint_quantization(m->checkpoint);
        assert_string_equal(q->method, rows[i].method);
        assert_int_equal(q->bits, rows[i].bits);
        qb_status st = qb_checkpoint_linear(m->checkpoint, "model.layers.0.mlp.up_proj", 96, 64, &w);
        if (rows[i].bits) {
            assert_ok(st);
            qb_checkpoint_free_linear(m->checkpoint, "model.layers.0.mlp.up_proj", &w);
        } else { /* listed, and refused by name when it is needed */
            assert_fails(st, QB_ERR_UNSUPPORTED,
                         "up_proj.weight: type Q8_1 is not supported (supported: F32, F16, BF16, Q4_0");
        }
        qb_model_close(m);
    }
}

/* ---- what is refused ---- */

static void values_experts(gguf_file *f) {
    gguf_int(f, "llama.expert_count", 8);
}
static void values_experts_used(gguf_file *f) {
    values_experts(f);
    gguf_int(f, "llama.expert_used_count", 9);
}
static void values_experts_of_none(gguf_file *f) {
    gguf_int(f, "llama.expert_count", 0);
    gguf_int(f, "llama.expert_used_count", 2);
}
static void values_mixture(gguf_file *f) {
    values_experts(f);
    gguf_int(f, "llama.expert_used_count", 2);
}
static void values_sigmoid(gguf_file *f) {
    values_mixture(f);
    gguf_int(f, "llama.expert_gating_func", 2);
}
static void values_unknown_gating(gguf_file *f) {
    values_mixture(f);
    gguf_int(f, "llama.expert_gating_func", 77);
}
static void values_groups_of_experts(gguf_file *f) {
    values_mixture(f);
    gguf_int(f, "llama.expert_group_count", 4);
}
static void values_width_of_experts(gguf_file *f) {
    values_mixture(f);
    gguf_int(f, "llama.expert_feed_forward_length", 97);
}
static void values_window(gguf_file *f) {
    gguf_int(f, "llama.attention.sliding_window", 64);
}
static void values_dynamic(gguf_file *f) {
    gguf_text(f, "llama.rope.scaling.type", "dynamic");
    gguf_real(f, "llama.rope.scaling.factor", 4);
}
static void values_partial(gguf_file *f) {
    gguf_int(f, "llama.rope.dimension_count", 8);
}
static void values_value_length(gguf_file *f) {
    gguf_int(f, "llama.attention.value_length", 8);
}
static void values_split(gguf_file *f) {
    gguf_int(f, "split.count", 3);
}
static void values_adapter(gguf_file *f) {
    gguf_text(f, "general.type", "adapter");
}
static void values_kv_array(gguf_file *f) {
    gguf_array(f, "llama.attention.head_count_kv", QB_GGUF_U32, 1);
    gguf_u32(f, 2);
}

static void test_gguf_open__metadata_that_is_not_computed_is_refused(void **state) {
    (void)state;
    static const struct {
        void (*values)(gguf_file *f);
        int n;
        qb_status status;
        const char *needle;
    } rows[] = {
        {values_experts, 1, QB_ERR_FORMAT, "metadata llama.expert_used_count is missing"},
        {values_experts_used, 2, QB_ERR_FORMAT, "llama.expert_used_count is 9, but there are 8 experts"},
        {values_experts_of_none, 2, QB_ERR_UNSUPPORTED,
         "llama.expert_used_count is 2: mixture of experts is not supported"},
        {values_sigmoid, 3, QB_ERR_UNSUPPORTED,
         "llama.expert_gating_func is 2 (sigmoid), which MixtralForCausalLM does not compute (it has "
         "softmax)"},
        {values_unknown_gating, 3, QB_ERR_UNSUPPORTED, "llama.expert_gating_func is 77 (unknown)"},
        {values_groups_of_experts, 3, QB_ERR_UNSUPPORTED,
         "llama.expert_group_count is 4: groups of experts is not supported"},
        {values_width_of_experts, 3, QB_ERR_UNSUPPORTED,
         "llama.expert_feed_forward_length is 97: another width of experts is not supported"},
        {values_mixture, 2, QB_ERR_UNSUPPORTED, "blk.0.ffn_gate.weight has no place in a model"},
        {values_window, 1, QB_ERR_UNSUPPORTED, "sliding-window attention is not supported"},
        {values_dynamic, 2, QB_ERR_UNSUPPORTED, "rope_scaling of type \"dynamic\" is not known"},
        {values_partial, 1, QB_ERR_UNSUPPORTED, "partly rotated heads"},
        {values_value_length, 1, QB_ERR_UNSUPPORTED, "different sizes are not supported"},
        {values_split, 1, QB_ERR_FORMAT, "says that it is part 1 of 3, its name part 1 of 1"},
        {values_adapter, 1, QB_ERR_UNSUPPORTED, "a file of type \"adapter\", not a model"},
        {values_kv_array, 1, QB_ERR_FORMAT, "expected a whole number, found an array of uint32"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        recipe r = plain;
        r.kv_heads = 4, r.values = rows[i].values, r.n_values = rows[i].n;
        refuse(r, rows[i].status, rows[i].needle);
    }
    recipe r = plain;
    r.architecture = "mamba";
    refuse(r, QB_ERR_UNSUPPORTED, "architecture \"mamba\" is not supported (supported: llama, phimoe,");
    r = plain, r.eps_key = "llama.other";
    refuse(r, QB_ERR_FORMAT, "metadata llama.attention.layer_norm_rms_epsilon is missing");
    r = plain, r.heads = 48;
    refuse(r, QB_ERR_FORMAT, "heads of 1 elements");
    r = plain, r.heads = 3;
    refuse(r, QB_ERR_FORMAT, "heads of 21 elements");
    r = plain, r.heads = 32; /* 32 key rows are then not 32 heads of two */
    refuse(r, QB_ERR_FORMAT, "32 rows are not 32 heads of an even number of elements");
    r = plain, r.no_embedding = true;
    refuse(r, QB_ERR_FORMAT, "token_embd.weight is missing or no matrix");
}

static void test_gguf_open__tensors_without_a_place_are_refused(void **state) {
    (void)state;
    static const char *const names[] = {
        "blk.0.attn_q_norm.weight",  "blk.0.attn_q.scale", "blk.00.attn_q.bias",
        "model.norm.weight",         "output_norm",        "blk.x.attn_q.weight",
        "blk.0.ffn_gate_exps.weight"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        recipe r = plain;
        r.kv_heads = 4, r.infos[0] = names[i], r.n_infos = 1;
        refuse(r, QB_ERR_UNSUPPORTED, "has no place in a model of architecture llama");
        assert_non_null(strstr(qb_error_text(), names[i]));
    }
    recipe r = plain; /* a block beyond the count would be left out of every figure */
    r.kv_heads = 4, r.infos[0] = "blk.1.attn_norm.weight", r.n_infos = 1;
    refuse(r, QB_ERR_FORMAT, "num_hidden_layers is 1, but the checkpoint holds model.layers.1");
}

/* ---- twins of mixtures (tools/make_family_gguf.py) with one word changed ---- */

/* Where `word` ends for the first time; it must be there. */
static uint8_t *behind(uint8_t *bytes, size_t n, const char *word) {
    size_t length = strlen(word);
    for (size_t i = 0; i + length <= n; i++)
        if (!memcmp(bytes + i, word, length)) return bytes + i + length;
    fail_msg("no \"%s\" in the file", word);
    return NULL;
}

static qb_status open_changed(const char *name, void (*change)(uint8_t *bytes, size_t n), qb_model **out) {
    char path[512], *bytes, *dir = scratch_make(), *to = qb_path_join(dir, "x.gguf");
    size_t n;
    snprintf(path, sizeof path, QB_SOURCE_DIR "/tests/golden/families/%s/model.gguf", name);
    assert_ok(qb_file_read(path, 1 << 24, &bytes, &n));
    change((uint8_t *)bytes, n);
    write_bytes(dir, "x.gguf", bytes, n);
    qb_status st = qb_model_open(to, out);
    qb_free(bytes);
    qb_free(to);
    scratch_remove(dir);
    return st;
}

/* The kind's four bytes, then the value. */
static void put_u32(uint8_t *bytes, size_t n, const char *key, uint32_t value) {
    memcpy(behind(bytes, n, key) + 4, &value, 4);
}
static void change_no_experts(uint8_t *bytes, size_t n) {
    put_u32(bytes, n, "qwen3moe.expert_count", 0);
}
static void change_fewer_experts(uint8_t *bytes, size_t n) {
    put_u32(bytes, n, "llama.expert_count", 3);
}
static void change_more_experts(uint8_t *bytes, size_t n) {
    put_u32(bytes, n, "llama.expert_count", 5);
}
static void change_used(uint8_t *bytes, size_t n) {
    put_u32(bytes, n, "gpt-oss.expert_used_count", 5);
}
static void change_name(uint8_t *bytes, size_t n) {
    memcpy(behind(bytes, n, "blk.0.ffn_gate_exps") - 5, "_exqs", 5);
}
/* One of the two that a tensor is made of becomes one of a block beyond the count. */
static void change_pair(uint8_t *bytes, size_t n) {
    behind(bytes, n, "blk.0.ffn_up_exps")[-13] = '9';
}
static void change_blocks(uint8_t *bytes, size_t n) {
    put_u32(bytes, n, "olmoe.block_count", 1);
}
static void change_rope_width(uint8_t *bytes, size_t n) {
    put_u32(bytes, n, "deepseek2.rope.dimension_count", 24);
}
static void change_value_heads(uint8_t *bytes, size_t n) {
    put_u32(bytes, n, "qwen35.ssm.time_step_rank", 3);
}
static void change_key_heads(uint8_t *bytes, size_t n) {
    put_u32(bytes, n, "qwen35.ssm.group_count", 1);
}

static void test_gguf_open__mixtures_that_contradict_themselves_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *name;
        void (*change)(uint8_t *bytes, size_t n);
        qb_status status;
        const char *needle;
    } rows[] = {
        {"qwen3-moe", change_no_experts, QB_ERR_FORMAT, "qwen3moe.expert_count is 0, expected 1 .."},
        {"mixtral", change_fewer_experts, QB_ERR_FORMAT,
         "ffn_gate_exps.weight is of 4 experts, but the metadata says 3"},
        {"mixtral", change_more_experts, QB_ERR_FORMAT,
         "ffn_gate_exps.weight is of 4 experts, but the metadata says 5"},
        {"gpt-oss-mxfp4", change_used, QB_ERR_FORMAT, "expert_used_count is 5, but there are 4 experts"},
        {"granite-moe", change_name, QB_ERR_UNSUPPORTED, "blk.0.ffn_gate_exqs.weight has no place"},
        {"granite-moe", change_pair, QB_ERR_FORMAT,
         "there is blk.0.ffn_gate_exps.weight, but no ffn_up_exps.weight"},
        {"olmoe", change_blocks, QB_ERR_FORMAT, "block_count is 1, but there are tensors as blk.1."},
        {"deepseek-v2-lite", change_rope_width, QB_ERR_FORMAT, "expected an even number below the former"},
        {"qwen3_5", change_value_heads, QB_ERR_FORMAT, "expected each to be a multiple of the next"},
        {"qwen3_5", change_key_heads, QB_ERR_FORMAT, "expected"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_model *m = NULL;
        qb_status st = open_changed(rows[i].name, rows[i].change, &m);
        assert_fails(st, rows[i].status, rows[i].needle);
        qb_error_clear();
    }
}

/* ---- where it is looked for ---- */

static void test_gguf_open__a_directory_with_one_file_means_it(void **state) {
    (void)state;
    char *dir = scratch_make(), *found = NULL, *word = NULL, *path = qb_path_join(dir, "a.gguf");
    recipe r = plain;
    r.kv_heads = 4;
    gguf_file f = build(&r);
    qb_checkpoint *ck;
    write_bytes(dir, "a.gguf", f.bytes.text, f.bytes.length);
    write_text(dir, "README.md", "x");
    assert_ok(qb_checkpoint_open(dir, &ck));
    assert_non_null(qb_checkpoint_gguf(ck));
    char one[QB_SHA256_HEX], two[QB_SHA256_HEX];
    assert_ok(qb_checkpoint_sha256(ck, one));
    qb_checkpoint_close(ck);
    assert_ok(qb_model_resolve(path, &word));
    assert_string_equal(word, path);
    assert_ok(qb_checkpoint_open(word, &ck));
    assert_ok(qb_checkpoint_sha256(ck, two));
    assert_string_equal(one, two);
    qb_checkpoint_close(ck);
    write_bytes(dir, "b.gguf", f.bytes.text, f.bytes.length);
    assert_fails(qb_checkpoint_open(dir, &ck), QB_ERR_USAGE,
                 "holds 2 GGUF models; give the path of one of them");
    write_text(dir, "model.safetensors", "x"); /* other weights go before */
    assert_ok(qb_checkpoint_find_gguf(dir, &found));
    assert_null(found);
    write_text(dir, "c.gguf", "GGUF");
    qb_free(path);
    path = qb_path_join(dir, "c.gguf");
    assert_fails(qb_checkpoint_open(path, &ck), QB_ERR_FORMAT, "ends inside the version");
    assert_null(ck);
    gguf_free(&f);
    qb_free(word);
    qb_free(path);
    scratch_remove(dir);
}

/* ---- models in parts ---- */

static void write_part(const char *dir, int part, int parts, uint32_t no, uint32_t count, uint32_t tensors) {
    static const char *const names[] = {"output_norm.weight", "blk.0.ffn_norm.weight"};
    gguf_file f = gguf_begin(3, part == 1 ? 1 : 2, part == 1 ? 10 : 2);
    char name[64];
    if (part == 1) {
        gguf_text(&f, "general.architecture", "llama");
        gguf_int(&f, "llama.context_length", 128);
        gguf_int(&f, "llama.embedding_length", 64);
        gguf_int(&f, "llama.feed_forward_length", 96);
        gguf_int(&f, "llama.block_count", 1);
        gguf_int(&f, "llama.attention.head_count", 4);
        gguf_real(&f, "llama.attention.layer_norm_rms_epsilon", 1e-6f);
        gguf_int(&f, "split.tensors.count", tensors);
    }
    gguf_int(&f, "split.no", no);
    gguf_int(&f, "split.count", count);
    if (part == 1) {
        gguf_info(&f, "token_embd.weight", 2, (uint64_t[]){64, 3}, 0, 0);
    } else {
        gguf_info(&f, names[part % 2], 1, (uint64_t[]){64}, 0, 0);
        snprintf(name, sizeof name, "blk.0.attn_%s.weight", part == 2 ? "q" : "v");
        gguf_info(&f, name, 2, (uint64_t[]){64, 64}, 0, 256);
    }
    gguf_data(&f, 32, part == 1 ? 64 * 3 * 4 : 256 + 64 * 64 * 4);
    snprintf(name, sizeof name, "m-%05d-of-%05d.gguf", part, parts);
    write_bytes(dir, name, f.bytes.text, f.bytes.length);
    gguf_free(&f);
}

static void test_gguf_open__parts_are_one_model(void **state) {
    (void)state;
    char *dir = scratch_make(), *first = qb_path_join(dir, "m-00001-of-00003.gguf"),
         *second = qb_path_join(dir, "m-00002-of-00003.gguf");
    char a[QB_SHA256_HEX], b[QB_SHA256_HEX];
    qb_checkpoint *ck;
    for (int part = 1; part <= 3; part++) write_part(dir, part, 3, (uint32_t)part - 1, 3, 5);
    const char *const ways[] = {dir, first, second}; /* any part means all */
    for (int i = 0; i < 3; i++) {
        assert_ok(qb_checkpoint_open(ways[i], &ck));
        assert_int_equal(qb_checkpoint_count(ck), 5);
        assert_non_null(qb_checkpoint_find(ck, "model.embed_tokens.weight"));
        assert_non_null(qb_checkpoint_find(ck, "model.layers.0.self_attn.v_proj.weight"));
        assert_ok(qb_checkpoint_sha256(ck, i ? b : a));
        if (i) assert_string_equal(a, b);
        qb_checkpoint_close(ck);
    }
    write_part(dir, 1, 3, 0, 3, 6);
    assert_fails(qb_checkpoint_open(dir, &ck), QB_ERR_FORMAT,
                 "split.tensors.count is 6, but the 3 parts hold 5 tensors");
    write_part(dir, 1, 3, 0, 3, 5);
    write_part(dir, 3, 3, 1, 3, 5);
    assert_fails(qb_checkpoint_open(dir, &ck), QB_ERR_FORMAT,
                 "says that it is part 2 of 3, its name part 3 of 3");
    assert_int_equal(unlink(second), 0);
    assert_fails(qb_checkpoint_open(dir, &ck), QB_ERR_NOT_FOUND, "part 2 of 3");
    qb_free(first);
    qb_free(second);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_open__metadata_becomes_the_config),
        cmocka_unit_test(test_gguf_open__biases_are_seen),
        cmocka_unit_test(test_gguf_open__rows_of_queries_are_put_back),
        cmocka_unit_test(test_gguf_open__rope_factors_are_recognized_or_kept),
        cmocka_unit_test(test_gguf_open__mixtures_are_named_where_the_tensors_agree),
        cmocka_unit_test(test_gguf_open__metadata_that_is_not_computed_is_refused),
        cmocka_unit_test(test_gguf_open__tensors_without_a_place_are_refused),
        cmocka_unit_test(test_gguf_open__mixtures_that_contradict_themselves_are_refused),
        cmocka_unit_test(test_gguf_open__parts_are_one_model),
        cmocka_unit_test(test_gguf_open__a_directory_with_one_file_means_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
