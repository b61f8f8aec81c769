/* What a model computes, as lists of steps (kernels/step.h), and the tensors that they read: built from the
   config by the family's row, then read by everybody else. */
#pragma once

#include "base/memory.h"
#include "kernels/step.h"
#include "model/config.h"

/* How a linear's weight lies in its tensor. */
typedef enum {
    QB_STORED_ROWS,    /* NAME.weight [out, in] */
    QB_STORED_COLUMNS, /* NAME.weight [in, out]: GPT-2's Conv1D; quantized layouts hold [out, in] anyway */
    QB_STORED_STACKED_ROWS,    /* NAME [experts, out, in], this expert's slice */
    QB_STORED_STACKED_COLUMNS, /* NAME [experts, in, out] */
} qb_stored;

/* Experts that a class stacks in one tensor. */
typedef struct qb_stack_of {
    const char *name, *suffix,
        *bias; /* "mlp.experts.gate_up_proj", ".weight" or ""; the bias' suffix or NULL */
    qb_stored stored;
    /* What each is called where they lie apart, "mlp.experts.gate_up.%e"; NULL: nobody has them so. */
    const char *apart;
    /* The same in programs that cut its rows into two halves, "mlp.experts.%e.gate_proj" and the other, or
       leave it whole under one name; NULL: nobody does. What is quantized is written so where there are
       names. The halves are those of the rows in their order, whatever a pair of rows means to the
       activation. */
    const char *parted[2];
} qb_stack_of;

/* A linear of a list. Names have %d for the layer and %e for the expert. */
typedef struct qb_linear {
    const char *prefix, *name; /* "model.layers.%d." and "self_attn.q_proj" */
    int64_t rows, cols;        /* [out, in] */
    int16_t expert;            /* -1: of no expert */
    qb_stored stored;
    bool quantized;   /* what methods quantize; routers, heads and what stands at the ends stay */
    bool unit_rows;   /* computes with its rows divided by their lengths; files keep them as they are */
    const char *bias; /* suffix of the bias tensor, ".bias"; NULL: none */
    const qb_stack_of *stack; /* of experts that the class stacks; NULL */
    int8_t part, parts;       /* the part'th of so many, of the stack's rows; 0 parts: all of them */
} qb_linear;

typedef enum {
    QB_VECTOR_TENSOR,
    QB_VECTOR_SLOPES,    /* no tensor: ALiBi's slopes of `rows` heads (BLOOM's and MPT's
                            agree), 2^(-most i / heads) */
    QB_VECTOR_SINUSOIDS, /* no tensor: rows of sines, then cosines, of the row's number (XGLM) */
} qb_vector_source;

/* Float32 values on the device: a norm's weight, sinks, slopes, a table of positions. */
typedef struct qb_vector {
    const char *prefix, *name; /* with its suffix: "input_layernorm.weight"; of several `parts` one tensor
                                  each: %h in the name, or "one|other|.." */
    int64_t rows, cols;        /* [rows], or [rows, cols] */
    int64_t parts; /* tensors that follow each other in it, 1 for all but StableLM's per-head norms */
    float add;     /* to every value once loaded: 1 where a norm multiplies by 1 + w */
    qb_vector_source source;
    float most; /* of QB_VECTOR_SLOPES */
} qb_vector;

typedef struct qb_list {
    qb_step *steps;
    size_t n_steps, steps_capacity;
    qb_linear *linears;
    size_t n_linears, linears_capacity;
    qb_vector *vectors;
    size_t n_vectors, vectors_capacity;
    int64_t state_floats; /* that its steps keep of a sequence */
} qb_list;

typedef struct qb_slot {
    const char *name;
    int64_t width;
    bool routed;    /* top_k rows a token */
    int64_t offset; /* floats a token before it in the workspace; slots that never live together share */
} qb_slot;

typedef struct qb_topology {
    int64_t n_layers, hidden, vocab;
    qb_slot slots[QB_SLOTS_MAX];
    int n_slots;
    const char *embed; /* the table's module: "model.embed_tokens" */
    int64_t embed_width;
    int8_t embed_slot, logits_slot;
    qb_list enter, *layers, leave; /* behind the embedding; [n_layers]; to the logits */
    int head;                      /* the linear of `leave` that gives the logits */
    bool tied_head;                /* its matrix is the embedding's */
    int64_t state_floats;          /* that a layer keeps of a sequence from token to token, the largest */
    int64_t kv_heads, key_dim, value_dim; /* of the cache, the same in all layers */
    int64_t top_k, experts;               /* largest of all layers; 0: no routed slots */
    int64_t workspace_floats;             /* a token */
    int64_t context_flops; /* multiply-adds of attention for each visible key and token, all layers */
    qb_arena names;        /* owned: of names put together */
} qb_topology;

/* Checks the lists: every slot read was written, widths fit, indices stand, the residual stream comes out. */
qb_status qb_topology_build(const qb_config *c, qb_topology *out) QB_NODISCARD;
void qb_topology_free(qb_topology *t); /* takes a cleared one */

/* Slots that a step reads and writes. */
typedef struct qb_step_use {
    int8_t reads[8], writes[3];
    int n_reads, n_writes;
    bool begins; /* what it writes does not depend on what was there */
    bool routed; /* it needs the routing */
} qb_step_use;
void qb_step_uses(const qb_step *s, qb_step_use *out);
/* What must be there before step `at` for it and the rest of the list, as bits by slot, and whether the
   routing must. after: what is read behind the list. */
void qb_list_live(const qb_list *l, size_t at, uint64_t after, uint64_t *slots, bool *routing);

