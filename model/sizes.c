/* What a model's weights take: in the checkpoint, in memory, and read per token. */
#include "model/decoder.h"
#include "model/offload.h"
#include "model/owners.h"

#include <stdio.h>
#include <string.h>

static int64_t layer_of(const qb_model *m, const char *tensor) {
    const qb_owner *owner = qb_owners_find(m->owners, tensor);
    return owner ? owner->layer : -1;
}

/* All weights once loaded, from the headers alone. */
static int64_t planned_bytes(const qb_model *m) {
    int64_t sum = 0;
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++)
        sum += qb_checkpoint_loaded_bytes(m->checkpoint, qb_checkpoint_at(m->checkpoint, i));
    return sum;
}

int64_t qb_model_wide_table_bytes(const qb_model *m) {
    const qb_topology *t = &m->topology;
    char embed[QB_NAME_BYTES];
    snprintf(embed, sizeof embed, "%s.weight", t->embed);
    const qb_tensor *tensor = qb_checkpoint_find(m->checkpoint, embed);
    if (m->resident || !tensor || tensor->dtype != QB_DTYPE_U8) return 0; /* U8: blocks */
    return t->vocab * t->embed_width * (int64_t)sizeof(float) -
           (t->tied_head ? 0 : qb_checkpoint_loaded_bytes(m->checkpoint, tensor));
}

void qb_block_prefetch(qb_model *m, int64_t layer) {
    if (layer >= m->config.n_layers) return;
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        if (layer_of(m, t->name) == layer) qb_checkpoint_prefetch(m->checkpoint, t);
    }
}

int64_t qb_model_block_bytes(const qb_model *m) {
    int64_t largest = 0, *sums;
    if (qb_alloc_zero((size_t)m->config.n_layers, sizeof *sums, &sums) != QB_OK) {
        qb_error_clear();
        return qb_checkpoint_tensor_bytes(m->checkpoint); /* an upper bound */
    }
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        int64_t layer = layer_of(m, t->name);
        if (layer >= 0 && layer < m->config.n_layers)
            sums[layer] += qb_checkpoint_loaded_bytes(m->checkpoint, t);
    }
    for (int64_t layer = 0; layer < m->config.n_layers; layer++)
        if (sums[layer] > largest) largest = sums[layer];
    qb_free(sums);
    return largest;
}

static int64_t list_bytes(const qb_list *l, const qb_step_weights *w, int64_t skip) {
    int64_t sum = 0, f = (int64_t)sizeof(float);
    for (int64_t i = 0; i < w->n_modules; i++)
        sum += (i == skip ? 0 : w->matrices[i].bytes) + (w->biases[i] ? l->linears[i].rows * f : 0);
    for (int64_t i = 0; i < w->n_vectors; i++)
        sum += l->vectors[i].rows * (l->vectors[i].cols ? l->vectors[i].cols : 1) * f;
    return sum;
}

int64_t qb_model_weight_bytes(const qb_model *m) {
    const qb_topology *t = &m->topology;
    if (!m->resident) return planned_bytes(m);
    int64_t sum = m->embed.bytes + list_bytes(&t->enter, &m->enter.w, -1) +
                  list_bytes(&t->leave, &m->leave.w, m->head_is_embed ? t->head : -1);
    for (int64_t i = 0; i < t->n_layers; i++) sum += list_bytes(&t->layers[i], &m->blocks[i].w, -1);
    return sum;
}

/* Of a mixture of experts a token reads its own experts alone; which ones is not known, so all count alike.
 */
static int64_t unread_experts(const qb_model *m) {
    const qb_topology *t = &m->topology;
    int64_t sum = 0;
    for (int64_t l = 0; m->resident && t->top_k > 0 && l < t->n_layers; l++)
        for (size_t i = 0; i < t->layers[l].n_linears; i++)
            if (t->layers[l].linears[i].expert >= 0) sum += m->blocks[l].w.matrices[i].bytes;
    return t->experts > 0 ? (int64_t)((double)sum * (double)(t->experts - t->top_k) / (double)t->experts) : 0;
}

int64_t qb_model_decode_bytes(const qb_model *m, int64_t context, qb_dtype kv_dtype) {
    const qb_topology *t = &m->topology;
    int64_t kv = qb_kv_bytes(t, kv_dtype, t->n_layers, 1, context);
    int64_t row = m->embed.packed ? m->embed.bytes / m->embed.rows
                                  : t->embed_width * (int64_t)qb_dtype_bytes(m->embed.dtype);
    /* Everything is read once but the embedding table, of which one row is; a head that is the table reads it
     * after all. */
    return qb_model_weight_bytes(m) - unread_experts(m) + (m->head_is_embed ? 0 : row - m->embed.bytes) + kv;
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
    int64_t bytes = 0;
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        const qb_owner *owner = qb_owners_find(m->owners, t->name);
        const char *suffix = strrchr(t->name, '.');
        if (!owner || owner->kind != QB_OWNER_LINEAR || !owner->linear->quantized) continue;
        if (suffix && strcmp(t->name, owner->name) && is_constant(m, suffix)) continue;
        bytes += t->bytes;
    }
    return 8.0 * (double)bytes / (double)qb_topology_linear_params(&m->topology);
}
