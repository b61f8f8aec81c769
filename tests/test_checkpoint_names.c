/* What directories are called and hold besides: indices that do not fit, names under other prefixes, buffers
   that nobody needs, folders that are no model. */
#include "checkpoint/checkpoint.h"
#include "tests/checkpoint_files.h"

static char *dir;
static int make_dir(void **state) {
    (void)state;
    dir = scratch_make();
    write_text(dir, "config.json", "{}");
    return 0;
}
static int drop_dir(void **state) {
    (void)state;
    scratch_remove(dir);
    return 0;
}

/* A file of one-byte tensors of these names, which end with a NULL. Names that end in "4d" have four
   dimensions. */
static void write_names(const char *folder, const char *file, const char *const *names) {
    qb_str header = {0};
    size_t n = 0;
    qb_str_text(&header, "{");
    for (; names[n]; n++)
        qb_str_printf(&header, "%s\"%s\":{\"dtype\":\"U8\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                      n ? "," : "", names[n], strstr(names[n], "attn.bias") ? "[1,1,1,1]" : "[1]", n, n + 1);
    qb_str_text(&header, "}");
    write_safetensors(folder, file, header.text, n);
    qb_str_free(&header);
}
#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static qb_checkpoint *opened(void) {
    qb_checkpoint *ck;
    assert_ok(qb_checkpoint_open(dir, &ck));
    return ck;
}
static qb_status open_only(const char *path) {
    qb_checkpoint *ck;
    qb_status st = qb_checkpoint_open(path, &ck);
    qb_checkpoint_close(ck);
    return st;
}

/* ---- indices ---- */

static void test_names__an_index_need_not_be_right(void **state) {
    (void)state;
    const qb_tensor *t;
    const void *bytes;
    write_names(dir, "model-1.safetensors", NAMES("a", "both"));
    write_names(dir, "model-2.safetensors", NAMES("b", "both", "unlisted"));
    write_text(dir, "model.safetensors.index.json",
               "{\"weight_map\":{\"a\":\"model-2.safetensors\",\"b\":\"model-2.safetensors\",\"nowhere\":"
               "\"model-1.safetensors\"}}");
    qb_checkpoint *ck = opened();
    assert_int_equal(qb_checkpoint_count(ck), 4);
    assert_ok(qb_checkpoint_need(ck, "a", &t)); /* in another shard than said */
    assert_ok(qb_checkpoint_need(ck, "unlisted", &t));
    assert_fails(qb_checkpoint_need(ck, "nowhere", &t), QB_ERR_FORMAT,
                 "the index puts tensor nowhere into model-1.safetensors, which does not hold it");
    assert_fails(qb_checkpoint_need(ck, "both", &t), QB_ERR_FORMAT,
                 "tensor both is in model-1.safetensors and in model-2.safetensors");
    assert_fails(qb_checkpoint_acquire(ck, qb_checkpoint_find(ck, "both"), &bytes), QB_ERR_FORMAT,
                 "is in model-1");
    qb_checkpoint_close(ck);
}

/* Mistral's repositories hold the authors' file beside the converted ones; some indices have another name. */
static void test_names__an_index_of_another_name_is_found(void **state) {
    (void)state;
    write_names(dir, "custom-1.safetensors", NAMES("a"));
    write_names(dir, "custom-2.safetensors", NAMES("b"));
    write_names(dir, "consolidated.safetensors", NAMES("a", "b"));
    write_text(dir, "custom.safetensors.index.json",
               "{\"weight_map\":{\"a\":\"custom-1.safetensors\",\"b\":\"custom-2.safetensors\"}}");
    write_text(dir, "consolidated.safetensors.index.json",
               "{\"weight_map\":{\"a\":\"consolidated.safetensors\"}}");
    qb_checkpoint *ck = opened();
    assert_int_equal(qb_checkpoint_count(ck), 2);
    qb_checkpoint_close(ck);
    write_text(dir, "second.safetensors.index.json", "{\"weight_map\":{\"a\":\"custom-1.safetensors\"}}");
    assert_fails(open_only(dir), QB_ERR_FORMAT, "holds 2 safetensors files but neither");
}

