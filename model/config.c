#include "model/config.h"

#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH_MAX = 1 << 20, LAYERS_MAX = 4096, VOCAB_MAX = 1 << 24, POSITIONS_MAX = 1 << 24 };

static qb_status parse_activation(const char *name, const char *where, qb_activation *out) {
    static const struct {
        const char *name;
        qb_activation kind;
    } rows[] = {
        {"silu", QB_ACTIVATION_SILU},           {"swish", QB_ACTIVATION_SILU},
        {"gelu", QB_ACTIVATION_GELU},           {"gelu_new", QB_ACTIVATION_GELU_TANH},
        {"gelu_fast", QB_ACTIVATION_GELU_TANH}, {"gelu_pytorch_tanh", QB_ACTIVATION_GELU_TANH},
        {"relu", QB_ACTIVATION_RELU},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (!strcmp(name, rows[i].name)) {
            *out = rows[i].kind;
            return QB_OK;
        }
    return qb_fail(QB_ERR_UNSUPPORTED, "%s: activation \"%s\" is not known (silu, gelu, gelu_new, relu are)",
                   where, name);
}

static qb_status parse_family(const qb_json *json, const char *where, qb_config *c) {
    const qb_json *list = qb_json_get(json, "architectures");
    const char *name = qb_json_string(qb_json_first(list));
    if (!qb_json_is_array(list) || !name)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: \"architectures\" must be an array with one name, such as [\"LlamaForCausalLM\"]",
                       where);
    c->family = qb_family_find(name);
    if (!c->family) {
        qb_str known = {0};
        for (size_t i = 0; qb_family_at(i); i++)
            qb_str_printf(&known, "%s%s", i ? ", " : "", qb_family_at(i)->architectures);
        qb_status st = qb_fail(QB_ERR_UNSUPPORTED, "%s: architecture \"%s\" is not known (known: %s)", where,
                               name, qb_str_get(&known));
        qb_str_free(&known);
        return st;
    }
    snprintf(c->architecture, sizeof c->architecture, "%s", name);
    return QB_OK;
}

static qb_status parse_shape(const qb_json *json, const char *where, qb_config *c) {
    qb_status st;
    QB_TRY(st, qb_json_int(json, "hidden_size", where, true, 1, WIDTH_MAX, &c->hidden));
    QB_TRY(st, qb_json_int(json, c->family->key_ffn, where, true, 1, WIDTH_MAX, &c->ffn));
    QB_TRY(st, qb_json_int(json, "num_hidden_layers", where, true, 1, LAYERS_MAX, &c->n_layers));
    QB_TRY(st, qb_json_int(json, "num_attention_heads", where, true, 1, WIDTH_MAX, &c->n_heads));
    c->n_kv_heads = c->n_heads;
    QB_TRY(st, qb_json_int(json, "num_key_value_heads", where, false, 1, WIDTH_MAX, &c->n_kv_heads));
    if (c->n_heads % c->n_kv_heads)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: num_attention_heads %lld is not a multiple of num_key_value_heads %lld", where,
                       (long long)c->n_heads, (long long)c->n_kv_heads);
    bool given = !qb_json_is_null(qb_json_get(json, "head_dim"));
    if (!given && c->hidden % c->n_heads)
        return qb_fail(QB_ERR_FORMAT, "%s: hidden_size %lld is not a multiple of num_attention_heads %lld",
                       where, (long long)c->hidden, (long long)c->n_heads);
    c->head_dim = c->hidden / c->n_heads;
    QB_TRY(st, qb_json_int(json, "head_dim", where, false, 1, 4096, &c->head_dim));
    if (c->n_heads * c->head_dim > WIDTH_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s: num_attention_heads %lld times head_dim %lld is beyond %d", where,
                       (long long)c->n_heads, (long long)c->head_dim, WIDTH_MAX);
    QB_TRY(st, qb_json_int(json, "vocab_size", where, true, 1, VOCAB_MAX, &c->vocab));
    c->max_positions = 2048;
    QB_TRY(st,
           qb_json_int(json, "max_position_embeddings", where, false, 1, POSITIONS_MAX, &c->max_positions));
out:
    return st;
}

