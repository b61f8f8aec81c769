/* config.json from GGUF metadata. Keys: ggml's docs/gguf.md and gguf-py's constants.py. */
#include "checkpoint/gguf/gguf_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SIZE_MAX_ALLOWED = 1 << 24, LAYERS_MAX = 4096, ROPE_PAIRS_MAX = 2048 };

typedef struct {
    const qb_gguf *g;
    const char *prefix; /* the architecture's name heads its keys */
    char key[128];
    qb_json *out;
} builder;

static const char *key(builder *b, const char *below) {
    snprintf(b->key, sizeof b->key, "%s.%s", b->prefix, below);
    return b->key;
}

/* A whole number under its new name; absent optional ones stay absent. -1 then. */
static qb_status copy_int(builder *b, const char *below, const char *name, bool required, int64_t max,
                          int64_t *value) {
    *value = -1;
    qb_status st = qb_gguf_int(b->g, key(b, below), required, 1, max, value);
    if (st == QB_OK && *value > 0 && name) qb_json_put_int(b->out, name, *value);
    return st;
}

static qb_status copy_reals(builder *b, const qb_gguf_architecture *a) {
    for (int i = 0; i < QB_GGUF_NAMES_MAX && a->reals[i].from; i++) {
        double value = NAN;
        qb_status st =
            qb_gguf_real(b->g, key(b, a->reals[i].from), a->reals[i].required, -1e30, 1e30, &value);
        if (st != QB_OK) return st;
        if (!isnan(value)) qb_json_put_real(b->out, a->reals[i].to, value);
    }
    return QB_OK;
}

static bool is_copied(const qb_gguf_architecture *a, const char *name) {
    for (int i = 0; i < QB_GGUF_NAMES_MAX && a->reals[i].from; i++)
        if (!strcmp(a->reals[i].from, name)) return true;
    return false;
}

/* What changes the computation and is not computed here. */
static qb_status refuse_others(builder *b, const qb_gguf_architecture *a) {
    static const struct {
        const char *key, *what;
        double usual;
    } rows[] = {
        {"expert_count", "mixture of experts", 0},
        {"attention.clamp_kqv", "clamped queries, keys and values", 0},
        {"attention.max_alibi_bias", "ALiBi", 0},
        {"attention.scale", "an attention scale of its own", 0},
        {"rope.scaling.attn_factor", "an attention factor of rope scaling", 1},
        {"attention.sliding_window", "sliding-window attention", 0},
        {"attn_logit_softcapping", "soft-capped attention scores", 0},
        {"final_logit_softcapping", "soft-capped logits", 0},
        {"logit_scale", "scaled logits", 1},
        {"embedding_scale", "scaled embeddings", 1},
        {"residual_scale", "scaled residuals", 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double value = rows[i].usual;
        if (is_copied(a, rows[i].key)) continue;
        qb_status st = qb_gguf_real(b->g, key(b, rows[i].key), false, -1e30, 1e30, &value);
        if (st != QB_OK) return st;
        if (value < rows[i].usual || value > rows[i].usual)
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: metadata %s is %g: %s is not supported", b->g->file,
                           b->key, value, rows[i].what);
    }
    return QB_OK;
}

static const qb_gguf_tensor *find_tensor(const qb_gguf *g, const char *name) {
    for (size_t i = 0; i < g->n_tensors; i++)
        if (!strcmp(g->tensors[i].name, name)) return &g->tensors[i];
    return NULL;
}

