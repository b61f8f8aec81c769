/* Gemma 1, 2 and 3 (text): norms multiply by 1 + w, embeddings are scaled by the root of their width. Gemma 2
   and 3 norm what a branch gives, too. Source: transformers' modeling_gemma.py, modeling_gemma2.py,
   modeling_gemma3.py with their configurations. */
#include "model/families/parts.h"

#include <math.h>

/* transformers casts the scale to the type of the weights before it multiplies. */
static float embedding_scale(const qb_config *c) {
    float scale = sqrtf((float)c->hidden);
    if (c->dtype_stated && c->dtype == QB_DTYPE_BF16) return qb_f32_of_bf16(qb_bf16_of_f32(scale));
    if (c->dtype_stated && c->dtype == QB_DTYPE_F16) return qb_f32_of_f16(qb_f16_of_f32(scale));
    return scale;
}

static void read_common(qb_keys *k, qb_config *c) {
    qb_read_llama_keys(k, c);
    c->norm_add = 1;
    c->embed_scale = embedding_scale(c);
    c->activation = QB_ACTIVATION_GELU_TANH;
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->output_bias = c->attention_bias;
}

/* hidden_activation counts where it is there; the first files say hidden_act "gelu" and mean the tanh form.
 */
static void configure_gemma(qb_keys *k, qb_config *c) {
    const char *activation = "gelu_pytorch_tanh", *newer = NULL;
    read_common(k, c);
    qb_key_text(k, "hidden_act", false, &activation);
    qb_key_text(k, "hidden_activation", false, &newer);
    qb_config_activation(k, newer ? newer : activation, &c->activation);
    if (c->activation == QB_ACTIVATION_GELU) c->activation = QB_ACTIVATION_GELU_TANH;
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

const qb_family qb_family_gemma = {
    .name = "gemma",
    .summary = "Gemma 1",
    .architectures = "GemmaForCausalLM",
    .model_types = "gemma",
    .tied = true,
    .head_dim = 256,
    .max_positions = 8192,
    .configure = configure_gemma,
    .enter = qb_llama_enter,
    .block = qb_llama_block,
    .leave = qb_llama_leave,
};

/* null is no cap; absent is the class's. */
static void read_softcap(qb_keys *k, const char *name, float by_class, float *cap) {
    *cap = qb_json_get(k->json, name) ? 0 : by_class;
    qb_key_float(k, name, false, 1e-3, 1e6, cap);
}

static void read_sandwich(qb_keys *k, qb_config *c, float attention_cap, float logit_cap) {
    const char *activation = "gelu_pytorch_tanh";
    double scalar = 256;
    read_common(k, c);
    qb_key_text(k, "hidden_activation", false, &activation);
    qb_config_activation(k, activation, &c->activation);
    qb_key_real(k, "query_pre_attn_scalar", false, 1e-3, 1e6, &scalar);
    c->attention_scale = (float)(1 / sqrt(scalar));
    read_softcap(k, "attn_logit_softcapping", attention_cap, &c->attention_softcap);
    read_softcap(k, "final_logit_softcapping", logit_cap, &c->logit_softcap);
    c->window = 4096;
    qb_config_window(k, &c->window);
}

static void configure_gemma2(qb_keys *k, qb_config *c) {
    read_sandwich(k, c, 50, 30);
    qb_config_layer_types(k, c, 2);
    qb_config_rope(k, c, 0, NULL, 10000, 1);
}

/* Sliding layers turn by a table of their own: of the nested parameters, else plain with
   rope_local_base_freq, whatever scaling the full layers have. */
static void read_local_rope(qb_keys *k, qb_config *c) {
    static const char name[] = "sliding_attention";
    double theta = 10000;
    qb_key_real(k, "rope_local_base_freq", false, 1, 1e12, &theta);
    c->n_ropes = 2;
    const qb_json *own = qb_json_get(qb_json_get(k->json, "rope_parameters"), name);
    if (!own) own = qb_json_get(qb_json_get(k->json, "rope_scaling"), name);
    if (qb_json_is_object(own)) {
        qb_config_rope(k, c, 1, name, theta, 1);
        if (qb_json_is_null(qb_json_get(own, "rope_theta")))
            c->ropes[1].theta = theta; /* not the full ones' */
        return;
    }
    c->ropes[1] = (qb_rope_spec){.theta = theta,
                                 .width = c->head_dim,
                                 .factor = 1,
                                 .max_positions = c->max_positions,
                                 .original_positions = c->max_positions};
}

static void configure_gemma3(qb_keys *k, qb_config *c) {
    int64_t pattern = 6;
    read_sandwich(k, c, 0, 0);
    c->qk_norm = true;
    qb_key_int(k, "sliding_window_pattern|_sliding_window_pattern", false, 1, QB_LAYERS_MAX, &pattern);
    qb_config_layer_types(k, c, pattern);
    qb_config_rope(k, c, 0, "full_attention", 1e6, 1);
    read_local_rope(k, c);
}

static void sandwich_block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = qb_rms_of(c);
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    qb_project_qkv(b, c, &qb_llama_attention);
    if (c->qk_norm) qb_norm_queries_and_keys(b, c);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_norm(b, "o", "o", "post_attention_layernorm", rms);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "pre_feedforward_layernorm", rms);
    qb_gated_mlp(b, c, "h", "d");
    qb_norm(b, "d", "d", "post_feedforward_layernorm", rms);
    qb_add(b, "x", "d");
}

const qb_family qb_family_gemma2 = {
    .name = "gemma2",
    .summary = "Gemma 2",
    .architectures = "Gemma2ForCausalLM",
    .model_types = "gemma2",
    .tied = true,
    .n_kv_heads = 4,
    .head_dim = 256,
    .max_positions = 8192,
    .configure = configure_gemma2,
    .enter = qb_llama_enter,
    .block = sandwich_block,
    .leave = qb_llama_leave,
};

/* Files of the 4B and larger leave out what the class has by default, heads and vocabulary too. */
const qb_family qb_family_gemma3 = {
    .name = "gemma3",
    .summary = "Gemma 3, with images left out",
    .architectures = "Gemma3ForCausalLM|Gemma3ForConditionalGeneration",
    .model_types = "gemma3_text|gemma3",
    .tied = true,
    .n_heads = 8,
    .n_kv_heads = 4,
    .head_dim = 256,
    .vocab = 262208,
    .max_positions = 131072,
    .configure = configure_gemma3,
    .enter = qb_llama_enter,
    .block = sandwich_block,
    .leave = qb_llama_leave,
};
