/* What a model is, read from config.json through its family's row. */
#pragma once

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "kernels/backend.h"
#include "model/keys.h"

typedef struct qb_config qb_config;
struct qb_builder;

/* A family: how its config is read and what its lists of steps are. A new one is a file in model/families/
   and a row in families.def. */
typedef struct qb_family {
    const char *name, *summary;
    const char *architectures; /* '|'-separated config.json architectures; the text model's own class first */
    const char *model_types;   /* '|'-separated model_type, for configs without architectures */
    bool tied;                 /* tie_word_embeddings where the config does not say */
    /* What its class takes where the config does not say; 0: the config must, or as for all. */
    int64_t n_heads, n_kv_heads, head_dim, vocab, max_positions, original_positions;
    bool yarn_is_longrope; /* rope of type yarn means longrope */
    /* Reads what the common keys (config.c) do not say. Fails through k->st. */
    void (*configure)(qb_keys *k, qb_config *c);
    void (*enter)(struct qb_builder *b, const qb_config *c);
    void (*block)(struct qb_builder *b, const qb_config *c, int64_t layer);
    void (*leave)(struct qb_builder *b, const qb_config *c);
} qb_family;
const qb_family *qb_family_find(const char *architecture);
const qb_family *qb_family_of_type(const char *model_type);
const qb_family *qb_family_at(size_t index);

typedef enum {
    QB_ROPE_DEFAULT,
    QB_ROPE_LINEAR,
    QB_ROPE_DYNAMIC,
    QB_ROPE_LLAMA3,
    QB_ROPE_YARN,
    QB_ROPE_LONGROPE,
    QB_ROPE_FACTORS /* GGUF: one divisor a frequency */
} qb_rope_scaling;

enum { QB_ROPE_PAIRS_MAX = 256, QB_ROPES_MAX = 2, QB_LAYERS_MAX = 4096, QB_EOS_MAX = 8 };
typedef struct qb_rope_spec {
    qb_rope_scaling scaling;
    double theta;
    int64_t width; /* elements of a head that turn; 0: none */
    double factor, low_freq, high_freq, beta_fast, beta_slow;
    double attention_factor; /* cos and sin times this; 0: as the scaling says */
    double mscale, mscale_all_dim;
    double short_mscale, long_mscale; /* Phi-3.5-MoE: instead of longrope's own factor; 0: that */
    bool truncate;
    int64_t original_positions, max_positions;
    float factors[QB_ROPE_PAIRS_MAX],
        long_factors[QB_ROPE_PAIRS_MAX]; /* FACTORS; LONGROPE's short and long */
} qb_rope_spec;

/* What a layer is, bits: families with several kinds of layers set them. */
enum { QB_LAYER_SLIDING = 1, QB_LAYER_NO_ROPE = 2, QB_LAYER_SPARSE = 4, QB_LAYER_LINEAR = 8 };

/* How the experts lie that a class stacks in one tensor (qb_stack_of in model/topology.h). */
typedef enum {
    QB_EXPERTS_STACKED,
    QB_EXPERTS_APART, /* an expert's linear is a module */
    QB_EXPERTS_PARTED /* so are the halves of its rows */
} qb_experts_form;

struct qb_config {
    const qb_family *family;
    char architecture[64];
    int64_t hidden, ffn, n_layers, n_heads, n_kv_heads, head_dim, vocab, max_positions;
    int64_t embed_width; /* of the embedding table; hidden for all but OPT-350m */
    float norm_eps;
    qb_activation activation;
    bool attention_bias, output_bias, mlp_bias, head_bias, tied_head;
    qb_rope_spec
        ropes[QB_ROPES_MAX]; /* 0: of all layers, or of full ones; 1: of sliding ones where they differ */
    int64_t n_ropes;
    uint8_t layers[QB_LAYERS_MAX]; /* QB_LAYER_* */
    int64_t window;                /* of sliding layers; 0: none */
    int64_t chunk;
    float attention_scale;                            /* 0: 1 / sqrt(head_dim) */
    float attention_softcap, logit_softcap, clip_qkv; /* 0: none */
    float embed_scale, residual_scale, logit_scale;   /* 1: none */
    float norm_add;                                   /* 1 where norms multiply by 1 + w */
    qb_temperature_attr temperature;                  /* of queries; beta 0: none */
    bool qk_norm, parallel, gated, rope_interleaved;
    qb_alibi alibi;
    float alibi_max;      /* of the slopes 2^(-alibi_max i / heads): 8 but for some of MPT */
    int64_t fused_groups; /* of a fused qkv: 1 contiguous, else interleaved by so many heads or groups */
    /* mixtures of experts */
    int64_t n_experts, top_k, expert_ffn, shared_ffn;
    qb_experts_form experts_form; /* of experts that the class stacks in one tensor */
    qb_route_attr route;
    float swiglu_alpha, swiglu_limit; /* of QB_ACTIVATION_SWIGLU_OSS */
    int64_t variant;                  /* a family's own forms, an enum of its file */
    int64_t extra[8];                 /* numbers of one family alone, named in its file */
    qb_dtype dtype;                   /* torch_dtype; F16 when absent */
    bool dtype_stated;
    int64_t bos, eos; /* -1 when absent; eos: the first of several */
    int64_t eos_all[QB_EOS_MAX], n_eos;
};

/* Validates every field (ranges, divisibility, known architecture and activation) before anything is sized by
   it, and refuses keys that change the computation and that the family does not read. */
qb_status qb_config_parse(const qb_json *json, const char *where, qb_config *out) QB_NODISCARD;

/* For families. The activation of a name; rope_parameters, rope_scaling and the old keys with transformers'
   precedence, disagreements warned of: fills ropes[index] (layer_type: of nested parameters, or NULL) for
   heads of head_dim elements of which `fraction` turn. */
void qb_config_activation(qb_keys *k, const char *name, qb_activation *out);
void qb_config_rope(qb_keys *k, qb_config *c, int index, const char *layer_type, double theta,
                    double fraction);
/* `window`, which is the class's default, becomes sliding_window: 0 for null. */
void qb_config_window(qb_keys *k, int64_t *window);
/* layer_types, or the pattern of every `every`-th layer full (0: no pattern): layers of the type `other` get
   the bit `kind`; any type but this and full_attention is refused. The second is for sliding_attention. */
void qb_config_layer_types_of(qb_keys *k, qb_config *c, const char *other, uint8_t kind, int64_t every);
void qb_config_layer_types(qb_keys *k, qb_config *c, int64_t every);
