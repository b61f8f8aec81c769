/* Rotary positions and windows out of GGUF metadata. What llama.cpp computes from it: its llama-model.cpp and
   llama-context.cpp; what the converter writes: gguf-py's constants.py. */
#include "checkpoint/gguf/gguf_model.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { ROPE_PAIRS_MAX = 2048 };

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
static qb_status add_rope_factors(qb_gguf_builder *b, int64_t pairs, double theta, qb_json *scaling) {
    const qb_gguf_tensor *t = qb_gguf_find_tensor(b->g, "rope_freqs.weight");
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

/* Phi-3's two lists of divisors, for contexts within the original length and beyond. */
static qb_status add_factor_list(qb_gguf_builder *b, const char *name, int64_t pairs, const char *to,
                                 qb_json *scaling) {
    const qb_gguf_tensor *t = qb_gguf_find_tensor(b->g, name);
    if (!t || t->type->dtype != QB_DTYPE_F32 || t->bytes != pairs * 4)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: tensor %s: expected F32 [%" PRId64 "], found %s of %" PRId64 " bytes", b->g->file,
                       name, pairs, t ? t->type->name : "none", t ? t->bytes : 0);
    qb_json *list = qb_json_array();
    for (int64_t i = 0; i < pairs; i++) {
        float factor;
        memcpy(&factor, t->data + i * 4, 4); /* the file need not be aligned */
        qb_json_push_real(list, (double)factor);
    }
    qb_json_put(scaling, to, list);
    return QB_OK;
}

static qb_status add_longrope(qb_gguf_builder *b, int64_t pairs, qb_json *scaling) {
    double attention = 1;
    int64_t original = 0;
    qb_status st;
    if (qb_json_first(scaling))
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: rope_factors_long.weight together with another rope scaling is not supported",
                       b->g->file);
    QB_TRY(st, add_factor_list(b, "rope_factors_short.weight", pairs, "short_factor", scaling));
    QB_TRY(st, add_factor_list(b, "rope_factors_long.weight", pairs, "long_factor", scaling));
    QB_TRY(st, qb_gguf_real(b->g, qb_gguf_key(b, "rope.scaling.attn_factor"), true, 1e-6, 1e6, &attention));
    QB_TRY(st, qb_gguf_int(b->g, qb_gguf_key(b, "rope.scaling.original_context_length"), true, 1, INT32_MAX,
                           &original));
    qb_json_put_text(scaling, "rope_type", "longrope");
    if (b->a->longrope_mscales) {
        qb_json_put_real(scaling, "short_mscale", attention);
        qb_json_put_real(scaling, "long_mscale", attention);
    } else {
        qb_json_put_real(scaling, "attention_factor", attention);
    }
    qb_json_put_int(scaling, "original_max_position_embeddings", original);
out:
    return st;
}

/* DeepSeek: the file holds 0.1 * mscale_all_dim, and llama.cpp has no mscale beside it. Source: llama.cpp's
   conversion/deepseek.py. */
static qb_status add_log_multiplier(qb_gguf_builder *b, qb_json *scaling) {
    double multiplier = 0;
    qb_status st =
        qb_gguf_real(b->g, qb_gguf_key(b, "rope.scaling.yarn_log_multiplier"), false, 0, 1e6, &multiplier);
    if (st != QB_OK || !(multiplier > 0)) return st;
    qb_json_put_real(scaling, "mscale", multiplier * 10);
    qb_json_put_real(scaling, "mscale_all_dim", multiplier * 10);
    return QB_OK;
}

