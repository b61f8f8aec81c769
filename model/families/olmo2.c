/* OLMo 2 and 3: norms behind the branches alone, queries and keys normalised over all their heads together;
   in OLMo 3 some layers slide, and only the others' rope is scaled. Source: transformers' modeling_olmo2.py,
   modeling_olmo3.py; docs/families.md. */
#include "model/families/parts.h"

static void configure_2(qb_keys *k, qb_config *c) {
    c->norm_eps = 1e-5f;
    qb_read_llama_keys(k, c);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

/* Layers that slide turn with the plain rope whatever the config says; one that says otherwise is refused. */
static void keep_sliding_rope_plain(qb_keys *k, qb_config *c) {
    static const char *const keys[] = {"rope_parameters", "rope_scaling"};
    for (int i = 0; i < 2; i++) {
        const qb_json *all = qb_json_get(k->json, keys[i]);
        if (k->st == QB_OK && all && qb_json_get(all, "sliding_attention") &&
            c->ropes[1].scaling != QB_ROPE_DEFAULT)
            qb_keys_fail(k, QB_ERR_UNSUPPORTED,
                         "%s.sliding_attention scales the rope of layers that slide; OLMo 3 scales that of "
                         "full layers alone, so its rope_type must be \"default\"",
                         keys[i]);
    }
    c->ropes[1].scaling = QB_ROPE_DEFAULT; /* one dictionary for all layers is that of full ones */
    c->ropes[1].attention_factor = 0;
}

static void configure_3(qb_keys *k, qb_config *c) {
    c->norm_eps = 1e-5f;
    c->window = 4096;
    qb_read_llama_keys(k, c);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
    qb_config_window(k, &c->window);
    qb_config_layer_types(k, c, 4);
    c->n_ropes = 2;
    qb_config_rope(k, c, 0, "full_attention", 10000, 1);
    qb_config_rope(k, c, 1, "sliding_attention", 10000, 1);
    keep_sliding_rope_plain(k, c);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = {.kind = QB_NORM_RMS, .eps = c->norm_eps};
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "q", c->n_heads * c->head_dim);
    qb_slot_new(b, "k", c->n_kv_heads * c->head_dim);
    qb_slot_new(b, "v", c->n_kv_heads * c->head_dim);
    qb_dense(b, "q", "x", qb_llama_attention.q, c->attention_bias);
    qb_dense(b, "k", "x", qb_llama_attention.k, c->attention_bias);
    qb_dense(b, "v", "x", qb_llama_attention.v, c->attention_bias);
    qb_norm(b, "q", "q", "self_attn.q_norm", rms);
    qb_norm(b, "k", "k", "self_attn.k_norm", rms);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_norm(b, "o", "o", "post_attention_layernorm", rms);
    qb_add(b, "x", "o");
    qb_gated_mlp(b, c, "x", "d");
    qb_norm(b, "d", "d", "post_feedforward_layernorm", rms);
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_slot_new(b, "h", c->hidden);
    qb_llama_leave(b, c);
}

const qb_family qb_family_olmo2 = {
    .name = "olmo2",
    .summary = "OLMo 2",
    .architectures = "Olmo2ForCausalLM",
    .model_types = "olmo2",
    .configure = configure_2,
    .enter = qb_llama_enter,
    .block = block,
    .leave = leave,
};

const qb_family qb_family_olmo3 = {
    .name = "olmo3",
    .summary = "OLMo 3",
    .architectures = "Olmo3ForCausalLM",
    .model_types = "olmo3",
    .configure = configure_3,
    .enter = qb_llama_enter,
    .block = block,
    .leave = leave,
};
