/* config.json from GGUF metadata. Keys: ggml's docs/gguf.md and gguf-py's constants.py. */
#include "base/log.h"
#include "checkpoint/gguf/gguf_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SIZE_MAX_ALLOWED = 1 << 24, LAYERS_MAX = 4096 };

typedef qb_gguf_builder builder;

const char *qb_gguf_key(builder *b, const char *below) {
    snprintf(b->key, sizeof b->key, "%s.%s", b->a->name, below);
    return b->key;
}

/* Where a member of the config stands, or of an object in it: "key" or "object.key". The object is taken out
   of the config until it is put back. */
typedef struct {
    qb_json *object;
    const char *key;
    char outer[64];
} place;

static place open_place(builder *b, const char *path) {
    const char *dot = strchr(path, '.');
    place p = {.object = b->out, .key = path};
    if (!dot) return p;
    snprintf(p.outer, sizeof p.outer, "%.*s", (int)(dot - path), path);
    p.object = qb_json_take(b->out, p.outer);
    if (!p.object) p.object = qb_json_object();
    p.key = dot + 1;
    return p;
}

static void close_place(builder *b, const place *p) {
    if (p->outer[0]) qb_json_put(b->out, p->outer, p->object);
}

/* A whole number under its new name; absent optional ones stay absent. -1 then. */
static qb_status copy_int(builder *b, const char *below, const char *name, bool required, int64_t max,
                          int64_t *value) {
    *value = -1;
    qb_status st = qb_gguf_int(b->g, qb_gguf_key(b, below), required, 1, max, value);
    if (st == QB_OK && *value > 0 && name) qb_json_put_int(b->out, name, *value);
    return st;
}

/* A real number with its ".0", for transformers' classes that take 30.0 for a cap and refuse 30. */
static qb_status put_real(qb_json *object, const char *key, double value) {
    char text[32];
    qb_json *number = NULL;
    if (!(fabs(value) < 1e15 && value == rint(value))) {
        qb_json_put_real(object, key, value);
        return QB_OK;
    }
    snprintf(text, sizeof text, "%.1f", value);
    qb_status st = qb_json_parse(text, strlen(text), key, &number); /* keeps how it is written */
    if (st == QB_OK) qb_json_put(object, key, number);
    return st;
}