static qb_status add_yarn(qb_gguf_builder *b, qb_json *scaling) {
    double factor = 0, fast = 32, slow = 1;
    int64_t original = 0;
    qb_status st;
    QB_TRY(st, qb_gguf_real(b->g, qb_gguf_key(b, "rope.scaling.factor"), true, 1e-3, 1e6, &factor));
    QB_TRY(st, qb_gguf_int(b->g, qb_gguf_key(b, "rope.scaling.original_context_length"), false, 1, INT32_MAX,
                           &original));
    QB_TRY(st, qb_gguf_real(b->g, qb_gguf_key(b, "rope.scaling.yarn_beta_fast"), false, 1e-6, 1e6, &fast));
    QB_TRY(st, qb_gguf_real(b->g, qb_gguf_key(b, "rope.scaling.yarn_beta_slow"), false, 1e-6, 1e6, &slow));
    qb_json_put_text(scaling, "rope_type", "yarn");
    qb_json_put_real(scaling, "factor", factor);
    qb_json_put_real(scaling, "beta_fast", fast);
    qb_json_put_real(scaling, "beta_slow", slow);
    if (original) qb_json_put_int(scaling, "original_max_position_embeddings", original);
    if (b->a->yarn_untruncated) qb_json_put_bool(scaling, "truncate", false);
    if (b->a->latent) st = add_log_multiplier(b, scaling);
out:
    return st;
}

/* rope.scaling.type "longrope" says no more than that there are the tensors of factors. */
static qb_status add_scaling(qb_gguf_builder *b, qb_json *scaling) {
    const char *type = "none";
    double factor = 1;
    qb_status st;
    QB_TRY(st, qb_gguf_real(b->g, qb_gguf_key(b, "rope.scale_linear"), false, 0, 1e6, &factor));
    QB_TRY(st, qb_gguf_real(b->g, qb_gguf_key(b, "rope.scaling.factor"), false, 0, 1e6, &factor));
    if (factor > 0 && (factor > 1 || factor < 1)) type = "linear"; /* where no key says of which type */
    QB_TRY(st, qb_gguf_text(b->g, qb_gguf_key(b, "rope.scaling.type"), false, &type));
    bool has_lists = qb_gguf_find_tensor(b->g, "rope_factors_long.weight") != NULL;
    if (!strcmp(type, "none") || (!strcmp(type, "longrope") && has_lists)) return QB_OK;
    if (!strcmp(type, "yarn")) return add_yarn(b, scaling);
    if (strcmp(type, "linear") != 0)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: rope_scaling of type \"%.40s\" is not known in GGUF files",
                       b->g->file, type);
    if (!(factor > 0)) return QB_OK; /* how llama.cpp's own files say that there is none */
    qb_json_put_text(scaling, "rope_type", type);
    qb_json_put_real(scaling, "factor", factor);
out:
    return st;
}

/* Of `head` elements `width` turn: the fraction of which the reader's floor is just that. */
static double fraction_of(int64_t width, int64_t head) {
    double fraction = (double)width / (double)head;
    return (int64_t)(fraction * (double)head) == width ? fraction : nextafter(fraction, 1);
}

static qb_status add_width(qb_gguf_builder *b, int64_t head_width, int64_t *width) {
    *width = head_width;
    qb_status st =
        qb_gguf_int(b->g, qb_gguf_key(b, "rope.dimension_count"), false, 2, 2 * ROPE_PAIRS_MAX, width);
    if (st == QB_OK && b->a->partial && *width <= head_width)
        qb_json_put_real(b->out, b->a->partial, fraction_of(*width, head_width));
    else if (st == QB_OK && *width != head_width)
        st = qb_fail(QB_ERR_UNSUPPORTED,
                     "%s: metadata %s is %" PRId64 " of heads of %" PRId64
                     " elements: partly rotated heads are not supported",
                     b->g->file, b->key, *width, head_width);
    return st;
}

/* Two ropes, of full and of sliding layers, in place of rope_scaling; takes `scaling`. */
static void put_ropes(qb_gguf_builder *b, double theta, double sliding_theta, qb_json *scaling) {
    qb_json *both = qb_json_object(), *sliding = qb_json_object();
    if (!qb_json_first(scaling)) qb_json_put_text(scaling, "rope_type", "default");
    qb_json_put_real(scaling, "rope_theta", theta);
    qb_json_put_text(sliding, "rope_type", "default");
    qb_json_put_real(sliding, "rope_theta", sliding_theta);
    qb_json_put(both, "full_attention", scaling);
    qb_json_put(both, "sliding_attention", sliding);
    qb_json_put(b->out, "rope_parameters", both);
}