static qb_status add_sizes(builder *b, int64_t *heads, int64_t *head_width) {
    int64_t hidden, value, kv, length;
    qb_status st;
    QB_TRY(st, copy_int(b, "embedding_length", "hidden_size", true, SIZE_MAX_ALLOWED, &hidden));
    QB_TRY(st, copy_int(b, "feed_forward_length", "intermediate_size", true, SIZE_MAX_ALLOWED, &value));
    QB_TRY(st, copy_int(b, "block_count", "num_hidden_layers", true, LAYERS_MAX, &value));
    QB_TRY(st, copy_int(b, "attention.head_count", "num_attention_heads", true, SIZE_MAX_ALLOWED, heads));
    QB_TRY(st, copy_int(b, "attention.head_count_kv", "num_key_value_heads", false, SIZE_MAX_ALLOWED, &kv));
    QB_TRY(st, copy_int(b, "context_length", "max_position_embeddings", true, SIZE_MAX_ALLOWED, &value));
    QB_TRY(st, copy_int(b, "attention.key_length", "head_dim", false, SIZE_MAX_ALLOWED, head_width));
    QB_TRY(st, copy_int(b, "attention.value_length", NULL, false, SIZE_MAX_ALLOWED, &length));
    if (*head_width < 0) *head_width = hidden / *heads;
    if (*head_width < 2 || *head_width % 2)
        return qb_fail(QB_ERR_FORMAT, "%s: heads of %" PRId64 " elements; expected an even number",
                       b->g->file, *head_width);
    if (length > 0 && length != *head_width)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: metadata %s is %" PRId64 ", but keys have %" PRId64
                       " elements: different sizes are not supported",
                       b->g->file, b->key, length, *head_width);
    const qb_gguf_tensor *embed = find_tensor(b->g, "token_embd.weight");
    if (!embed || embed->n_dims != 2)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor token_embd.weight is missing or no matrix", b->g->file);
    qb_json_put_int(b->out, "vocab_size", embed->shape[0]);
out:
    return st;
}

/* What Llama 3.1's converter wrote for a scaling by `factor`: transformers' rope_type llama3 with its usual
   other numbers. */
static bool is_llama3(const float *factors, int64_t pairs, double theta, double factor) {
    const double pi = 3.14159265358979323846, low = 1, high = 4, original = 8192;
    for (int64_t i = 0; i < pairs; i++) {
        double wavelength = 2 * pi * pow(theta, (double)i / (double)pairs), expected = factor;
        if (wavelength < original / high) {
            expected = 1;
        } else if (wavelength <= original / low) {
            double smooth = (original / wavelength - low) / (high - low);
            expected = 1 / ((1 - smooth) / factor + smooth);
        }
        if (!(fabs((double)factors[i] - expected) <= 1e-4 * expected)) return false;
    }
    return factor > 1;
}

static void put_factors(const float *factors, int64_t pairs, double theta, qb_json *scaling) {
    double factor = (double)factors[pairs - 1];
    if (is_llama3(factors, pairs, theta, factor)) { /* in words that other programs know */
        qb_json_put_text(scaling, "rope_type", "llama3");
        qb_json_put_real(scaling, "factor", factor);
        qb_json_put_real(scaling, "low_freq_factor", 1);
        qb_json_put_real(scaling, "high_freq_factor", 4);
        qb_json_put_int(scaling, "original_max_position_embeddings", 8192);
        return;
    }
    qb_json *list = qb_json_array();
    for (int64_t i = 0; i < pairs; i++)
        qb_json_push_real(list, (double)factors[i]); /* checked by the reader */
    qb_json_put_text(scaling, "rope_type", "factors");
    qb_json_put(scaling, "factors", list);
}

/* Llama 3.1's scaling lies in a tensor: one divisor for each rotary frequency. */
static qb_status add_rope_factors(builder *b, int64_t pairs, double theta, qb_json *scaling) {
    const qb_gguf_tensor *t = find_tensor(b->g, "rope_freqs.weight");
    float *factors;
    if (!t) return QB_OK;
    if (t->type->dtype != QB_DTYPE_F32 || t->bytes != pairs * 4)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: tensor %s: expected F32 [%" PRId64 "], found %s of %" PRId64 " bytes", b->g->file,
                       t->name, pairs, t->type->name, t->bytes);
    if (qb_json_first(scaling))
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: %s together with another rope scaling is not supported",
                       b->g->file, t->name);
    qb_status st = qb_alloc((size_t)pairs, sizeof *factors, &factors);
    if (st != QB_OK) return st;
    memcpy(factors, t->data, (size_t)t->bytes); /* the file need not be aligned */
    put_factors(factors, pairs, theta, scaling);
    qb_free(factors);
    return QB_OK;
}