/* ---- names ---- */

static void test_names__buffers_are_left_out(void **state) {
    (void)state;
    write_names(dir, "model.safetensors",
                NAMES("model.layers.0.self_attn.rotary_emb.inv_freq", "h.0.attn.bias", "h.0.attn.masked_bias",
                      "gpt_neox.layers.0.attention.masked_bias", "h.0.attn.c_attn.bias"));
    qb_checkpoint *ck = opened();
    assert_int_equal(qb_checkpoint_count(ck), 1);
    assert_non_null(qb_checkpoint_find(ck, "h.0.attn.c_attn.bias"));
    qb_checkpoint_close(ck);
}

static void test_names__wrappers_come_off(void **state) {
    (void)state;
    write_names(dir, "model.safetensors",
                NAMES("language_model.model.layers.0.w", "language_model.lm_head.weight",
                      "model.language_model.norm.weight", "vision_tower.w", "model.multi_modal_projector.w"));
    qb_checkpoint *ck = opened();
    assert_int_equal(qb_checkpoint_count(ck), 5); /* nothing says that this is a wrapper */
    qb_checkpoint_close(ck);
    write_text(dir, "config.json", "{\"text_config\":{}}");
    ck = opened();
    assert_int_equal(qb_checkpoint_count(ck), 3);
    assert_non_null(qb_checkpoint_find(ck, "model.layers.0.w"));
    assert_non_null(qb_checkpoint_find(ck, "lm_head.weight"));
    assert_non_null(qb_checkpoint_find(ck, "model.norm.weight"));
    qb_checkpoint_close(ck);
}