qb_status qb_gguf_add_rope(qb_gguf_builder *b, int64_t head_width) {
    double theta = 10000, sliding_theta = 0;
    int64_t width;
    qb_json *scaling = qb_json_object();
    qb_status st;
    QB_TRY(st, qb_gguf_real(b->g, qb_gguf_key(b, "rope.freq_base"), false, 1, 1e12, &theta));
    qb_json_put_real(b->out, "rope_theta", theta);
    QB_TRY(st, add_width(b, head_width, &width));
    QB_TRY(st, add_scaling(b, scaling));
    QB_TRY(st, add_rope_factors(b, width / 2, theta, scaling));
    if (qb_gguf_find_tensor(b->g, "rope_factors_long.weight"))
        QB_TRY(st, add_longrope(b, width / 2, scaling));
    if (b->a->rope_by_kind)
        QB_TRY(st, qb_gguf_real(b->g, qb_gguf_key(b, "rope.freq_base_swa"), false, 1, 1e12, &sliding_theta));
    if (sliding_theta > 0 && (sliding_theta < theta || sliding_theta > theta)) {
        put_ropes(b, theta, sliding_theta, scaling);
        scaling = NULL;
        goto out;
    }
    if (!qb_json_first(scaling) && b->a->rope_stated) qb_json_put_text(scaling, "rope_type", "default");
    if (qb_json_first(scaling)) {
        qb_json_put(b->out, "rope_scaling", scaling);
        scaling = NULL;
    }
out:
    qb_json_free(scaling);
    return st;
}

/* ---- windows ---- */

/* A number: every so many-th layer is full; a list: whether each slides. */
static qb_status add_pattern(qb_gguf_builder *b, bool full) {
    const char *key = qb_gguf_key(b, "attention.sliding_window_pattern");
    const qb_gguf_value *v = qb_gguf_find(b->g, key);
    int64_t layers = (int64_t)qb_json_number(qb_json_get(b->out, "num_hidden_layers")), every = 0;
    if (!v && !full) return QB_OK;
    bool list = v && v->is_array && v->kind == QB_GGUF_BOOL;
    if (list && v->count < layers)
        return qb_fail(QB_ERR_FORMAT, "%s: metadata %s lists %" PRId64 " of %" PRId64 " layers", b->g->file,
                       key, v->count, layers);
    if (!list && !full) {
        qb_status st = qb_gguf_int(b->g, key, true, 1, layers, &every);
        if (st != QB_OK) return st;
    }
    qb_json *types = qb_json_array();
    for (int64_t l = 0; l < layers; l++) {
        bool slides = full ? false : list ? v->bytes[l] != 0 : (l + 1) % every != 0;
        qb_json_push_text(types, slides ? "sliding_attention" : "full_attention");
    }
    qb_json_put(b->out, "layer_types", types);
    return QB_OK;
}

qb_status qb_gguf_add_window(qb_gguf_builder *b) {
    int64_t window = -1;
    if (b->a->window == QB_GGUF_WINDOW_UNREAD) return QB_OK;
    qb_status st = qb_gguf_int(b->g, qb_gguf_key(b, "attention.sliding_window"),
                               b->a->window == QB_GGUF_WINDOW_REQUIRED, 0, INT32_MAX, &window);
    if (st != QB_OK) return st;
    if (window > 0)
        qb_json_put_int(b->out, "sliding_window", window);
    else if (window == 0 || b->a->window == QB_GGUF_WINDOW_NONE || b->a->window == QB_GGUF_WINDOW_LISTED)
        qb_json_put_null(b->out, "sliding_window");
    return add_pattern(b, window <= 0 && b->a->window == QB_GGUF_WINDOW_LISTED);
}
