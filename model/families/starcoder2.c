/* StarCoder 2: LayerNorm and linears with biases, an MLP of two linears, rope, every layer with a window
   where there is one. Source: transformers' modeling_starcoder2.py, configuration_starcoder2.py;
   docs/families.md. */
#include "model/families/gpt_parts.h"

static void configure(qb_keys *k, qb_config *c) {
    bool bias = true;
    qb_read_gpt_keys(k, c,
                     &(qb_gpt_keys){"intermediate_size", "hidden_act", "gelu_pytorch_tanh", "norm_epsilon"});
    qb_key_bool(k, "use_bias", &bias);
    qb_key_only_text(k, "mlp_type", "default"); /* published, and not read by the class, as is norm_type */
    qb_key_only_text(k, "norm_type", "layer_norm");
    c->attention_bias = c->output_bias = c->mlp_bias = bias;
    qb_config_window(k, &c->window);
    qb_all_layers_slide(c);
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", qb_layer_norm(c));
    qb_project_qkv(b, c, &qb_llama_attention);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", qb_layer_norm(c));
    qb_two_linear_mlp(b, c, "h", (qb_mlp_names){"mlp.c_fc", "mlp.c_proj"}, c->mlp_bias, QB_STORED_ROWS);
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.norm", qb_layer_norm(c));
    qb_head(b, "h", "lm_head", false);
}

const qb_family qb_family_starcoder2 = {
    .name = "starcoder2",
    .summary = "StarCoder 2",
    .architectures = "Starcoder2ForCausalLM",
    .model_types = "starcoder2",
    .tied = true,
    .n_kv_heads = 2,
    .max_positions = 4096,
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = leave,
};
