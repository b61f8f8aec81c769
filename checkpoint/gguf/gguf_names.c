/* Tensor names of GGUF architectures. */
#include "checkpoint/gguf/gguf_model.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

/* Lists of a row. */
#define LIST(TYPE, ...)                                                                                      \
    (const TYPE[]) {                                                                                         \
        __VA_ARGS__, NOTHING                                                                                 \
    }
#define NOTHING                                                                                              \
    { .to = NULL }
#define NAMES(...)     LIST(qb_gguf_name, __VA_ARGS__)
#define COPIED(...)    LIST(qb_gguf_copied, __VA_ARGS__)
#define FLAGS(...)     LIST(qb_gguf_flag, __VA_ARGS__)
#define MADE(...)      LIST(qb_gguf_made, __VA_ARGS__)
#define PER_LAYER(...) LIST(qb_gguf_per_layer, __VA_ARGS__)
#define IGNORED(...)                                                                                         \
    (const char *const[]) {                                                                                  \
        __VA_ARGS__, NULL                                                                                    \
    }

/* Llama's names, which most families have. */
#define ENDS                                                                                                 \
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {                                   \
        "output", "lm_head"                                                                                  \
    }
#define QKV                                                                                                  \
    {"attn_q", "self_attn.q_proj"}, {"attn_k", "self_attn.k_proj"}, {                                        \
        "attn_v", "self_attn.v_proj"                                                                         \
    }
#define QKVO                                                                                                 \
    QKV, {                                                                                                   \
        "attn_output", "self_attn.o_proj"                                                                    \
    }
#define QK_NORMS                                                                                             \
    {"attn_q_norm", "self_attn.q_norm"}, {                                                                   \
        "attn_k_norm", "self_attn.k_norm"                                                                    \
    }
#define GATED                                                                                                \
    {"ffn_gate", "mlp.gate_proj"}, {"ffn_up", "mlp.up_proj"}, {                                              \
        "ffn_down", "mlp.down_proj"                                                                          \
    }
#define NORMS                                                                                                \
    {"attn_norm", "input_layernorm"}, {                                                                      \
        "ffn_norm", "post_attention_layernorm"                                                               \
    }

/* Baichuan: rotary pairs are neighbours in the file's q and k, in the 13B models too, which turn nothing. */
#define BAICHUAN                                                                                             \
    .name = "baichuan", .family = "BaichuanForCausalLM", .fixed_biases = true, .layer = "model.layers.",     \
    .outside = NAMES(ENDS), .inside = NAMES(NORMS, {"attn_output", "self_attn.o_proj"}, GATED),              \
    .made = MADE({{"attn_q.weight", "attn_k.weight", "attn_v.weight"},                                       \
                  .to = "self_attn.W_pack.weight",                                                           \
                  .order = QB_GGUF_QUERIES_KEYS})
#define BAICHUAN_2                                                                                           \
    .if_vocabulary = 125696, .constants = "{\"z_loss_weight\": 0}",                                          \
    .note = "a vocabulary of 125696 is Baichuan 2's: the head's rows are divided by their lengths, as its "  \
            "class does; llama.cpp takes them as they lie"

/* Of mixtures. */
#define EXPERT_COUNTS(KEY)                                                                                   \
    {"expert_count", KEY, true, false, false}, {                                                             \
        "expert_used_count", "num_experts_per_tok", true, false, false                                       \
    }
#define SHARED(MODULE)                                                                                       \
    {"ffn_gate_shexp", MODULE ".gate_proj"}, {"ffn_up_shexp", MODULE ".up_proj"}, {                          \
        "ffn_down_shexp", MODULE ".down_proj"                                                                \
    }
#define QWEN_EXPERTS                                                                                         \
    {{"ffn_gate_exps.weight"}, .to = "mlp.experts.%e.gate_proj.weight"},                                     \
        {{"ffn_up_exps.weight"}, .to = "mlp.experts.%e.up_proj.weight"}, {                                   \
        {"ffn_down_exps.weight"}, .to = "mlp.experts.%e.down_proj.weight"                                    \
    }
#define GRANITE_EXPERTS                                                                                      \
    {{"ffn_gate_exps.weight", "ffn_up_exps.weight"},                                                         \
     .to = "block_sparse_moe.input_linear.%e.linear.weight"},                                                \
    {                                                                                                        \
        {"ffn_down_exps.weight"}, .to = "block_sparse_moe.output_linear.%e.linear.weight"                    \
    }
#define GRANITE_SCALES                                                                                       \
    {"embedding_scale", "embedding_multiplier", false, true, false},                                         \
        {"residual_scale", "residual_multiplier", false, true, false}, {                                     \
        "logit_scale", "logits_scaling", false, false, false                                                 \
    }

/* As llama.cpp has them. Source: its src/models/llama4.cpp. */
#define LLAMA4_CONSTANTS                                                                                     \
    "\"attention_chunk_size\": 8192, \"attn_temperature_tuning\": true, \"floor_scale\": 8192, "             \
    "\"attn_scale\": 0.1, "                                                                                  \
    "\"no_rope_layer_interval\": 4"
#define LLAMA4_NAMES                                                                                         \
    NORMS, QKVO, SHARED("feed_forward.shared_expert"), {"ffn_gate_inp", "feed_forward.router"},              \
        {"ffn_gate", "feed_forward.gate_proj"}, {"ffn_up", "feed_forward.up_proj"}, {                        \
        "ffn_down", "feed_forward.down_proj"                                                                 \
    }