/* Numbers and truth values under the class's keys. */
static qb_status copy_values(builder *b) {
    for (const qb_gguf_copied *c = b->a->copied; c && c->from; c++) {
        const char *name = qb_gguf_key(b, c->from);
        const qb_gguf_value *v = qb_gguf_find(b->g, name);
        bool truth = v && !v->is_array && v->kind == QB_GGUF_BOOL;
        double value = 0;
        qb_status st = QB_OK;
        if (!truth) st = qb_gguf_real(b->g, name, c->required, -1e30, 1e30, &value);
        if (st != QB_OK) return st;
        if (!v) continue;
        place p = open_place(b, c->to);
        if (truth)
            qb_json_put_bool(p.object, p.key, *v->bytes != 0);
        else if (c->zero_is_none && !(value > 0))
            qb_json_put_null(p.object, p.key);
        else if ((v->kind == QB_GGUF_F32 || v->kind == QB_GGUF_F64) && !c->whole)
            st = put_real(p.object, p.key, value);
        else
            qb_json_put_real(p.object, p.key, value);
        close_place(b, &p);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

static void add_flags(builder *b) {
    for (const qb_gguf_flag *f = b->a->flags; f && f->tensor; f++) {
        bool there = qb_gguf_find_tensor(b->g, f->tensor) != NULL;
        qb_json_put_bool(b->out, f->to, there != f->absent);
    }
    if (b->a->fixed_biases) return;
    qb_json_put_bool(b->out, "attention_bias", qb_gguf_find_tensor(b->g, "blk.0.attn_q.bias") != NULL);
    qb_json_put_bool(b->out, "mlp_bias", qb_gguf_find_tensor(b->g, "blk.0.ffn_up.bias") != NULL);
}

static qb_status add_constants(builder *b) {
    qb_json *all;
    if (!b->a->constants) return QB_OK;
    qb_status st = qb_json_parse(b->a->constants, strlen(b->a->constants), b->a->name, &all);
    if (st != QB_OK) return st;
    for (const qb_json *j = qb_json_first(all); j; j = qb_json_next(j))
        qb_json_put(b->out, qb_json_key(j), qb_json_copy(j));
    qb_json_free(all);
    return QB_OK;
}

static qb_status add_eps(builder *b) {
    const char *to = b->a->layer_norm_eps;
    double eps = 1e-5;
    const char *key =
        qb_gguf_key(b, to ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon");
    qb_status st = qb_gguf_real(b->g, key, true, 0, 1, &eps);
    if (st != QB_OK) return st;
    if (to && !*to && (float)eps != 1e-5f)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: metadata %s is %g; the class knows 1e-05 alone", b->g->file,
                       b->key, eps);
    if (!to || *to) qb_json_put_real(b->out, to ? to : "rms_norm_eps", eps);
    return QB_OK;
}

/* Gemma: scores are divided by the root of the head's width, in the largest by that of its share of hidden.
   Granite: they are multiplied by a key, which llama.cpp takes for this root where it is not there. */
static qb_status add_scale(builder *b, int64_t heads, int64_t head_width) {
    int64_t layers = (int64_t)qb_json_number(qb_json_get(b->out, "num_hidden_layers"));
    int64_t hidden = (int64_t)qb_json_number(qb_json_get(b->out, "hidden_size"));
    double scale = 0;
    if (b->a->scale_by_hidden)
        qb_json_put_int(b->out, "query_pre_attn_scalar",
                        layers == b->a->scale_by_hidden ? hidden / heads : head_width);
    if (!b->a->scale_key) return QB_OK;
    qb_status st = qb_gguf_real(b->g, qb_gguf_key(b, "attention.scale"), false, 0, 1e6, &scale);
    if (st != QB_OK) return st;
    qb_json_put_real(b->out, b->a->scale_key, scale > 0 ? scale : 1 / sqrt((double)head_width));
    return QB_OK;
}

static qb_status add_heads(builder *b, int64_t hidden, int64_t heads, int64_t *head_width) {
    int64_t kv, length;
    qb_status st;
    QB_TRY(st, copy_int(b, "attention.head_count_kv", "num_key_value_heads", false, SIZE_MAX_ALLOWED, &kv));
    QB_TRY(st, copy_int(b, "attention.key_length", "head_dim", false, SIZE_MAX_ALLOWED, head_width));
    QB_TRY(st, copy_int(b, "attention.value_length", NULL, false, SIZE_MAX_ALLOWED, &length));
    if (kv < 0) qb_json_put_int(b->out, "num_key_value_heads", heads); /* the class may have another number */
    bool stated = *head_width > 0;
    if (!stated) *head_width = hidden / heads;
    if (!stated && b->a->own_head_dim && hidden % heads == 0)
        qb_json_put_int(b->out, "head_dim", *head_width);
    if (*head_width < 2 || *head_width % 2)
        return qb_fail(QB_ERR_FORMAT, "%s: heads of %" PRId64 " elements; expected an even number",
                       b->g->file, *head_width);
    if (length > 0 && length != *head_width)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: metadata %s is %" PRId64 ", but keys have %" PRId64
                       " elements: different sizes are not supported",
                       b->g->file, b->key, length, *head_width);
out:
    return st;
}

static qb_status add_sizes(builder *b, int64_t *heads, int64_t *head_width) {
    int64_t hidden, value;
    qb_status st;
    QB_TRY(st, copy_int(b, "embedding_length", "hidden_size", true, SIZE_MAX_ALLOWED, &hidden));
    QB_TRY(st, copy_int(b, "feed_forward_length", "intermediate_size", true, SIZE_MAX_ALLOWED, &value));
    QB_TRY(st, copy_int(b, "block_count", "num_hidden_layers", true, LAYERS_MAX, &value));
    QB_TRY(st, copy_int(b, "attention.head_count", "num_attention_heads", true, SIZE_MAX_ALLOWED, heads));
    const char *context = b->a->context_key ? b->a->context_key : "max_position_embeddings";
    QB_TRY(st, copy_int(b, "context_length", context, true, SIZE_MAX_ALLOWED, &value));
    QB_TRY(st, b->a->latent ? qb_gguf_add_latent(b, head_width) : add_heads(b, hidden, *heads, head_width));
    const qb_gguf_tensor *embed = qb_gguf_find_tensor(b->g, "token_embd.weight");
    if (!embed || embed->n_dims != 2)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor token_embd.weight is missing or no matrix", b->g->file);
    qb_json_put_int(b->out, "vocab_size", embed->shape[0]);
out:
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
    builder b = {.g = g, .a = a, .out = qb_json_object()};
    qb_json *names = qb_json_array();
    int64_t heads, head_width;
    qb_status st;
    *out = NULL;
    QB_TRY(st, check_type(g));
    QB_TRY(st, qb_gguf_refuse_unread(&b));
    qb_json_push_text(names, a->family);
    qb_json_put(b.out, "architectures", names);
    names = NULL;
    QB_TRY(st, add_sizes(&b, &heads, &head_width));
    if (!a->no_rope) QB_TRY(st, qb_gguf_add_rope(&b, head_width));
    QB_TRY(st, qb_gguf_add_window(&b));
    QB_TRY(st, add_eps(&b));
    qb_json_put_text(b.out, a->activation_key ? a->activation_key : "hidden_act",
                     a->activation ? a->activation : "silu");
    QB_TRY(st, add_constants(&b));
    QB_TRY(st, add_scale(&b, heads, head_width));
    QB_TRY(st, copy_values(&b));
    QB_TRY(st, qb_gguf_add_blocks(&b));
    add_flags(&b);
    qb_json_put_bool(b.out, "tie_word_embeddings", qb_gguf_find_tensor(g, "output.weight") == NULL);
    QB_TRY(st, add_token(&b, "tokenizer.ggml.bos_token_id", "bos_token_id"));
    QB_TRY(st, add_token(&b, "tokenizer.ggml.eos_token_id", "eos_token_id"));
    if (a->note) qb_warn("%s: %s", g->file, a->note);
    *out = b.out;
    b.out = NULL;
out:
    qb_json_free(names);
    qb_json_free(b.out);
    return st;
}