/* "factors": what each rotary frequency is divided by. */
static qb_status parse_rope_factors(const qb_json *scaling, const char *where, int64_t pairs, qb_config *c) {
    const qb_json *list = qb_json_get(scaling, "factors");
    if (pairs > QB_ROPE_PAIRS_MAX || qb_json_count(list) != pairs)
        return qb_fail(QB_ERR_FORMAT, "%s: rope_scaling needs %lld factors (at most %d), found %lld", where,
                       (long long)pairs, QB_ROPE_PAIRS_MAX, (long long)qb_json_count(list));
    float *out = c->rope_factors;
    for (const qb_json *j = qb_json_first(list); j; j = qb_json_next(j)) {
        double factor = qb_json_number(j);
        if (!(factor >= 1e-6 && factor <= 1e6))
            return qb_fail(QB_ERR_FORMAT, "%s: rope_scaling: factor %g, expected 1e-06 .. 1e+06", where,
                           factor);
        *out++ = (float)factor;
    }
    return QB_OK;
}

/* rope_scaling is {"type" or "rope_type": ..., "factor": ...}; newer files keep it, with rope_theta, in
 * rope_parameters. */
static qb_status parse_rope(const qb_json *json, const char *where, qb_config *c) {
    qb_status st;
    double theta = 10000, fraction = 1, factor = 1, low = 1, high = 4;
    const qb_json *scaling = qb_json_get(json, "rope_parameters");
    if (qb_json_is_null(scaling)) scaling = qb_json_get(json, "rope_scaling");
    if (!qb_json_is_null(scaling) && !qb_json_is_object(scaling))
        return qb_fail(QB_ERR_FORMAT, "%s: \"rope_scaling\" must be an object or null", where);
    QB_TRY(st, qb_json_real(json, "rope_theta", where, false, 1, 1e12, &theta));
    QB_TRY(st, qb_json_real(scaling, "rope_theta", where, false, 1, 1e12, &theta));
    QB_TRY(st, qb_json_real(json, "partial_rotary_factor", where, false, 0, 1, &fraction));
    const char *type = "default";
    QB_TRY(st, qb_json_text(scaling, "type", where, false, &type));
    QB_TRY(st, qb_json_text(scaling, "rope_type", where, false, &type));
    c->rope_original_positions = c->max_positions;
    if (!strcmp(type, "linear") || !strcmp(type, "llama3")) {
        snprintf(c->rope_scaling, sizeof c->rope_scaling, "%s", type);
        QB_TRY(st, qb_json_real(scaling, "factor", where, true, 1e-3, 1e6, &factor));
    } else if (!strcmp(type, "factors")) {
        snprintf(c->rope_scaling, sizeof c->rope_scaling, "%s", type);
        QB_TRY(st, parse_rope_factors(scaling, where, (int64_t)((double)c->head_dim * fraction) / 2, c));
    } else if (strcmp(type, "default") != 0) {
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: rope_scaling of type \"%s\" is not known (linear and llama3 are)", where, type);
    }
    if (!strcmp(type, "llama3")) {
        QB_TRY(st, qb_json_real(scaling, "low_freq_factor", where, true, 1e-6, 1e6, &low));
        QB_TRY(st, qb_json_real(scaling, "high_freq_factor", where, true, 1e-6, 1e6, &high));
        QB_TRY(st, qb_json_int(scaling, "original_max_position_embeddings", where, true, 1, POSITIONS_MAX,
                               &c->rope_original_positions));
        if (high <= low)
            return qb_fail(QB_ERR_FORMAT,
                           "%s: rope_scaling needs high_freq_factor above low_freq_factor, found %g and %g",
                           where, high, low);
    }
    c->rope_theta = (float)theta;
    c->rope_fraction = (float)fraction;
    c->rope_factor = (float)factor;
    c->rope_low_freq = (float)low;
    c->rope_high_freq = (float)high;
    int64_t rot = (int64_t)((double)c->head_dim * fraction);
    if (c->family->position == QB_POSITION_ROPE && (rot < 2 || rot % 2))
        return qb_fail(
            QB_ERR_FORMAT,
            "%s: the rotary part of a head must be an even number of elements, found %lld of head_dim %lld",
            where, (long long)rot, (long long)c->head_dim);
out:
    return st;
}

/* A token id, a list of them (the first counts), or absent. */
static int64_t token_id(const qb_json *json, const char *key, int64_t vocab) {
    const qb_json *j = qb_json_get(json, key);
    if (qb_json_is_array(j)) j = qb_json_first(j);
    double v = qb_json_number(j);
    return v >= 0 && v < (double)vocab && v == floor(v) ? (int64_t)v : -1;
}