#define LLAMA4_EXPERTS                                                                                       \
    {{"ffn_gate_exps.weight"}, .to = "feed_forward.experts.%e.gate_proj.weight"},                            \
        {{"ffn_up_exps.weight"}, .to = "feed_forward.experts.%e.up_proj.weight"}, {                          \
        {"ffn_down_exps.weight"}, .to = "feed_forward.experts.%e.down_proj.weight"                           \
    }

static const qb_gguf_architecture architectures[] = {
#include "checkpoint/gguf/gguf_mixtures.def"
/* Rows without a condition stand behind those with one. */
#include "checkpoint/gguf/gguf_architectures.def"
};
enum { N_ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

const qb_gguf_tensor *qb_gguf_find_tensor(const qb_gguf *g, const char *name) {
    for (size_t i = 0; i < g->n_tensors; i++)
        if (!strcmp(g->tensors[i].name, name)) return &g->tensors[i];
    return NULL;
}

bool qb_gguf_says(const qb_gguf *g, const char *architecture, const char *below) {
    char key[128];
    double value = 1;
    snprintf(key, sizeof key, "%s.%s", architecture, below);
    const qb_gguf_value *v = qb_gguf_find(g, key);
    if (!v) return false;
    bool number = !v->is_array && v->kind != QB_GGUF_STRING && v->kind != QB_GGUF_BOOL;
    return !number || (qb_gguf_real(g, key, true, -1e300, 1e300, &value) == QB_OK && value > 0);
}

static bool holds(const qb_gguf *g, const qb_gguf_architecture *a) {
    char key[128];
    const qb_gguf_tensor *embed = a->if_vocabulary ? qb_gguf_find_tensor(g, "token_embd.weight") : NULL;
    int64_t value = 0;
    if (a->if_vocabulary && !(embed && embed->n_dims == 2 && embed->shape[0] == a->if_vocabulary))
        return false;
    if (a->if_key && a->if_value) {
        snprintf(key, sizeof key, "%s.%s", a->name, a->if_key);
        bool number = qb_gguf_int(g, key, false, 0, INT32_MAX, &value) == QB_OK;
        if (!number) qb_error_clear(); /* told where it is read */
        return number && value == a->if_value;
    }
    return (!a->if_key || qb_gguf_says(g, a->name, a->if_key)) &&
           (!a->if_tensor || qb_gguf_find_tensor(g, a->if_tensor));
}

/* Of the rows of one name. */
static bool is_first(size_t i) {
    for (size_t j = 0; j < i; j++)
        if (!strcmp(architectures[i].name, architectures[j].name)) return false;
    return true;
}

qb_status qb_gguf_architecture_of(const qb_gguf *g, const qb_gguf_architecture **out) {
    const char *name = NULL;
    *out = NULL;
    qb_status st = qb_gguf_text(g, "general.architecture", true, &name);
    if (st != QB_OK) return st;
    for (size_t i = 0; i < N_ARCHITECTURES && !*out; i++)
        if (!strcmp(architectures[i].name, name) && holds(g, &architectures[i])) *out = &architectures[i];
    if (*out) return QB_OK;
    qb_str known = {0};
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        if (is_first(i)) qb_str_printf(&known, "%s%s", i ? ", " : "", architectures[i].name);
    st = qb_fail(QB_ERR_UNSUPPORTED, "%s: architecture \"%.60s\" is not supported (supported: %s)", g->file,
                 name, qb_str_get(&known));
    qb_str_free(&known);
    return st;
}

/* "blk.12.attn_q.weight" -> "12", "attn_q", ".weight"; without "blk." the layer is empty. */
typedef struct {
    const char *layer, *stem, *suffix;
    int n_layer, n_stem;
} parts;

static parts split(const char *name) {
    parts p = {.layer = name, .stem = name};
    if (!strncmp(name, "blk.", 4)) {
        p.layer = name + 4;
        p.n_layer = (int)strspn(p.layer, "0123456789");
        p.stem = p.layer + p.n_layer + (p.layer[p.n_layer] == '.');
        if (p.n_layer > 1 && p.layer[0] == '0') p.stem = ""; /* "007" would be a second name of 7 */
    }
    p.suffix = strrchr(p.stem, '.');
    if (!p.suffix) p.suffix = p.stem + strlen(p.stem);
    p.n_stem = (int)(p.suffix - p.stem);
    return p;
}

static bool same(const parts *p, const char *name) {
    return strlen(name) == (size_t)p->n_stem && !strncmp(p->stem, name, (size_t)p->n_stem);
}

qb_status qb_gguf_tensor_name(const qb_gguf *g, const qb_gguf_architecture *a, const char *name,
                              char out[QB_TENSOR_NAME_MAX]) {
    parts p = split(name);
    const char *to = NULL;
    out[0] = 0;
    for (const char *const *ignored = a->ignored; ignored && *ignored; ignored++)
        if (same(&p, *ignored)) return QB_OK;
    if (p.n_layer && qb_gguf_is_for_made(a, p.stem)) return QB_OK;
    for (const qb_gguf_name *n = p.n_layer ? a->inside : a->outside; n->from && !to; n++)
        if (same(&p, n->from)) to = n->to;
    if (!to || (strcmp(p.suffix, ".weight") != 0 && strcmp(p.suffix, ".bias") != 0))
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %.200s has no place in a model of architecture %s",
                       g->file, name, a->name);
    snprintf(out, QB_TENSOR_NAME_MAX, "%s%.*s%s%s%s", p.n_layer ? a->layer : "", p.n_layer, p.layer,
             p.n_layer ? "." : "", to, p.suffix);
    return QB_OK;
}
