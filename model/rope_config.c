/* Rotary positions out of config.json: two dictionaries, nested or not, and the old top-level keys, resolved
   as transformers does it (modeling_rope_utils: rope_scaling before rope_parameters, what stands inside
   before what stands on top, but for the original positions, whose top-level spelling wins). */
#include "model/config.h"

#include "base/log.h"

#include <string.h>

enum { POSITIONS_MAX = 1 << 28 };

static const struct {
    const char *name;
    qb_rope_scaling kind;
} kinds[] = {
    {"default", QB_ROPE_DEFAULT}, {"linear", QB_ROPE_LINEAR},   {"dynamic", QB_ROPE_DYNAMIC},
    {"llama3", QB_ROPE_LLAMA3},   {"yarn", QB_ROPE_YARN},       {"longrope", QB_ROPE_LONGROPE},
    {"su", QB_ROPE_LONGROPE},     {"factors", QB_ROPE_FACTORS},
};

/* The dictionary that counts; NULL when there is none. */
static const qb_json *parameters(qb_keys *k, const char *layer_type) {
    const qb_json *scaling = qb_key_any(k, "rope_scaling"), *newer = qb_key_any(k, "rope_parameters");
    if ((scaling && !qb_json_is_object(scaling)) || (newer && !qb_json_is_object(newer))) {
        qb_keys_fail(k, QB_ERR_FORMAT, "\"rope_scaling\" and \"rope_parameters\" must be objects or null");
        return NULL;
    }
    if (scaling && newer && !qb_json_equal(scaling, newer))
        qb_warn("%s: \"rope_scaling\" and \"rope_parameters\" disagree; \"rope_scaling\" counts, as in "
                "transformers",
                k->where);
    const qb_json *chosen = scaling ? scaling : newer;
    const qb_json *nested = layer_type ? qb_json_get(chosen, layer_type) : NULL;
    return qb_json_is_object(nested) ? nested : chosen;
}

static void read_factors(qb_keys *in, const char *key, int64_t pairs, float out[QB_ROPE_PAIRS_MAX]) {
    const qb_json *list = qb_key_any(in, key);
    if (in->st != QB_OK) return;
    if (pairs > QB_ROPE_PAIRS_MAX || qb_json_count(list) != pairs) {
        qb_keys_fail(in, QB_ERR_FORMAT, "rope needs %lld numbers in \"%s\" (at most %d), found %lld",
                     (long long)pairs, key, QB_ROPE_PAIRS_MAX, (long long)qb_json_count(list));
        return;
    }
    for (const qb_json *j = qb_json_first(list); j; j = qb_json_next(j)) {
        double factor = qb_json_number(j);
        if (!(factor >= 1e-6 && factor <= 1e6)) {
            qb_keys_fail(in, QB_ERR_FORMAT, "rope: factor %g in \"%s\", expected 1e-06 .. 1e+06", factor,
                         key);
            return;
        }
        *out++ = (float)factor;
    }
}

static void read_kind(qb_keys *in, qb_rope_spec *r) {
    const char *type = "default";
    qb_key_text(in, "rope_type|type", false, &type);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (!strcmp(kinds[i].name, type)) {
            r->scaling = kinds[i].kind;
            return;
        }
    qb_keys_fail(in, QB_ERR_UNSUPPORTED,
                 "rope of type \"%.40s\" is not known (default, linear, dynamic, llama3, yarn, longrope are)",
                 type);
}

/* Inside and on top; the latter wins where both are there and differ (Phi-3 keeps it on top). */
static void read_original(qb_keys *k, qb_keys *in, qb_rope_spec *r) {
    int64_t inside = 0, top = 0;
    qb_key_int(in, "original_max_position_embeddings", false, 1, POSITIONS_MAX, &inside);
    qb_key_int(k, "original_max_position_embeddings", false, 1, POSITIONS_MAX, &top);
    if (inside && top && inside != top)
        qb_warn("%s: original_max_position_embeddings is %lld on top and %lld for rope; %lld counts, as in "
                "transformers",
                k->where, (long long)top, (long long)inside, (long long)top);
    if (top || inside) r->original_positions = top ? top : inside;
}

static void read_details(qb_keys *k, qb_keys *in, qb_rope_spec *r) {
    double by_length = 0;
    bool has_factor =
        r->scaling == QB_ROPE_LINEAR || r->scaling == QB_ROPE_LLAMA3 || r->scaling == QB_ROPE_DYNAMIC;
    qb_key_real(in, "factor", has_factor, 1e-3, 1e6, &by_length);
    read_original(k, in, r);
    if (by_length == 0) by_length = (double)r->max_positions / (double)r->original_positions;
    r->factor = by_length;
    qb_key_real(in, "attention_factor", false, 1e-6, 1e6, &r->attention_factor);
    qb_key_real(in, "low_freq_factor", r->scaling == QB_ROPE_LLAMA3, 1e-6, 1e6, &r->low_freq);
    qb_key_real(in, "high_freq_factor", r->scaling == QB_ROPE_LLAMA3, 1e-6, 1e6, &r->high_freq);
    qb_key_real(in, "beta_fast", false, 1e-6, 1e6, &r->beta_fast);
    qb_key_real(in, "beta_slow", false, 1e-6, 1e6, &r->beta_slow);
    qb_key_real(in, "mscale", false, 0, 1e6, &r->mscale);
    qb_key_real(in, "mscale_all_dim", false, 0, 1e6, &r->mscale_all_dim);
    qb_key_real(in, "short_mscale", false, 0, 1e6, &r->short_mscale);
    qb_key_real(in, "long_mscale", false, 0, 1e6, &r->long_mscale);
    qb_key_bool(in, "truncate", &r->truncate);
    if (r->scaling == QB_ROPE_LLAMA3 && in->st == QB_OK && r->high_freq <= r->low_freq)
        qb_keys_fail(in, QB_ERR_FORMAT, "rope needs high_freq_factor above low_freq_factor, found %g and %g",
                     r->high_freq, r->low_freq);
    if (r->scaling == QB_ROPE_FACTORS) read_factors(in, "factors", r->width / 2, r->factors);
    if (r->scaling == QB_ROPE_LONGROPE) {
        read_factors(in, "short_factor", r->width / 2, r->factors);
        read_factors(in, "long_factor", r->width / 2, r->long_factors);
    }
}

