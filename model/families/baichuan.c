/* Baichuan 1 and 2: Llama with queries, keys and values in one linear; the 13B models have ALiBi in place of
   rope, the second generation a head whose rows have length one. Source: the published checkpoints'
   config.json and tensors; its class is no part of transformers (tools/families/remote.py computes the same).
 */
#include "model/families/gpt_parts.h"

/* Nothing but these keys tells the four apart: the 13B configs have model_max_length alone, those of
   Baichuan 2 z_loss_weight, of training. */
enum { UNIT_HEAD = 1 };

static void configure(qb_keys *k, qb_config *c) {
    qb_read_llama_keys(k, c);
    qb_one_kv_head_a_query_head(c);
    if (qb_key_any(k, "z_loss_weight")) c->variant = UNIT_HEAD;
    if (c->variant == UNIT_HEAD && c->tied_head)
        qb_keys_fail(k, QB_ERR_UNSUPPORTED,
                     "tie_word_embeddings is true, but Baichuan 2 (z_loss_weight) has a head of its own");
    if (qb_key_any(k, "max_position_embeddings")) {
        qb_config_rope(k, c, 0, NULL, 10000, 1);
        return;
    }
    qb_key_int(k, "model_max_length", true, 1, 1 << 24, &c->max_positions);
    c->alibi = QB_ALIBI_PLAIN;
    c->n_ropes = 0;
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    const qb_norm_of rms = qb_rms_of(c);
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    qb_fused_qkv(b, c, "h", "self_attn.W_pack", false, QB_STORED_ROWS);
    qb_attend_and_project(b, c, layer, qb_llama_attention.o);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", rms);
    qb_gated_mlp(b, c, "h", "d");
    qb_add(b, "x", "d");
}

static void leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "model.norm", qb_rms_of(c));
    qb_head(b, "h", "lm_head", false);
    if (c->variant == UNIT_HEAD) qb_with_unit_rows(b);
}

const qb_family qb_family_baichuan = {
    .name = "baichuan",
    .summary = "Baichuan 1 and 2, 7B and 13B",
    .architectures = "BaichuanForCausalLM|BaiChuanForCausalLM",
    .model_types = "baichuan",
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = leave,
};