/* "model.layers.3.self_attn.q_proj"; with the bias' suffix; a vector's tensor (part: of those with %h). */
enum { QB_NAME_BYTES = 192 };
void qb_linear_name(const qb_linear *l, int64_t layer, char out[QB_NAME_BYTES]);
void qb_linear_bias_name(const qb_linear *l, int64_t layer, char out[QB_NAME_BYTES]);
void qb_vector_name(const qb_vector *v, int64_t layer, int64_t part, char out[QB_NAME_BYTES]);

int64_t qb_topology_linear_params(const qb_topology *t); /* of what methods quantize */
int64_t qb_topology_widest(const qb_topology *t);        /* columns of a layer's linear, the most */
int64_t qb_topology_params(const qb_topology *t);        /* all; the embedding counted once when tied */
int64_t qb_topology_active_params(const qb_topology *t); /* quantized ones that one token passes through */

/* ---- for families: a block is written as the figure reads ---- */

typedef struct qb_builder {
    qb_topology *t;
    const qb_config *c;
    qb_list *list;
    const char *prefix; /* before the names that follow */
    qb_status st;       /* the first failure; what follows does nothing */
} qb_builder;

/* Declares a slot before it is used. The same name again must have the same width. */
void qb_slot_new(qb_builder *b, const char *name, int64_t width);
void qb_slot_routed(qb_builder *b, const char *name, int64_t width);
int64_t qb_slot_width(qb_builder *b, const char *name);
/* The slot that takes the rows of the embedding, where it is not x. */
void qb_embed_into(qb_builder *b, const char *name);

/* out = norm(in) over `dim` elements at a time (0: the whole width). */
typedef struct qb_norm_of {
    qb_norm_kind kind;
    float eps, add; /* add: qb_vector.add */
    int64_t dim;
    bool per_group;    /* a weight of its own for each group */
    bool bare, biased; /* no weight; with a bias */
    bool by_head;      /* per_group, from a tensor a head (%h in the name) */
} qb_norm_of;
void qb_norm(qb_builder *b, const char *out, const char *in, const char *name, qb_norm_of n);
/* out = W in, quantized by methods; rows and cols are the slots' widths. */
void qb_dense(qb_builder *b, const char *out, const char *in, const char *name, bool bias);
/* The same for what methods leave alone. */
void qb_dense_kept(qb_builder *b, const char *out, const char *in, const char *name, bool bias);
/* The last linear's storage; its bias' suffix. */
void qb_stored_as(qb_builder *b, qb_stored stored);
/* The last linear, which methods leave alone, has rows of length one. */
void qb_with_unit_rows(qb_builder *b);
/* One linear an expert on routed slots, %e in the name. bias: suffix or NULL. */
void qb_experts(qb_builder *b, const char *out, const char *in, const char *name, const char *bias,
                qb_stored stored);
/* The same of experts that the class stacks, in the form that the config names; apart and parted they are
   [out, in] with ".bias", and two halves are put together in `out`. */
void qb_experts_of_stack(qb_builder *b, const char *out, const char *in, const qb_stack_of *stack);
void qb_split(qb_builder *b, const char *in, const char *out, const char *out2, const char *out3,
              qb_split_attr a);
void qb_join_heads(qb_builder *b, const char *out, const char *in, const char *shared, qb_join_attr a);
void qb_rope(qb_builder *b, const char *slot, qb_rope_attr a);
void qb_cache(qb_builder *b, const char *keys, const char *values);
/* sinks: tensor name or NULL. ALiBi's slopes come with the attribute. */
void qb_attend(qb_builder *b, const char *out, const char *queries, const char *sinks, qb_attend_attr a);
/* out = act(in) in2; in2 NULL for a single or a fused input. */
void qb_activate(qb_builder *b, const char *out, const char *in, const char *in2, qb_activate_attr a);
void qb_add(qb_builder *b, const char *to, const char *what);
void qb_map_values(qb_builder *b, qb_step_kind kind, const char *slot,
                   float value); /* SCALE, CLAMP, SOFTCAP; 1 or 0: no step */
void qb_gate_rows(qb_builder *b, const char *slot, const char *gate);
void qb_position(qb_builder *b, const char *slot_name, const char *tensor, int64_t rows, int64_t offset);
/* The same with a table of sines and cosines that no tensor holds. */
void qb_position_sinusoids(qb_builder *b, const char *slot, int64_t rows, int64_t offset);
void qb_temperature(qb_builder *b, const char *slot, qb_temperature_attr a);
void qb_route_by(qb_builder *b, const char *logits, const char *bias, qb_route_attr a);
void qb_gather(qb_builder *b, const char *out, const char *in, bool weigh);
void qb_scatter(qb_builder *b, const char *out, const char *in, bool weighed_before);
void qb_concat(qb_builder *b, const char *out, const char *in, const char *in2, const char *in3);
/* Convolution over time in place, weights [width, 1, taps] of the tensor `name`. */
void qb_conv(qb_builder *b, const char *slot_name, const char *tensor, int64_t taps);
/* a_log and dt_bias: tensors [value heads]. */
void qb_delta(qb_builder *b, const char *out, const char *qkv, const char *beta, const char *decay,
              const char *a_log, const char *dt_bias, qb_delta_attr a);
/* The numbers of QB_STEP_XIELU are the tensors MODULE.alpha_p, .alpha_n, .beta and .eps. */
void qb_xielu(qb_builder *b, const char *out, const char *in, const char *module);
/* The head: logits = W in; the embedding's matrix when the config ties them. */
void qb_head(qb_builder *b, const char *in, const char *name, bool bias);