static qb_status add_rope(builder *b, int64_t head_width) {
    double theta = 10000, factor = 1;
    int64_t width = head_width;
    const char *type = "none";
    qb_json *scaling = qb_json_object();
    qb_status st;
    QB_TRY(st, qb_gguf_real(b->g, key(b, "rope.freq_base"), false, 1, 1e12, &theta));
    qb_json_put_real(b->out, "rope_theta", theta);
    QB_TRY(st, qb_gguf_int(b->g, key(b, "rope.dimension_count"), false, 2, 2 * ROPE_PAIRS_MAX, &width));
    if (width != head_width) {
        st = qb_fail(QB_ERR_UNSUPPORTED,
                     "%s: metadata %s is %" PRId64 " of heads of %" PRId64
                     " elements: partly rotated heads are not supported",
                     b->g->file, b->key, width, head_width);
        goto out;
    }
    QB_TRY(st, qb_gguf_real(b->g, key(b, "rope.scale_linear"), false, 1e-3, 1e6, &factor));
    if (factor > 1 || factor < 1) type = "linear";
    QB_TRY(st, qb_gguf_text(b->g, key(b, "rope.scaling.type"), false, &type));
    QB_TRY(st, qb_gguf_real(b->g, key(b, "rope.scaling.factor"), false, 0, 1e6, &factor));
    if (strcmp(type, "none") != 0) {
        if (strcmp(type, "linear") != 0)
            QB_TRY(st, qb_fail(QB_ERR_UNSUPPORTED,
                               "%s: rope_scaling of type \"%.40s\" is not known in GGUF files", b->g->file,
                               type));
        qb_json_put_text(scaling, "rope_type", type);
        qb_json_put_real(scaling, "factor", factor);
    }
    QB_TRY(st, add_rope_factors(b, head_width / 2, theta, scaling));
    if (qb_json_first(scaling)) {
        qb_json_put(b->out, "rope_scaling", scaling);
        scaling = NULL;
    }
out:
    qb_json_free(scaling);
    return st;
}

static qb_status add_token(builder *b, const char *from, const char *to) {
    int64_t id = -1;
    qb_status st = qb_gguf_int(b->g, from, false, -1, UINT32_MAX, &id);
    if (st == QB_OK && id >= 0) qb_json_put_int(b->out, to, id);
    return st;
}

static qb_status check_type(const qb_gguf *g) {
    const char *type = "model";
    qb_status st = qb_gguf_text(g, "general.type", false, &type);
    if (st == QB_OK && strcmp(type, "model") != 0)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: holds a file of type \"%.40s\", not a model", g->file, type);
    return st;
}

qb_status qb_gguf_config(const qb_gguf *g, const qb_gguf_architecture *a, qb_json **out) {
    builder b = {.g = g, .prefix = a->name, .out = qb_json_object()};
    qb_json *names = qb_json_array();
    int64_t heads, head_width;
    double eps = 0;
    qb_status st;
    *out = NULL;
    QB_TRY(st, check_type(g));
    QB_TRY(st, refuse_others(&b, a));
    qb_json_push_text(names, a->family);
    qb_json_put(b.out, "architectures", names);
    names = NULL;
    QB_TRY(st, add_sizes(&b, &heads, &head_width));
    QB_TRY(st, add_rope(&b, head_width));
    QB_TRY(st, qb_gguf_real(g, key(&b, "attention.layer_norm_rms_epsilon"), true, 0, 1, &eps));
    qb_json_put_real(b.out, "rms_norm_eps", eps);
    qb_json_put_text(b.out, "hidden_act", a->activation ? a->activation : "silu");
    QB_TRY(st, copy_reals(&b, a));
    if (!a->fixed_attention_bias)
        qb_json_put_bool(b.out, "attention_bias", find_tensor(g, "blk.0.attn_q.bias") != NULL);
    qb_json_put_bool(b.out, "mlp_bias", find_tensor(g, "blk.0.ffn_up.bias") != NULL);
    qb_json_put_bool(b.out, "tie_word_embeddings", find_tensor(g, "output.weight") == NULL);
    QB_TRY(st, add_token(&b, "tokenizer.ggml.bos_token_id", "bos_token_id"));
    QB_TRY(st, add_token(&b, "tokenizer.ggml.eos_token_id", "eos_token_id"));
    *out = b.out;
    b.out = NULL;
out:
    qb_json_free(names);
    qb_json_free(b.out);
    return st;
}
