#include "model/config.h"

#include "base/log.h"
#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH_MAX = 1 << 20, VOCAB_MAX = 1 << 24, POSITIONS_MAX = 1 << 24 };

void qb_config_activation(qb_keys *k, const char *name, qb_activation *out) {
    static const struct {
        const char *name;
        qb_activation kind;
    } rows[] = {
        {"silu", QB_ACTIVATION_SILU},
        {"swish", QB_ACTIVATION_SILU},
        {"gelu", QB_ACTIVATION_GELU},
        {"gelu_new", QB_ACTIVATION_GELU_TANH},
        {"gelu_fast", QB_ACTIVATION_GELU_TANH},
        {"gelu_accurate", QB_ACTIVATION_GELU_TANH},
        {"gelu_pytorch_tanh", QB_ACTIVATION_GELU_TANH},
        {"quick_gelu", QB_ACTIVATION_QUICK_GELU},
        {"relu", QB_ACTIVATION_RELU},
        {"relu2", QB_ACTIVATION_RELU2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (!strcmp(name, rows[i].name)) {
            *out = rows[i].kind;
            return;
        }
    qb_keys_fail(
        k, QB_ERR_UNSUPPORTED,
        "activation \"%.40s\" is not known (silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu, "
        "relu2 are)",
        name);
}

static void known_families(qb_str *out) {
    for (size_t i = 0; qb_family_at(i); i++) qb_str_printf(out, "%s%s", i ? ", " : "", qb_family_at(i)->name);
}

/* By `architectures`, or by `model_type` where there are none. A known wrapper's text part may be of one of
   several families: its own model_type says. */
static qb_status parse_family(const qb_json *json, const char *where, qb_config *c) {
    const qb_json *list = qb_json_get(json, "architectures");
    const char *name = qb_json_string(qb_json_first(list));
    const char *type = qb_json_string(qb_json_get(json, "model_type"));
    if (!qb_json_is_null(list) && (!qb_json_is_array(list) || (qb_json_first(list) && !name)))
        return qb_fail(QB_ERR_FORMAT,
                       "%s: \"architectures\" must be an array with one name, such as [\"LlamaForCausalLM\"]",
                       where);
    if (!name && !type)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: neither \"architectures\" nor \"model_type\" says what the model is", where);
    c->family = name ? qb_family_find(name) : qb_family_of_type(type);
    snprintf(c->architecture, sizeof c->architecture, "%s", name ? name : type);
    const char *inner = qb_json_string(qb_json_get(qb_json_get(json, "text_config"), "model_type"));
    const qb_family *of_text = c->family && inner ? qb_family_of_type(inner) : NULL;
    if (of_text) c->family = of_text;
    if (c->family) return QB_OK;
    qb_str known = {0};
    known_families(&known);
    qb_status st =
        qb_fail(QB_ERR_UNSUPPORTED,
                "%s: %s \"%.80s\" is not known (known families: %s); `bench inspect` shows what the "
                "files hold",
                where, name ? "architecture" : "model_type", name ? name : type, qb_str_get(&known));
    qb_str_free(&known);
    return st;
}

/* The keys that every family has, in the spellings that occur. */
static void parse_shape(qb_keys *k, qb_config *c) {
    qb_key_int(k, "hidden_size|n_embd|n_embed|d_model", true, 1, WIDTH_MAX, &c->hidden);
    qb_key_int(k, "num_hidden_layers|n_layer|num_layers|n_layers", true, 1, QB_LAYERS_MAX, &c->n_layers);
    c->n_heads = c->family->n_heads;
    qb_key_int(k, "num_attention_heads|n_head|num_heads|n_heads|attention_heads", !c->n_heads, 1, WIDTH_MAX,
               &c->n_heads);
    bool by_class = c->family->n_kv_heads && !qb_json_get(k->json, "num_key_value_heads");
    c->n_kv_heads = by_class ? c->family->n_kv_heads : c->n_heads;
    qb_key_int(k, "num_key_value_heads|num_kv_heads|n_head_kv", false, 1, WIDTH_MAX, &c->n_kv_heads);
    c->vocab = c->family->vocab;
    qb_key_int(k, "vocab_size", !c->vocab, 1, VOCAB_MAX, &c->vocab);
    c->max_positions = c->family->max_positions ? c->family->max_positions : 2048;
    qb_key_int(k, "max_position_embeddings|n_positions|max_seq_len|n_ctx|seq_length", false, 1, POSITIONS_MAX,
               &c->max_positions);
    c->embed_width = c->hidden;
    if (k->st == QB_OK) c->head_dim = c->hidden / c->n_heads;
    if (c->family->head_dim && !qb_json_get(k->json, "head_dim")) c->head_dim = c->family->head_dim;
    qb_key_int(k, "head_dim", false, 1, 4096, &c->head_dim);
}

static void check_shape(qb_keys *k, const qb_config *c) {
    if (k->st != QB_OK) return;
    if (c->n_heads % c->n_kv_heads)
        qb_keys_fail(k, QB_ERR_FORMAT,
                     "num_attention_heads %lld is not a multiple of num_key_value_heads %lld",
                     (long long)c->n_heads, (long long)c->n_kv_heads);
    else if (qb_json_is_null(qb_json_get(k->json, "head_dim")) && c->head_dim == c->hidden / c->n_heads &&
             c->hidden % c->n_heads)
        qb_keys_fail(k, QB_ERR_FORMAT, "hidden_size %lld is not a multiple of num_attention_heads %lld",
                     (long long)c->hidden, (long long)c->n_heads);
    else if (c->n_heads * c->head_dim > WIDTH_MAX)
        qb_keys_fail(k, QB_ERR_FORMAT, "num_attention_heads %lld times head_dim %lld is beyond %d",
                     (long long)c->n_heads, (long long)c->head_dim, WIDTH_MAX);
    else if (c->ffn < 1 || c->ffn > WIDTH_MAX)
        qb_keys_fail(k, QB_ERR_FORMAT, "the width of the MLP is %lld, expected 1 .. %d", (long long)c->ffn,
                     WIDTH_MAX);
}

/* A token id, a list of them, or absent. Ids outside the vocabulary are passed over. */
static int64_t token_ids(const qb_json *j, int64_t vocab, int64_t out[QB_EOS_MAX]) {
    int64_t n = 0;
    bool list = qb_json_is_array(j);
    for (const qb_json *e = list ? qb_json_first(j) : j; e && n < QB_EOS_MAX;
         e = list ? qb_json_next(e) : NULL) {
        double v = qb_json_number(e);
        if (v >= 0 && v < (double)vocab && v == floor(v)) out[n++] = (int64_t)v;
    }
    return n;
}

/* A wrapper may have them beside its text part. */
static const qb_json *token_key(qb_keys *k, const qb_json *outer, const char *name) {
    const qb_json *own = qb_key_any(k, name);
    return own ? own : qb_json_get(outer, name);
}

static void parse_tokens(qb_keys *k, const qb_json *outer, qb_config *c) {
    int64_t bos[QB_EOS_MAX];
    c->bos = c->eos = -1;
    if (token_ids(token_key(k, outer, "bos_token_id"), c->vocab, bos) > 0) c->bos = bos[0];
    c->n_eos = token_ids(token_key(k, outer, "eos_token_id"), c->vocab, c->eos_all);
    if (c->n_eos > 0) c->eos = c->eos_all[0];
}

void qb_config_window(qb_keys *k, int64_t *window) {
    if (qb_json_get(k->json, "sliding_window") && !qb_key_any(k, "sliding_window")) *window = 0;
    qb_key_int(k, "sliding_window", false, 1, POSITIONS_MAX, window);
}

void qb_config_layer_types_of(qb_keys *k, qb_config *c, const char *other, uint8_t kind, int64_t every) {
    const qb_json *list = qb_key_any(k, "layer_types");
    if (!list) {
        for (int64_t l = 0; l < c->n_layers && every > 0; l++)
            if ((l + 1) % every) c->layers[l] |= kind;
        return;
    }
    if (k->st != QB_OK) return;
    if (!qb_json_is_array(list) || qb_json_count(list) != c->n_layers) {
        qb_keys_fail(k, QB_ERR_FORMAT, "layer_types must list %lld layers, found %lld",
                     (long long)c->n_layers, (long long)qb_json_count(list));
        return;
    }
    int64_t l = 0;
    for (const qb_json *e = qb_json_first(list); e; e = qb_json_next(e), l++) {
        const char *type = qb_json_string(e);
        if (type && !strcmp(type, other)) {
            c->layers[l] |= kind;
        } else if (!type || strcmp(type, "full_attention") != 0) {
            qb_keys_fail(
                k, QB_ERR_UNSUPPORTED,
                "layer_types: layer %lld is \"%.60s\"; the layers of the family %s are full_attention "
                "and %s here",
                (long long)l, type ? type : "no text", c->family->name, other);
            return;
        }
    }
}

void qb_config_layer_types(qb_keys *k, qb_config *c, int64_t every) {
    qb_config_layer_types_of(k, c, "sliding_attention", QB_LAYER_SLIDING, every);
}

/* The text part of a multimodal wrapper. */
static const qb_json *text_part(const qb_json *json) {
    const qb_json *text = qb_json_get(json, "text_config");
    return qb_json_is_object(text) ? text : NULL;
}

qb_status qb_config_parse(const qb_json *json, const char *where, qb_config *out) {
    qb_config *c = out;
    *c = (qb_config){.embed_scale = 1,
                     .residual_scale = 1,
                     .logit_scale = 1,
                     .fused_groups = 1,
                     .n_ropes = 1,
                     .alibi_max = 8};
    if (!qb_json_is_object(json)) return qb_fail(QB_ERR_FORMAT, "%s: expected a JSON object", where);
    qb_status st = parse_family(json, where, c);
    if (st != QB_OK) return st;
    const qb_json *text = text_part(json);
    qb_keys keys = {.json = text ? text : json, .where = where}, *k = &keys;
    qb_keys outer = {.json = json, .where = where};
    const char *dtype = NULL;
    qb_keys_mark(text ? &outer : k, "quantization_config"); /* checkpoint/quantization.c reads it */
    parse_shape(k, c);
    if (k->st != QB_OK) return k->st;
    c->tied_head = c->family->tied;
    qb_key_bool(k, "tie_word_embeddings", &c->tied_head);
    if (text) qb_key_bool(&outer, "tie_word_embeddings", &c->tied_head); /* the wrapper's counts */
    qb_key_text(&outer, "dtype|torch_dtype", false, &dtype);
    qb_key_text(k, "dtype|torch_dtype", false, &dtype);
    if (outer.st != QB_OK) return outer.st;
    c->dtype_stated = dtype != NULL;
    if (!dtype) dtype = "float16";
    if (k->st == QB_OK && (k->st = qb_dtype_parse(dtype, &c->dtype)) != QB_OK)
        return qb_fail_prefix(k->st, "%s", where);
    parse_tokens(k, json, c);
    c->family->configure(k, c);
    check_shape(k, c);
    if (k->st == QB_OK) k->st = qb_keys_account(k);
    if (k->st == QB_OK && text) qb_keys_account_wrapper(&outer, text);
    return k->st;
}
