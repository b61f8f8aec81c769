/* Three small families that differ in norms, positions, gating and biases, for tests of whole models. */
#pragma once

#include "model/families/parts.h"

enum {
    TOY_GATED,
    TOY_LEARNED,
    TOY_INTERLEAVED,
    TOY_OFFSET = 2
}; /* qb_config.variant; rows before position 0 */

static inline qb_norm_of toy_norm(const qb_config *c) {
    bool layered = c->variant != TOY_GATED;
    return (qb_norm_of){.kind = layered ? QB_NORM_LAYER : QB_NORM_RMS, .eps = c->norm_eps, .biased = layered};
}

static inline void toy_enter(qb_builder *b, const qb_config *c) {
    b->t->embed = "e";
    if (c->variant == TOY_LEARNED) qb_position(b, "x", "p.weight", c->max_positions, TOY_OFFSET);
}

static inline void toy_block(qb_builder *b, const qb_config *c, int64_t layer) {
    static const qb_attention_names names = {"q", "k", "v", "o"};
    b->prefix = "l.%d.";
    qb_slot_new(b, "h", c->hidden);
    qb_norm(b, "h", "x", "n1", toy_norm(c));
    qb_project_qkv(b, c, &names);
    qb_attend_and_project(b, c, layer, names.o);
    qb_add(b, "x", "o");
    qb_norm(b, "h", "x", "n2", toy_norm(c));
    qb_slot_new(b, "up", c->ffn);
    qb_slot_new(b, "d", c->hidden);
    qb_activate_attr act = {.kind = c->activation, .glu = c->gated ? QB_GLU_SEPARATE : QB_GLU_NONE};
    qb_slot_new(b, "gate", c->ffn);
    if (c->gated) qb_dense(b, "gate", "h", "g", c->mlp_bias);
    qb_dense(b, "up", "h", "u", c->mlp_bias);
    qb_activate(b, "gate", c->gated ? "gate" : "up", c->gated ? "up" : NULL, act);
    qb_dense(b, "d", "gate", "d", c->mlp_bias);
    qb_add(b, "x", "d");
}

static inline void toy_leave(qb_builder *b, const qb_config *c) {
    qb_norm(b, "h", "x", "n", toy_norm(c));
    qb_head(b, "h", "h", false);
}

#define TOY(n)                                                                                               \
    { .name = n, .enter = toy_enter, .block = toy_block, .leave = toy_leave }
static const qb_family rms_gated = TOY("rms-gated"), layer_learned = TOY("layer-learned"),
                       interleaved = TOY("interleaved");

/* What qb_model_open leaves of a config, over a synthetic checkpoint. */
static inline void toy_open(qb_model *m, const qb_config *c, uint64_t seed) {
    qb_tensor_spec *specs;
    size_t n;
    qb_json *json = qb_json_object();
    m->config = *c;
    assert_ok(qb_topology_build(c, &m->topology));
    assert_ok(qb_owners_build(&m->topology, &m->owners));
    assert_ok(qb_model_tensor_specs(&m->topology, &specs, &n));
    assert_ok(qb_checkpoint_synthetic(json, specs, n, seed, &m->checkpoint));
    qb_free(specs);
    qb_json_free(json);
}