/* A family whose heads turn whole does not read it on top. transformers 5 passes it over there, wherever it
   stands, while the rope is of the default type, and fails on shapes with the others. */
static void read_fraction(const qb_keys *k, qb_keys *in, const qb_rope_spec *r, double *fraction) {
    static const char key[] = "partial_rotary_factor";
    double stated = *fraction;
    const bool read = qb_key_was_read(k, key);
    if (!read) {
        qb_keys top = {.json = k->json, .where = k->where, .st = in->st};
        qb_key_real(&top, key, false, 0, 1, &stated);
        in->st = top.st;
    }
    qb_key_real(in, key, false, 0, 1, &stated);
    if (read) *fraction = stated;
    if (in->st != QB_OK || stated == *fraction) return;
    if (r->scaling == QB_ROPE_DEFAULT)
        qb_warn("%s: \"%s\" is %g, which this architecture does not read: heads are turned whole, as in "
                "transformers",
                k->where, key, stated);
    else
        qb_keys_fail(
            in, QB_ERR_UNSUPPORTED,
            "\"%s\" is %g for scaled rope, which this architecture does not read: the model would be "
            "another one; take it out if the model's own code does not read it either",
            key, stated);
}

/* Whatever stands inside is there to change the positions: what nobody reads is refused unless it is off. */
static void refuse_unread(qb_keys *in) {
    static const char *const known[] = {
        "rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "attention_factor",
        "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
        "short_mscale", "long_mscale", "truncate", "factors", "short_factor", "long_factor",
        "partial_rotary_factor",
        /* read by families */
        "llama_4_scaling_beta", "max_position_embeddings",
        /* of layers of another kind, which are read in their turn */
        "full_attention", "sliding_attention", "linear_attention", "chunked_attention",
        /* of a text, nothing: the parts of positions in images; how the model came to be */
        "mrope_section", "mrope_interleaved", "finetuned"};
    for (const qb_json *j = qb_json_first(in->json); in->st == QB_OK && j; j = qb_json_next(j)) {
        bool found = qb_json_is_null(j) || (qb_json_is_number(j) && qb_json_number(j) == 1);
        for (size_t i = 0; !found && i < sizeof known / sizeof known[0]; i++)
            found = !strcmp(qb_json_key(j), known[i]);
        if (!found)
            qb_keys_fail(in, QB_ERR_UNSUPPORTED,
                         "\"%.60s\" among the rope parameters changes what a model computes, and is not read "
                         "here: the model would be another one; take it out if the model's own code does not "
                         "read it either",
                         qb_json_key(j));
    }
}

void qb_config_rope(qb_keys *k, qb_config *c, int index, const char *layer_type, double theta,
                    double fraction) {
    qb_rope_spec *r = &c->ropes[index];
    const qb_json *dictionary = parameters(k, layer_type);
    qb_keys in = {.json = dictionary, .where = k->where, .st = k->st};
    *r = (qb_rope_spec){.theta = theta,
                        .factor = 1,
                        .low_freq = 1,
                        .high_freq = 4,
                        .beta_fast = 32,
                        .beta_slow = 1,
                        .truncate = true,
                        .max_positions = c->max_positions,
                        .original_positions =
                            c->family->original_positions ? c->family->original_positions : c->max_positions};
    double top = 0, inside = 0;
    qb_key_real(k, "rope_theta|rotary_emb_base|rope_base", false, 1, 1e12, &top);
    qb_key_real(&in, "rope_theta", false, 1, 1e12, &inside);
    if (top > 0 && inside > 0 && top != inside && !layer_type)
        qb_warn("%s: rope_theta is %g on top and %g in the rope parameters; %g counts, as in transformers",
                k->where, top, inside, inside);
    if (top > 0) r->theta = top;
    if (inside > 0) r->theta = inside;
    read_kind(&in, r);
    refuse_unread(&in);
    if (r->scaling == QB_ROPE_YARN && c->family->yarn_is_longrope) r->scaling = QB_ROPE_LONGROPE;
    read_fraction(k, &in, r, &fraction);
    r->width = (int64_t)((double)c->head_dim * fraction);
    if (in.st == QB_OK && (r->width < 2 || r->width % 2))
        qb_keys_fail(
            &in, QB_ERR_FORMAT,
            "the rotary part of a head must be an even number of elements, found %lld of head_dim %lld",
            (long long)r->width, (long long)c->head_dim);
    if (in.st == QB_OK && r->scaling != QB_ROPE_DEFAULT) read_details(k, &in, r);
    if (k->st == QB_OK) k->st = in.st;
}
