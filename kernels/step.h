/* A decoder as data: lists of steps over named activations.

   A block of the paper's figure is a short list that a reader can hold against it:

       norm x -> h; linear h -> q, k, v; rope q, k; cache k, v; attend q -> c; linear c -> o; add o -> x;
       norm x -> h; linear h -> gate, up; activate gate, up -> a; linear a -> d; add d -> x

   Pre-norm, post-norm, sandwich and parallel blocks, layers without positions and layers with a window are
   different lists. The executor (model/execute.c), the memory plan, the quantizer's walk and a backend's
   fused decode step all read the same list; nobody knows a family.

   An activation is a slot: [rows, width] float32, row-major, rows = sequences x tokens. Slot 0 is the
   residual stream x. Routed slots hold top_k rows a token, sorted by expert (qb_routing). */
#pragma once

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum { QB_NORM_RMS, QB_NORM_LAYER } qb_norm_kind;

typedef enum {
    QB_ACTIVATION_SILU,
    QB_ACTIVATION_GELU,      /* x / 2 (1 + erf(x / sqrt 2)) */
    QB_ACTIVATION_GELU_TANH, /* the tanh form: gelu_new, gelu_pytorch_tanh, gelu_fast */
    QB_ACTIVATION_RELU,
    QB_ACTIVATION_RELU2,      /* max(x, 0)^2 */
    QB_ACTIVATION_QUICK_GELU, /* x sigmoid(1.702 x) */
    QB_ACTIVATION_SIGMOID,
    QB_ACTIVATION_SWIGLU_OSS, /* gpt-oss: g = min(gate, limit), u = clamp(up, +-limit): (u + 1) g
                                 sigmoid(alpha g) */
    QB_ACTIVATION_COUNT
} qb_activation;
const char *qb_activation_name(qb_activation kind);

typedef enum { QB_ROPE_HALF, QB_ROPE_INTERLEAVED } qb_rope_kind; /* pairs (i, i + rot/2), or (2i, 2i + 1) */

enum { QB_SLOT_NONE = -1, QB_SLOT_X = 0, QB_SLOTS_MAX = 48 };

typedef enum {
    QB_STEP_NORM,      /* out = norm(in), in groups of `dim`; weight `vector`, bias `vector2`, each or none */
    QB_STEP_LINEAR,    /* out = module(in), its bias added */
    QB_STEP_SPLIT,     /* in -> out, out2, out3: what a fused linear gave, cut by groups */
    QB_STEP_JOIN,      /* out[h] = in[h] | in2, the latter shared by all heads (MLA keys) */
    QB_STEP_ROPE,      /* out turns in place */
    QB_STEP_CACHE,     /* keys in, values in2 into the layer's cache */
    QB_STEP_ATTEND,    /* out = attention of the queries in; `vector` slopes, `vector2` sinks, each or none */
    QB_STEP_ACTIVATE,  /* out = act(in) [* in2] */
    QB_STEP_ADD,       /* out += in */
    QB_STEP_SCALE,     /* out *= value */
    QB_STEP_CLAMP,     /* out = min(max(out, -value), value) */
    QB_STEP_SOFTCAP,   /* out = value tanh(out / value) */
    QB_STEP_GATE_ROWS, /* out[t] *= sigmoid(in[t]), in of width 1 */
    QB_STEP_POSITION,  /* out += row (position + offset) of the learned table `vector` */
    QB_STEP_TEMPERATURE, /* out[t] *= 1 + beta log1p(floor((position + shift) / floor_scale)) */
    QB_STEP_ROUTE,       /* router logits in -> the routing of the rows */
    QB_STEP_GATHER,      /* routed out = rows of in by expert */
    QB_STEP_SCATTER, /* out = sum over a token's experts of routed in, times their weights, in expert order */
    QB_STEP_CONCAT,  /* out = in | in2 | in3, by row */
    QB_STEP_CONV,    /* out = causal convolution of each element with itself over time, in place, weights
                        `vector`; keeps    the last inputs */
    QB_STEP_DELTA, /* out = gated delta rule over q | k | v in, beta's logits in2, decays in3; `vector` A_log
                      and `vector2` dt_bias [value heads]; keeps its matrices */
    QB_STEP_XIELU, /* out = xIELU(in) by the numbers `vector` [4]: alpha_p, alpha_n, beta, eps as files hold
                      them */
    QB_STEP_COUNT
} qb_step_kind;
const char *qb_step_name(qb_step_kind kind); /* "norm", "linear", .. */

typedef struct qb_norm_attr {
    qb_norm_kind kind;
    float eps;
    int64_t dim; /* elements normalised together; divides the slot's width */
    int64_t
        weight_rows; /* 1: all groups of a row share the weight [dim]; else [weight_rows, dim], one a group */
} qb_norm_attr;

/* The fused width is groups x (width[0] + width[1] + width[2]); part i of all groups, in order, is slot out
   i. One group: q | k | v one behind the other. A group a head or a key head: interleaved tensors. */
typedef struct qb_split_attr {
    int64_t groups, width[3]; /* width[2] 0: two parts */
} qb_split_attr;

typedef struct qb_join_attr {
    int64_t heads, width, shared; /* out: heads x (width + shared) */
} qb_join_attr;

typedef struct qb_rope_attr {
    qb_rope_kind kind;
    int32_t table;                          /* which of the model's tables */
    int64_t heads, head_dim, offset, width; /* `width` elements from `offset` of each head turn */
} qb_rope_attr;

typedef enum {
    QB_ALIBI_NONE,
    QB_ALIBI_PLAIN, /* score + slope (key position - query position) */
    QB_ALIBI_BF16,  /* Falcon: slope, key position and their product rounded to bfloat16, the sum scaled as
                       the product is */
} qb_alibi;

