/* DeepSeek-V2 and V2-Lite: multi-head latent attention, shared experts, group-limited routing. The cache
   holds keys and values by head, not the latent. Source: transformers' modeling_deepseek_v2.py (5.x; 4.57
   omits the m^2 of yarn's scale). */
#include "model/families/experts.h"

#include <math.h>
#include <string.h>

enum { Q_RANK, KV_RANK, NOPE, ROPE, VALUE, DENSE }; /* of qb_config.extra; DENSE: layers before the experts */

/* The latent norms are made without an eps: the class's default, whatever rms_norm_eps is. */
static const float latent_eps = 1e-6f;

static void read_attention(qb_keys *k, qb_config *c) {
    int64_t *e = c->extra;
    e[KV_RANK] = 512, e[NOPE] = 128, e[ROPE] = 64, e[VALUE] = 128;
    /* absent: the class's default; null, as V2-Lite has it: queries without a latent */
    e[Q_RANK] = qb_json_get(k->json, "q_lora_rank") ? 0 : 1536;
    qb_key_int(k, "q_lora_rank", false, 1, 1 << 20, &e[Q_RANK]);
    qb_key_int(k, "kv_lora_rank", false, 1, 1 << 20, &e[KV_RANK]);
    qb_key_int(k, "qk_nope_head_dim", false, 1, 4096, &e[NOPE]);
    qb_key_int(k, "qk_rope_head_dim", false, 2, 4096, &e[ROPE]);
    qb_key_int(k, "v_head_dim", false, 1, 4096, &e[VALUE]);
    qb_key_bool(k, "attention_bias", &c->attention_bias);
    c->n_kv_heads = c->n_heads;
    c->head_dim = e[ROPE];
    qb_config_rope(k, c, 0, NULL, 10000, 1);
    c->head_dim = e[NOPE] + e[ROPE];
    c->rope_interleaved = true;
    const qb_rope_spec *r = &c->ropes[0];
    double m = 1;
    if (r->scaling != QB_ROPE_DEFAULT && r->mscale_all_dim > 0 && r->factor > 1)
        m = 0.1 * r->mscale_all_dim * log(r->factor) + 1;
    c->attention_scale = (float)(m * m / sqrt((double)c->head_dim));
}

static void read_routing(qb_keys *k, qb_config *c) {
    const char *method = "greedy", *score = "softmax";
    bool normalise = false;
    int64_t every = 1;
    c->n_experts = 64;
    qb_read_experts(k, c, "n_routed_experts", "num_experts_per_tok");
    c->route.kind = QB_ROUTER_SOFTMAX;
    qb_key_float(k, "routed_scaling_factor", false, 0, 1e6, &c->route.scale);
    qb_key_text(k, "topk_method", false, &method);
    qb_key_text(k, "scoring_func", false, &score);
    qb_key_bool(k, "norm_topk_prob", &normalise);
    qb_key_int(k, "moe_layer_freq", false, 1, QB_LAYERS_MAX, &every);
    qb_key_int(k, "n_group", false, 1, 4096, &c->route.groups);
    qb_key_int(k, "topk_group", false, 1, 4096, &c->route.keep_groups);
    if (strcmp(score, "softmax") != 0 || normalise || every != 1)
        qb_keys_fail(
            k, QB_ERR_UNSUPPORTED,
            "scoring_func \"%.40s\", norm_topk_prob %s, moe_layer_freq %lld: DeepSeek-V2 is read with "
            "softmax, false and 1",
            score, normalise ? "true" : "false", (long long)every);
    if (!strcmp(method, "greedy"))
        c->route.groups = c->route.keep_groups = 0;
    else if (strcmp(method, "group_limited_greedy") != 0)
        qb_keys_fail(k, QB_ERR_UNSUPPORTED,
                     "topk_method \"%.40s\" is not known (greedy and group_limited_greedy are)", method);
    else if (c->route.groups < 1 || c->n_experts % c->route.groups || c->route.keep_groups < 1 ||
             c->route.keep_groups > c->route.groups ||
             c->top_k > c->route.keep_groups * (c->n_experts / c->route.groups))
        qb_keys_fail(k, QB_ERR_FORMAT,
                     "%lld experts in n_group %lld groups, of which topk_group %lld stay for %lld experts a "
                     "token: these do not fit",
                     (long long)c->n_experts, (long long)c->route.groups, (long long)c->route.keep_groups,
                     (long long)c->top_k);
}

static void configure(qb_keys *k, qb_config *c) {
    int64_t shared = 2;
    qb_read_llama_keys(k, c);
    qb_key_bool(k, "mlp_bias", &c->mlp_bias);
    read_attention(k, c);
    read_routing(k, c);
    c->expert_ffn = 1407;
    qb_key_int(k, "moe_intermediate_size", false, 1, 1 << 20, &c->expert_ffn);
    const qb_json *given = qb_json_get(k->json, "n_shared_experts");
    if (given && qb_json_is_null(given)) shared = 0;
    qb_key_int(k, "n_shared_experts", false, 0, 1024, &shared);
    c->shared_ffn = shared * c->expert_ffn;
    qb_key_int(k, "first_k_dense_replace", false, 0, QB_LAYERS_MAX, &c->extra[DENSE]);
}

