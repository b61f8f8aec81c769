/* What a model's weights take: in the checkpoint, in memory, and read per token. */
#include "model/model.h"

#include <stdio.h>
#include <string.h>

/* Whether a tensor belongs to `layer`: it begins with the linears' common prefix up to and with the number.
 */
static bool in_layer(const qb_config *c, const char *name, int64_t layer) {
    const char *pattern = c->family->linear[QB_LINEAR_Q], *hole = strstr(pattern, "%d");
    char prefix[128];
    snprintf(prefix, sizeof prefix, "%.*s%lld.", (int)(hole - pattern), pattern, (long long)layer);
    return !strncmp(name, prefix, strlen(prefix));
}

/* All weights once loaded, from the headers alone. */
static int64_t planned_bytes(const qb_model *m) {
    const qb_config *c = &m->config;
    char embed[128];
    int64_t sum = 0;
    qb_config_layer_name(c->family->embed, 0, ".weight", embed);
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        int64_t bytes = qb_checkpoint_loaded_bytes(m->checkpoint, t);
        bool widened = t->dtype == QB_DTYPE_U8 && !strcmp(t->name, embed); /* blocks, kept as float32 */
        sum += widened ? c->vocab * c->hidden * (int64_t)sizeof(float) + (c->tied_head ? bytes : 0) : bytes;
    }
    return sum;
}

void qb_block_prefetch(qb_model *m, int64_t layer) {
    if (layer >= m->config.n_layers) return;
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        if (in_layer(&m->config, t->name, layer)) qb_checkpoint_prefetch(m->checkpoint, t);
    }
}

int64_t qb_model_block_bytes(const qb_model *m) {
    int64_t largest = 0;
    for (int64_t layer = 0; layer < m->config.n_layers; layer++) {
        int64_t sum = 0;
        for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
            const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
            if (in_layer(&m->config, t->name, layer)) sum += qb_checkpoint_loaded_bytes(m->checkpoint, t);
        }
        if (sum > largest) largest = sum;
    }
    return largest;
}

int64_t qb_model_weight_bytes(const qb_model *m) {
    if (!m->resident) return planned_bytes(m);
    int64_t sum = m->embed.bytes + (m->head_is_embed ? 0 : m->head.bytes);
    int64_t vector = m->config.hidden * (int64_t)sizeof(float);
    for (int64_t i = 0; i < m->config.n_layers; i++) {
        const qb_block *b = &m->blocks[i];
        for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++)
            sum += b->w.linear[l].bytes + (b->w.bias[l] ? b->w.linear[l].rows * (int64_t)sizeof(float) : 0);
        sum += vector * (2 + (b->w.norm_attention_bias ? 2 : 0));
    }
    sum += vector * (m->final_norm_bias ? 2 : 1);
    if (m->embed_position) sum += vector * (m->config.max_positions + m->config.family->position_offset);
    return sum;
}

int64_t qb_model_decode_bytes(const qb_model *m, int64_t context, qb_dtype kv_dtype) {
    const qb_config *c = &m->config;
    int64_t kv = 2 * c->n_layers * c->n_kv_heads * c->head_dim * (int64_t)qb_dtype_bytes(kv_dtype) * context;
    int64_t row = c->hidden * (int64_t)qb_dtype_bytes(m->embed.dtype);
    /* Everything is read once but the embedding table, of which one row is; a head that is the table reads it
     * after all. */
    return qb_model_weight_bytes(m) + (m->head_is_embed ? 0 : row - m->embed.bytes) + kv;
}

/* Tensors of a linear that say nothing of its weights: what is the same in every module, or follows from the
 * group size. */
static bool is_constant(const qb_model *m, const char *suffix) {
    if (!strcmp(suffix, ".g_idx") || !strcmp(suffix, ".weight_g_idx"))
        return !qb_checkpoint_quantization(m->checkpoint)->desc_act;
    return !strcmp(suffix, ".bias") || !strcmp(suffix, ".weight_format") ||
           !strcmp(suffix, ".weight_shape") || !strcmp(suffix, ".quant_map") ||
           !strcmp(suffix, ".nested_quant_map") || !strncmp(suffix, ".bitsandbytes__", 15);
}

int64_t qb_model_module_bytes(const qb_model *m, const char *module) {
    size_t n = strlen(module);
    int64_t bytes = 0;
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        if (!strncmp(t->name, module, n) && t->name[n] == '.' && !is_constant(m, strrchr(t->name, '.')))
            bytes += t->bytes;
    }
    return bytes;
}

double qb_model_bits_per_weight(const qb_model *m) {
    const qb_config *c = &m->config;
    int64_t bytes = 0;
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        const char *suffix = strrchr(t->name, '.');
        if (suffix && is_constant(m, suffix)) continue;
        for (int64_t layer = 0; layer < c->n_layers; layer++) {
            if (!in_layer(c, t->name, layer)) continue;
            for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++) {
                char module[128];
                if (!qb_config_has_linear(c, l)) continue;
                qb_config_layer_name(c->family->linear[l], layer, ".", module);
                if (!strncmp(t->name, module, strlen(module))) bytes += t->bytes;
            }
            break;
        }
    }
    return 8.0 * (double)bytes / (double)qb_config_linear_params(c);
}