typedef struct qb_attend_attr {
    int64_t heads, kv_heads, head_dim, value_dim; /* value_dim is head_dim but for MLA */
    float scale;
    int64_t window; /* keys i - window < j <= i are visible; 0: all j <= i */
    int64_t chunk;  /* only keys with floor(j / chunk) = floor(i / chunk); 0: no chunks */
    float softcap;  /* of scaled scores: cap tanh(s / cap); 0: none */
    qb_alibi alibi; /* slopes are the step's `vector` [heads] */
} qb_attend_attr;   /* sinks, `vector2` [heads]: a logit that joins each row's softmax and is dropped */

typedef enum { QB_GLU_NONE, QB_GLU_SEPARATE, QB_GLU_HALVES, QB_GLU_INTERLEAVED } qb_glu;
typedef struct qb_activate_attr {
    qb_activation kind;
    qb_glu glu; /* NONE: act(in). SEPARATE: act(in) in2. HALVES: in is gate | up. INTERLEAVED: gate, up, gate,
                   .. */
    float alpha, limit; /* of QB_ACTIVATION_SWIGLU_OSS */
} qb_activate_attr;

typedef enum {
    QB_ROUTER_SOFTMAX,      /* softmax over all experts, the best top_k of it */
    QB_ROUTER_SOFTMAX_TOPK, /* the best top_k logits, softmax over these */
    QB_ROUTER_SIGMOID,      /* sigmoid of each logit */
    QB_ROUTER_SPARSEMIXER   /* Phi-3.5-MoE; two rounds of masked softmax, `jitter` */
} qb_router;
typedef struct qb_route_attr {
    qb_router kind;
    int64_t experts, top_k;
    bool normalise;      /* the kept weights divided by their sum */
    float scale, jitter; /* weights times scale */
    int64_t groups,
        keep_groups; /* group-limited: only the best keep_groups groups by their largest score; 0: none */
} qb_route_attr;

typedef struct qb_temperature_attr {
    float beta, floor_scale, shift;
} qb_temperature_attr;

/* Steps that carry something from token to token keep it in the cache's state, `state` floats of a layer and
   sequence before theirs; a span at position 0 begins with zeros. */
typedef struct qb_conv_attr {
    int64_t width, taps; /* weights [width, taps], the last for the token itself; keeps width x (taps - 1) */
    int64_t state;
} qb_conv_attr;

/* Gated DeltaNet (Yang et al. 2024, arXiv:2412.06464) as Qwen3-Next computes it: q and k of a head divided by
   their lengths, q by sqrt(key_dim); S *= exp(-exp(A_log) softplus(decay + dt_bias)); S += k (sigmoid(beta)
   (v - k S)); out = q S. Each key head serves value_heads / key_heads value heads. Keeps S [value_heads,
   key_dim, value_dim]. */
typedef struct qb_delta_attr {
    int64_t key_heads, value_heads, key_dim, value_dim;
    int64_t state;
} qb_delta_attr;

typedef struct qb_step {
    qb_step_kind kind;
    int8_t in, in2, in3, out, out2, out3; /* slots, or QB_SLOT_NONE */
    int16_t module;                       /* LINEAR: of the list's modules; else -1 */
    int16_t expert;                       /* LINEAR on routed slots: this expert's rows alone; -1: all rows */
    int16_t vector, vector2;              /* of the list's vectors, or -1 */
    union {
        qb_norm_attr norm;
        qb_split_attr split;
        qb_join_attr join;
        qb_rope_attr rope;
        qb_attend_attr attend;
        qb_activate_attr activate;
        qb_route_attr route;
        qb_temperature_attr temperature;
        qb_conv_attr conv;
        qb_delta_attr delta;
        float value;      /* SCALE, CLAMP, SOFTCAP */
        int64_t position; /* POSITION: rows of the table that stand before position 0 */
        bool
            weigh_input; /* GATHER: rows times their weights on the way in; SCATTER: they were, add plainly */
    } u;
} qb_step;

/* QB_ERR_UNSUPPORTED, with the attribute's name, for a step that no backend could compute: a kind, a form or
   a size outside what stands above. Backends ask it first in their check_step. */
qb_status qb_step_check(const qb_step *step) QB_NODISCARD;

/* The factor of a row at `position`. */
float qb_temperature_factor(const qb_temperature_attr *a, int64_t position);

/* Where the rows of a forward pass go. Filled by the ROUTE step; arrays in host memory, owned by whoever made
   them. Routed rows are sorted by expert, within an expert by token. */
typedef struct qb_routing {
    int64_t capacity; /* tokens x top_k that the arrays hold */
    int64_t rows, top_k, experts;
    int64_t *first;               /* [experts + 1]: rows first[e] .. first[e + 1] - 1 are expert e's */
    int32_t *token;               /* [rows] the token of a routed row */
    float *weight;                /* [rows] */
    int32_t *row;                 /* [tokens][top_k] the routed rows of a token, in expert order */
    struct qb_routing_work *work; /* qb_route's own */
} qb_routing;

/* The definition of routing: logits [T, experts] in host memory, `bias` [experts] added for the choice alone
   or NULL. Ties go to the smaller expert. QB_ERR_NUMERIC on NaN or infinity. kernels/route.c */
qb_status qb_route(const qb_route_attr *a, const float *logits, const float *bias, int64_t T,
                   qb_routing *out) QB_NODISCARD;
qb_status qb_routing_create(int64_t tokens, int64_t top_k, int64_t experts, qb_routing *out) QB_NODISCARD;
void qb_routing_free(qb_routing *r); /* takes a cleared one */
