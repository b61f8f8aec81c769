/* What a model is, read from config.json through its family's row. */
#pragma once

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "kernels/backend.h"

typedef enum { QB_POSITION_ROPE, QB_POSITION_LEARNED } qb_position_kind;

/* Linears that read the same input share a Hessian. */
typedef enum {
    QB_INPUT_ATTENTION,
    QB_INPUT_OUTPUT,
    QB_INPUT_MLP,
    QB_INPUT_DOWN,
    QB_INPUT_COUNT
} qb_linear_input;
qb_linear_input qb_linear_input_of(qb_linear linear);

/* A family is data over ONE decoder: names of tensors and switches. Adding one is a row in families.def. */
typedef struct qb_family {
    const char *name, *summary;
    const char *architectures; /* '|'-separated config.json architectures */
    qb_norm_kind norm;
    qb_position_kind position;
    qb_rope_kind rope;
    bool gated;              /* gate and up; else up alone feeds the activation */
    bool linear_bias;        /* linears have biases when the config has no key of its own for it */
    int64_t position_offset; /* rows of a learned position table that stand before position 0 */
    /* config.json keys that differ between families */
    const char *key_ffn, *key_activation, *key_norm_eps;
    /* tensor names; %d is the layer. NULL: the family has none. */
    const char *embed, *embed_position, *final_norm, *head;
    const char *norm_attention, *norm_mlp;
    const char *linear[QB_LINEAR_COUNT];
} qb_family;
const qb_family *qb_family_find(const char *architecture);
const qb_family *qb_family_at(size_t index);

enum { QB_ROPE_PAIRS_MAX = 256 }; /* of a head with factors */
typedef struct qb_config {
    const qb_family *family;
    char architecture[48];
    int64_t hidden, ffn, n_layers, n_heads, n_kv_heads, head_dim, vocab, max_positions;
    float norm_eps;
    qb_activation activation;
    bool attention_bias, output_bias, mlp_bias, tied_head;
    float rope_theta, rope_fraction; /* fraction of the head that turns */
    /* rope_scaling: "", "linear", "llama3", "factors" (GGUF: one divisor a frequency) */
    char rope_scaling[16];
    float rope_factor, rope_low_freq, rope_high_freq;
    int64_t rope_original_positions;
    float rope_factors[QB_ROPE_PAIRS_MAX]; /* "factors": [rotary width / 2] */
    qb_dtype dtype;                        /* torch_dtype; F16 when absent */
    int64_t bos, eos;                      /* -1 when absent */
} qb_config;

/* Validates every field (ranges, divisibility, known architecture and activation) before anything is sized by
 * it. */
qb_status qb_config_parse(const qb_json *json, const char *where, qb_config *out) QB_NODISCARD;
/* Rows and columns of a linear: [out, in]. */
void qb_config_linear_shape(const qb_config *c, qb_linear linear, int64_t *rows, int64_t *cols);
bool qb_config_has_linear(const qb_config *c, qb_linear linear); /* ungated families have no gate */
bool qb_config_linear_has_bias(const qb_config *c, qb_linear linear);
/* `pattern` with the layer in place of %d, and a suffix such as ".weight". */
void qb_config_layer_name(const char *pattern, int64_t layer, const char *suffix, char out[128]);
/* "model.layers.3.self_attn.q_proj" */
void qb_config_linear_name(const qb_config *c, int64_t layer, qb_linear linear, char out[128]);
int64_t qb_config_linear_params(const qb_config *c); /* of all blocks' linears */
int64_t qb_config_params(const qb_config *c);        /* embedding counted once when tied */
