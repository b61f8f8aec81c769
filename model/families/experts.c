#include "model/families/experts.h"

const qb_moe_names qb_qwen_moe = {"mlp.gate", "mlp.experts.%e.gate_proj", "mlp.experts.%e.up_proj",
                                  "mlp.experts.%e.down_proj"},
                   qb_mixtral_moe = {"block_sparse_moe.gate", "block_sparse_moe.experts.%e.w1",
                                     "block_sparse_moe.experts.%e.w3", "block_sparse_moe.experts.%e.w2"};

void qb_read_experts(qb_keys *k, qb_config *c, const char *experts, const char *top_k) {
    enum { EXPERTS_MAX = 4096 };
    qb_key_int(k, experts, c->n_experts == 0, 1, EXPERTS_MAX, &c->n_experts);
    qb_key_int(k, top_k, c->top_k == 0, 1, EXPERTS_MAX, &c->top_k);
    if (c->top_k > c->n_experts)
        qb_keys_fail(k, QB_ERR_FORMAT, "a token takes %lld experts, but there are %lld", (long long)c->top_k,
                     (long long)c->n_experts);
    c->route.experts = c->n_experts;
    c->route.top_k = c->top_k;
    c->route.scale = 1;
}

void qb_read_sparse_layers(qb_keys *k, qb_config *c, int64_t step) {
    const qb_json *dense = qb_key_any(k, "mlp_only_layers");
    if (k->st != QB_OK) return;
    for (int64_t l = step - 1; l < c->n_layers; l += step) c->layers[l] |= QB_LAYER_SPARSE;
    for (const qb_json *e = qb_json_first(dense); e; e = qb_json_next(e)) {
        double layer = qb_json_number(e);
        if (layer >= 0 && layer < (double)c->n_layers) c->layers[(int64_t)layer] &= (uint8_t)~QB_LAYER_SPARSE;
    }
}

void qb_read_window_of_all(qb_keys *k, qb_config *c, int64_t window) {
    c->window = window;
    qb_config_window(k, &c->window);
    qb_all_layers_slide(c);
}

void qb_route_rows(qb_builder *b, const qb_config *c, const char *router, bool router_bias,
                   bool weigh_input) {
    qb_slot_new(b, "router", c->n_experts);
    qb_slot_routed(b, "xe", c->hidden);
    qb_dense_kept(b, "router", "h", router, router_bias);
    qb_route_by(b, "router", NULL, c->route);
    qb_gather(b, "xe", "h", weigh_input);
}

void qb_moe(qb_builder *b, const qb_config *c, const qb_moe_names *names) {
    qb_route_rows(b, c, names->router, false, false);
    qb_slot_routed(b, "gate_e", c->expert_ffn);
    qb_slot_routed(b, "up_e", c->expert_ffn);
    qb_slot_routed(b, "down_e", c->hidden);
    qb_slot_new(b, "d", c->hidden);
    qb_experts(b, "gate_e", "xe", names->gate, NULL, QB_STORED_ROWS);
    qb_experts(b, "up_e", "xe", names->up, NULL, QB_STORED_ROWS);
    qb_activate(b, "gate_e", "gate_e", "up_e",
                (qb_activate_attr){.kind = c->activation, .glu = QB_GLU_SEPARATE});
    qb_experts(b, "down_e", "gate_e", names->down, NULL, QB_STORED_ROWS);
    qb_scatter(b, "d", "down_e", false);
}

void qb_shared_mlp(qb_builder *b, const qb_config *c, const qb_mlp_names *names) {
    qb_slot_new(b, "gate_s", c->shared_ffn);
    qb_slot_new(b, "up_s", c->shared_ffn);
    qb_slot_new(b, "shared", c->hidden);
    qb_dense(b, "gate_s", "h", names->gate, c->mlp_bias);
    qb_dense(b, "up_s", "h", names->up, c->mlp_bias);
    qb_activate(b, "gate_s", "gate_s", "up_s",
                (qb_activate_attr){.kind = c->activation, .glu = QB_GLU_SEPARATE});
    qb_dense(b, "shared", "gate_s", names->down, c->mlp_bias);
}