qb_status qb_config_parse(const qb_json *json, const char *where, qb_config *out) {
    *out = (qb_config){0};
    qb_status st;
    if (!qb_json_is_object(json)) return qb_fail(QB_ERR_FORMAT, "%s: expected a JSON object", where);
    QB_TRY(st, parse_family(json, where, out));
    QB_TRY(st, parse_shape(json, where, out));
    QB_TRY(st, parse_rope(json, where, out));
    double eps = out->family->norm == QB_NORM_RMS ? 1e-6 : 1e-5;
    QB_TRY(st, qb_json_real(json, out->family->key_norm_eps, where, false, 0, 1, &eps));
    out->norm_eps = (float)eps;
    const char *activation = "silu", *dtype = "float16";
    QB_TRY(st, qb_json_text(json, out->family->key_activation, where, false, &activation));
    QB_TRY(st, parse_activation(activation, where, &out->activation));
    out->attention_bias = out->mlp_bias = out->family->linear_bias;
    QB_TRY(st, qb_json_bool(json, "attention_bias", where, false, &out->attention_bias));
    QB_TRY(st, qb_json_bool(json, "mlp_bias", where, false, &out->mlp_bias));
    out->output_bias = out->attention_bias;
    QB_TRY(st, qb_json_bool(json, "tie_word_embeddings", where, false, &out->tied_head));
    QB_TRY(st, qb_json_text(json, "torch_dtype", where, false, &dtype));
    QB_TRY(st, qb_json_text(json, "dtype", where, false, &dtype));
    if ((st = qb_dtype_parse(dtype, &out->dtype)) != QB_OK) return qb_fail_prefix(st, "%s", where);
    out->bos = token_id(json, "bos_token_id", out->vocab);
    out->eos = token_id(json, "eos_token_id", out->vocab);
out:
    return st;
}

void qb_config_linear_shape(const qb_config *c, qb_linear linear, int64_t *rows, int64_t *cols) {
    int64_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    switch (linear) {
    case QB_LINEAR_Q:
        *rows = q, *cols = c->hidden;
        break;
    case QB_LINEAR_K:
    case QB_LINEAR_V:
        *rows = kv, *cols = c->hidden;
        break;
    case QB_LINEAR_O:
        *rows = c->hidden, *cols = q;
        break;
    case QB_LINEAR_GATE:
    case QB_LINEAR_UP:
        *rows = c->ffn, *cols = c->hidden;
        break;
    case QB_LINEAR_DOWN:
    case QB_LINEAR_COUNT:
        *rows = c->hidden, *cols = c->ffn;
        break;
    }
}

bool qb_config_has_linear(const qb_config *c, qb_linear linear) {
    return linear != QB_LINEAR_GATE || c->family->gated;
}

bool qb_config_linear_has_bias(const qb_config *c, qb_linear linear) {
    switch (linear) {
    case QB_LINEAR_Q:
    case QB_LINEAR_K:
    case QB_LINEAR_V:
        return c->attention_bias;
    case QB_LINEAR_O:
        return c->output_bias;
    default:
        return c->mlp_bias;
    }
}

void qb_config_layer_name(const char *pattern, int64_t layer, const char *suffix, char out[128]) {
    const char *hole = strstr(pattern, "%d");
    if (hole)
        snprintf(out, 128, "%.*s%lld%s%s", (int)(hole - pattern), pattern, (long long)layer, hole + 2,
                 suffix);
    else
        snprintf(out, 128, "%s%s", pattern, suffix);
}

void qb_config_linear_name(const qb_config *c, int64_t layer, qb_linear linear, char out[128]) {
    qb_config_layer_name(c->family->linear[linear], layer, "", out);
}

int64_t qb_config_linear_params(const qb_config *c) {
    int64_t n = 0;
    for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++) {
        int64_t rows, cols;
        qb_config_linear_shape(c, l, &rows, &cols);
        if (qb_config_has_linear(c, l)) n += rows * cols;
    }
    return n * c->n_layers;
}

int64_t qb_config_params(const qb_config *c) {
    int64_t n = qb_config_linear_params(c);
    int64_t norm = c->hidden * (c->family->norm == QB_NORM_LAYER ? 2 : 1);
    n += norm * (2 * c->n_layers + 1) + c->vocab * c->hidden * (c->tied_head ? 1 : 2);
    if (c->family->embed_position) n += (c->max_positions + c->family->position_offset) * c->hidden;
    for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++) {
        int64_t rows, cols;
        qb_config_linear_shape(c, l, &rows, &cols);
        if (qb_config_has_linear(c, l) && qb_config_linear_has_bias(c, l)) n += rows * c->n_layers;
    }
    return n;
}