/* h -> q, of each head [nope | rope]. */
static void queries(qb_builder *b, const qb_config *c, qb_norm_of norm) {
    qb_slot_new(b, "q", c->n_heads * c->head_dim);
    if (c->extra[Q_RANK] == 0) {
        qb_dense(b, "q", "h", "self_attn.q_proj", false);
        return;
    }
    qb_slot_new(b, "q_latent", c->extra[Q_RANK]);
    qb_dense(b, "q_latent", "h", "self_attn.q_a_proj", c->attention_bias);
    qb_norm(b, "q_latent", "q_latent", "self_attn.q_a_layernorm", norm);
    qb_dense(b, "q", "q_latent", "self_attn.q_b_proj", false);
}

/* h -> latent -> keys without positions and values; the part that turns is one for all heads. */
static void keys_and_values(qb_builder *b, const qb_config *c, qb_norm_of norm) {
    const int64_t *e = c->extra, A = c->n_heads;
    qb_slot_new(b, "kv_a", e[KV_RANK] + e[ROPE]);
    qb_slot_new(b, "latent", e[KV_RANK]);
    qb_slot_new(b, "k_rope", e[ROPE]);
    qb_slot_new(b, "kv", A * (e[NOPE] + e[VALUE]));
    qb_slot_new(b, "k_nope", A * e[NOPE]);
    qb_slot_new(b, "v", A * e[VALUE]);
    qb_slot_new(b, "k", A * c->head_dim);
    qb_dense(b, "kv_a", "h", "self_attn.kv_a_proj_with_mqa", c->attention_bias);
    qb_split(b, "kv_a", "latent", "k_rope", NULL,
             (qb_split_attr){.groups = 1, .width = {e[KV_RANK], e[ROPE]}});
    qb_norm(b, "latent", "latent", "self_attn.kv_a_layernorm", norm);
    qb_dense(b, "kv", "latent", "self_attn.kv_b_proj", false);
    qb_split(b, "kv", "k_nope", "v", NULL, (qb_split_attr){.groups = A, .width = {e[NOPE], e[VALUE]}});
    qb_rope(b, "k_rope",
            (qb_rope_attr){.kind = QB_ROPE_INTERLEAVED, .heads = 1, .head_dim = e[ROPE], .width = e[ROPE]});
    qb_join_heads(b, "k", "k_nope", "k_rope",
                  (qb_join_attr){.heads = A, .width = e[NOPE], .shared = e[ROPE]});
}

static void attention(qb_builder *b, const qb_config *c, int64_t layer) {
    const int64_t *e = c->extra;
    const qb_norm_of norm = {.kind = QB_NORM_RMS, .eps = latent_eps};
    qb_attend_attr a = qb_attention_of(c, layer);
    a.value_dim = e[VALUE];
    queries(b, c, norm);
    keys_and_values(b, c, norm);
    qb_rope(b, "q",
            (qb_rope_attr){.kind = QB_ROPE_INTERLEAVED,
                           .heads = c->n_heads,
                           .head_dim = c->head_dim,
                           .offset = e[NOPE],
                           .width = e[ROPE]});
    qb_slot_new(b, "c", c->n_heads * e[VALUE]);
    qb_slot_new(b, "o", c->hidden);
    qb_cache(b, "k", "v");
    qb_attend(b, "c", "q", NULL, a);
    qb_dense(b, "o", "c", "self_attn.o_proj", c->attention_bias);
}

static void block(qb_builder *b, const qb_config *c, int64_t layer) {
    static const qb_mlp_names shared = {"mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj",
                                        "mlp.shared_experts.down_proj"};
    const qb_norm_of rms = {.kind = QB_NORM_RMS, .eps = c->norm_eps};
    b->prefix = "model.layers.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "input_layernorm", rms);
    attention(b, c, layer);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "post_attention_layernorm", rms);
    if (layer < c->extra[DENSE]) {
        qb_gated_mlp(b, c, "h", "d");
    } else {
        qb_moe(b, c, &qb_qwen_moe);
        if (c->shared_ffn > 0) {
            qb_shared_mlp(b, c, &shared);
            qb_add(b, "d", "shared");
        }
    }
    qb_add(b, "x", "d");
}

const qb_family qb_family_deepseek_v2 = {
    .name = "deepseek_v2",
    .summary = "DeepSeek-V2 and V2-Lite: latent attention",
    .architectures = "DeepseekV2ForCausalLM",
    .model_types = "deepseek_v2",
    .configure = configure,
    .enter = qb_llama_enter,
    .block = block,
    .leave = qb_llama_leave,
};