static void test_names__prefixes_are_put_back(void **state) {
    (void)state;
    static const struct {
        const char *names[4], *embed, *layer, *found[4];
    } rows[] = {
        {{"embed_tokens.weight", "layers.0.w", "norm.weight", "lm_head.weight"},
         "model.embed_tokens",
         "model.layers.%d.n",
         {"model.embed_tokens.weight", "model.layers.0.w", "model.norm.weight", "lm_head.weight"}},
        {{"wte.weight", "h.0.w", "ln_f.weight", "wpe.weight"},
         "transformer.wte",
         "transformer.h.%d.ln_1",
         {"transformer.wte.weight", "transformer.h.0.w", "transformer.ln_f.weight",
          "transformer.wpe.weight"}},
        {{"decoder.embed_tokens.weight", "decoder.layers.0.w", "decoder.norm.weight", "lm_head.weight"},
         "model.decoder.embed_tokens",
         "model.decoder.layers.%d.n",
         {"model.decoder.embed_tokens.weight", "model.decoder.layers.0.w", "model.decoder.norm.weight",
          "lm_head.weight"}},
        {{"model.embed_tokens.weight", "model.layers.0.w", "layers.0.w", "x"}, /* as they should be */
         "model.embed_tokens",
         "model.layers.%d.n",
         {"model.embed_tokens.weight", "model.layers.0.w", "layers.0.w", "x"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_names(dir, "model.safetensors",
                    NAMES(rows[i].names[0], rows[i].names[1], rows[i].names[2], rows[i].names[3]));
        qb_checkpoint *ck = opened();
        assert_ok(qb_checkpoint_adopt_names(ck, rows[i].embed, rows[i].layer, "lm_head", true));
        for (int n = 0; n < 4; n++)
            if (!qb_checkpoint_find(ck, rows[i].found[n])) fail_msg("%s is not found", rows[i].found[n]);
        qb_checkpoint_close(ck);
    }
}

static void test_names__a_tied_head_is_the_embedding(void **state) {
    (void)state;
    write_names(dir, "model.safetensors", NAMES("lm_head.weight", "model.layers.0.w"));
    for (int tied = 0; tied < 2; tied++) {
        qb_checkpoint *ck = opened();
        assert_ok(qb_checkpoint_adopt_names(ck, "model.embed_tokens", "model.layers.%d.n", "lm_head", tied));
        assert_int_equal(qb_checkpoint_find(ck, "model.embed_tokens.weight") != NULL, tied);
        assert_int_equal(qb_checkpoint_find(ck, "lm_head.weight") != NULL, !tied);
        qb_checkpoint_close(ck);
    }
}

/* ---- folders ---- */

static void make_folder(const char *below, char *path) {
    snprintf(path, 1024, "%s/%s", dir, below);
    assert_ok(qb_make_dirs(path));
}

static void test_names__a_folder_of_the_hub_means_its_snapshot(void **state) {
    (void)state;
    char hub[1024], refs[1024], first[1024], second[1024];
    qb_checkpoint *ck;
    make_folder("models--org--name", hub);
    make_folder("models--org--name/refs", refs);
    make_folder("models--org--name/snapshots/0a1", first);
    make_folder("models--org--name/snapshots/0b2", second);
    assert_fails(open_only(hub), QB_ERR_NOT_FOUND, "holds 2 snapshots");
    write_text(refs, "main", "0b2\n");
    write_text(second, "config.json", "{}");
    write_names(second, "model.safetensors", NAMES("a"));
    assert_ok(qb_checkpoint_open(hub, &ck));
    assert_string_equal(qb_checkpoint_dir(ck), second);
    qb_checkpoint_close(ck);
    write_text(refs, "main", "0c3");
    assert_fails(open_only(hub), QB_ERR_NOT_FOUND, "names the snapshot \"0c3\"");
    write_text(refs, "main", "../0a1");
    assert_fails(open_only(hub), QB_ERR_NOT_FOUND, "names the snapshot");
}

static void test_names__what_is_no_model_is_named(void **state) {
    (void)state;
    char adapter[1024], meta[1024], models[1024], one[1024], squeezed[1024];
    make_folder("adapter", adapter);
    write_text(adapter, "adapter_config.json",
               "{\"peft_type\":\"LORA\",\"base_model_name_or_path\":\"org/base\"}");
    write_names(adapter, "adapter_model.safetensors", NAMES("a"));
    assert_fails(open_only(adapter), QB_ERR_UNSUPPORTED,
                 "is a PEFT adapter (LORA) for the base model org/base");
    write_text(adapter, "config.json", "{}"); /* some carry the base's */
    assert_fails(open_only(adapter), QB_ERR_UNSUPPORTED, "is a PEFT adapter");
    make_folder("meta", meta);
    write_text(meta, "params.json", "{}");
    write_bytes(meta, "consolidated.00.pth", "x", 1);
    assert_fails(open_only(meta), QB_ERR_UNSUPPORTED,
                 "the authors' own layout (params.json, consolidated.*)");
    make_folder("models", models);
    make_folder("models/b", one);
    write_text(one, "config.json", "{}");
    make_folder("models/a", one);
    write_text(one, "config.json", "{}");
    assert_fails(open_only(models), QB_ERR_USAGE, "is a folder of 2 models");
    assert_non_null(strstr(qb_error_text(), "models/a"));
    make_folder("gz", squeezed);
    write_text(squeezed, "config.json", "{}");
    write_bytes(squeezed, "model.safetensors", "\x1f\x8b\x08\0\0\0\0\0\0\3abc", 13);
    assert_fails(open_only(squeezed), QB_ERR_FORMAT, "is compressed with gzip");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, drop_dir)
    const struct CMUnitTest tests[] = {
        TEST(test_names__an_index_need_not_be_right),
        TEST(test_names__an_index_of_another_name_is_found),
        TEST(test_names__buffers_are_left_out),
        TEST(test_names__wrappers_come_off),
        TEST(test_names__prefixes_are_put_back),
        TEST(test_names__a_tied_head_is_the_embedding),
        TEST(test_names__a_folder_of_the_hub_means_its_snapshot),
        TEST(test_names__what_is_no_model_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
