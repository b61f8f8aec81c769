/* OPT and Galactica. Norms before the two halves of a block; OPT-350m has them behind, a narrower embedding
   between project_in and project_out, and no last norm. Galactica has neither biases nor weights in its
   norms. Source: transformers' modeling_opt.py. */
#include "model/families/gpt_parts.h"

/* Numbers of this family alone. */
enum { NORM_BEFORE, NORM_AFFINE, LAST_NORM };
enum { POSITION_OFFSET = 2 };

static void configure(qb_keys *k, qb_config *c) {
    bool bias = true, affine = true, before = true, no_last = false;
    qb_read_gpt_keys(k, c,
                     &(qb_gpt_keys){.ffn = "ffn_dim|intermediate_size",
                                    .activation = "activation_function",
                                    .activation_default = "relu"});
    qb_key_int(k, "word_embed_proj_dim", false, 1, 1 << 20, &c->embed_width);
    qb_key_bool(k, "enable_bias", &bias);
    qb_key_bool(k, "layer_norm_elementwise_affine", &affine);
    qb_key_bool(k, "do_layer_norm_before", &before);
    qb_key_bool(k, "_remove_final_layer_norm", &no_last);
    c->attention_bias = c->output_bias = c->mlp_bias = bias;
    c->extra[NORM_BEFORE] = before;
    c->extra[NORM_AFFINE] = affine;
    c->extra[LAST_NORM] = before && !no_last;
    c->n_ropes = 0;
    qb_one_kv_head_a_query_head(c);
}

static qb_norm_of norm(const qb_config *c) {
    qb_norm_of n = qb_layer_norm(c);
    n.bare = !c->extra[NORM_AFFINE];
    n.biased = !n.bare;
    return n;
}

static void enter(qb_builder *b, const qb_config *c) {
    b->t->embed = "model.decoder.embed_tokens";
    if (c->embed_width != c->hidden) {
        qb_slot_new(b, "e", c->embed_width);
        qb_embed_into(b, "e");
        qb_dense_kept(b, "x", "e", "model.decoder.project_in", false);
    }
    qb_position(b, "x", "model.decoder.embed_positions.weight", c->max_positions, POSITION_OFFSET);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    static const qb_attention_names attention = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                 "self_attn.out_proj"};
    bool before = c->extra[NORM_BEFORE];
    const char *in = before ? "h" : "x";
    b->prefix = "model.decoder.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    if (before) qb_norm(b, "h", "x", "self_attn_layer_norm", norm(c));
    qb_project_qkv_from(b, c, in, &attention);
    qb_attend_and_project(b, c, layer, attention.o);
    qb_add(b, "x", "o");
    qb_norm(b, before ? "h" : "x", "x", before ? "final_layer_norm" : "self_attn_layer_norm", norm(c));
    qb_two_linear_mlp(b, c, in, (qb_mlp_names){"fc1", "fc2"}, c->mlp_bias, QB_STORED_ROWS);
    qb_add(b, "x", "d");
    if (!before) qb_norm(b, "x", "x", "final_layer_norm", norm(c));
}

static void leave(qb_builder *b, const qb_config *c) {
    const char *last = "x";
    if (c->extra[LAST_NORM]) qb_norm(b, last = "h", "x", "model.decoder.final_layer_norm", norm(c));
    if (c->embed_width != c->hidden) {
        qb_dense_kept(b, "e", last, "model.decoder.project_out", false);
        last = "e";
    }
    qb_head(b, last, "lm_head", false);
}

const qb_family qb_family_opt = {
    .name = "opt",
    .summary = "OPT and Galactica",
    .architectures = "OPTForCausalLM",
    .model_types = "opt",
    .tied = true,
    .configure = configure,
    .enter = enter,
    .block = block,
    .leave = leave,
};
