#include "quant/plan.h"

#include "base/memory.h"
#include "quant/calibration.h"

#include <stdio.h>

/* Once per file, and once per module beside its codes: names, offsets, the JSON of bitsandbytes' quant_state.
 */
enum { HEADER_BYTES_A_TENSOR = 160, QUANT_STATE_BYTES = 120 };

/* What the layouts put into the file for one weight (docs/formats.md: gptq for affine groups, bitsandbytes
 * for codebooks).
 */
static int64_t stored_bytes(const qb_qweight *q) {
    int64_t weights = q->rows * q->cols;
    if (q->coding == QB_CODING_AFFINE)
        return weights * q->bits / 8 + q->rows * q->n_groups * q->bits / 8 + q->rows * q->n_groups * 2 +
               q->cols * 4;
    int64_t table = 16 * 4, nested = (q->n_blocks + QB_NESTED_BLOCK - 1) / QB_NESTED_BLOCK;
    int64_t scales = q->double_quant ? q->n_blocks + nested * 4 + 256 * 4 : q->n_blocks * 4;
    return (weights + 1) / 2 + table + scales + QUANT_STATE_BYTES;
}

/* One weight while it is worked on: float32, codes a byte each, scales and zeros, and the words about to be
 * written. */
static int64_t working_bytes(const qb_qweight *q) {
    int64_t weights = q->rows * q->cols;
    int64_t beside = q->coding == QB_CODING_AFFINE ? q->rows * q->n_groups * 5 : q->n_blocks * 5;
    return weights * 4 + weights + beside + stored_bytes(q);
}

/* Of one block, or of all: sums, and the largest of what is held at a time. */
typedef struct {
    int64_t packed, dense; /* linears as stored, and as the checkpoint has them */
    int64_t largest_block; /* both of a block */
    int64_t largest_work;  /* of one linear, as the checkpoint has it included */
    int64_t widest;        /* input */
    int64_t hessians;      /* elements of a block's, one for each input */
    double params, bits;
    double hessian_products; /* elements of all of them */
    double factor_flops, update_flops;
} sizes;

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static qb_status measure_linear(const qb_model *m, const qb_quant_method *method,
                                const qb_quant_config *config, int64_t layer, qb_linear l, sizes *s) {
    const qb_config *c = &m->config;
    char module[128], name[136];
    const qb_tensor *t;
    qb_qweight q = {0};
    int64_t rows, cols;
    qb_config_linear_shape(c, l, &rows, &cols);
    qb_config_linear_name(c, layer, l, module);
    snprintf(name, sizeof name, "%s.weight", module);
    qb_status st = qb_checkpoint_need(m->checkpoint, name, &t);
    if (st == QB_OK) st = method->describe(module, rows, cols, t->dtype, config, &q);
    if (st == QB_OK) st = qb_layout_for(&q)->check(module, &q);
    if (st != QB_OK) return st;
    double weights = (double)rows * (double)cols;
    bool index = method->needs && config->act_order && !config->static_groups && config->group_size != -1;
    s->packed += stored_bytes(&q);
    s->dense += t->bytes;
    s->largest_work = larger(s->largest_work, working_bytes(&q) + t->bytes);
    s->widest = larger(s->widest, cols);
    s->params += weights;
    s->bits += weights * qb_qweight_bits_per_weight(&q) + (index ? 32.0 * (double)cols : 0.0);
    s->update_flops += 3 * weights * (double)cols; /* compensation, and the two forms of the error */
    return QB_OK;
}

static qb_status measure_block(const qb_model *m, const qb_quant_method *method,
                               const qb_quant_config *config, int64_t layer, sizes *s) {
    int64_t squares[QB_INPUT_COUNT] = {0};
    *s = (sizes){0};
    for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++) {
        int64_t rows, cols;
        if (!qb_config_has_linear(&m->config, l)) continue;
        qb_status st = measure_linear(m, method, config, layer, l, s);
        if (st != QB_OK) return st;
        qb_config_linear_shape(&m->config, l, &rows, &cols);
        squares[qb_linear_input_of(l)] = cols * cols;
    }
    for (int i = 0; i < QB_INPUT_COUNT; i++) s->hessians += squares[i];
    s->largest_block = s->packed + s->dense;
    s->hessian_products = (double)s->hessians;
    s->factor_flops = 2.0 / 3.0 * (double)s->hessians * (double)s->widest;
    return QB_OK;
}

static void add_block(sizes *all, const sizes *one) {
    all->packed += one->packed;
    all->dense += one->dense;
    all->largest_block = larger(all->largest_block, one->largest_block);
    all->largest_work = larger(all->largest_work, one->largest_work);
    all->widest = larger(all->widest, one->widest);
    all->hessians = larger(all->hessians, one->hessians);
    all->params += one->params;
    all->bits += one->bits;
    all->hessian_products += one->hessian_products;
    all->factor_flops += one->factor_flops;
    all->update_flops += one->update_flops;
}

static qb_status measure_blocks(const qb_model *m, const qb_quant_method *method,
                                const qb_quant_config *config, sizes *all) {
    *all = (sizes){0};
    for (int64_t layer = 0; layer < m->config.n_layers; layer++) {
        sizes one;
        qb_status st = measure_block(m, method, config, layer, &one);
        if (st != QB_OK) return st;
        add_block(all, &one);
    }
    return QB_OK;
}

static double calibration_flops(const qb_config *c, const qb_quant_config *config, const sizes *s,
                                const qb_calibration_memory *memory) {
    double tokens = (double)memory->tokens, layers = (double)c->n_layers;
    double attention = 2.0 * layers * (double)config->seqlen * (double)(c->n_heads * c->head_dim);
    double forward = tokens * (2 * s->params + attention) * (config->true_sequential ? 1 : 2);
    if (config->true_sequential && !memory->context_bytes) forward += tokens * attention;
    if (config->true_sequential && !memory->mid_bytes)
        forward += tokens * layers * 2.0 * (double)c->ffn * (double)c->hidden * (c->family->gated ? 2 : 1);
    double hessians = tokens * s->hessian_products; /* one triangle */
    return forward + hessians + s->factor_flops + s->update_flops;
}

static int64_t other_tensors(const qb_model *m, const sizes *s) {
    return qb_checkpoint_tensor_bytes(m->checkpoint) - s->dense;
}

/* What the workers of a row-tile loop hold: 128 rows in float32, and for GPTQ half as much again of panels.
 */
static int64_t tile_bytes(const sizes *s, int64_t rows) {
    return (int64_t)qb_cores_available() * s->widest * rows * 4;
}

static int64_t tensor_bytes(const qb_model *m, const char *module) {
    char name[136];
    if (!module) return 0;
    snprintf(name, sizeof name, "%s.weight", module);
    const qb_tensor *t = qb_checkpoint_find(m->checkpoint, name);
    return t ? t->bytes : 0;
}

/* Held with the calibration: the embedding table is read all over; a synthetic head is generated beside it
   although it is not used. */
static int64_t table_bytes(const qb_model *m) {
    const qb_family *f = m->config.family;
    bool head = qb_checkpoint_is_synthetic(m->checkpoint) && !m->config.tied_head;
    return tensor_bytes(m, f->embed) + (head ? tensor_bytes(m, f->head) : 0);
}

/* The largest tensor that is copied as it is, before the first block. */
static int64_t copied_bytes(const qb_model *m) {
    int64_t embed = tensor_bytes(m, m->config.family->embed), head = tensor_bytes(m, m->config.family->head);
    return embed > head ? embed : head;
}

int64_t qb_quant_plan_other_bytes(const qb_quant_plan *plan) {
    return plan->peak_bytes - plan->activation_bytes;
}

qb_status qb_quant_plan_make(const qb_model *m, const qb_quant_method *method, const qb_quant_config *config,
                             qb_quant_plan *out) {
    const qb_config *c = &m->config;
    *out = (qb_quant_plan){0};
    sizes s;
    qb_status st = measure_blocks(m, method, config, &s);
    if (st != QB_OK) return st;
    out->params = (int64_t)s.params;
    out->bits_per_weight = s.bits / s.params;
    out->checkpoint_bytes =
        s.packed + other_tensors(m, &s) + (int64_t)qb_checkpoint_count(m->checkpoint) * HEADER_BYTES_A_TENSOR;
    if (!method->needs) {
        out->block_bytes = s.largest_work;
        out->flops = s.params;
        out->workspace_bytes = tile_bytes(&s, 128);
        out->peak_bytes =
            qb_resident_bytes() + larger(out->block_bytes + out->workspace_bytes, copied_bytes(m));
        return QB_OK;
    }
    if (config->samples < 1 || config->seqlen < 1)
        return qb_fail(QB_ERR_USAGE,
                       "calibration needs samples and seqlen of at least 1, found %lld and %lld",
                       (long long)config->samples, (long long)config->seqlen);
    out->calibration_tokens = config->samples * config->seqlen;
    out->hessian_bytes =
        4 * (config->true_sequential ? 2 * s.widest * s.widest : s.hessians + s.widest * s.widest);
    out->block_bytes = s.largest_block + s.largest_work + table_bytes(m);
    qb_calibration_memory memory;
    int64_t fixed = qb_resident_bytes() + out->hessian_bytes + out->block_bytes + tile_bytes(&s, 192);
    qb_calibration_size(c, out->calibration_tokens, config->samples, config->seqlen, config->true_sequential,
                        fixed, &memory);
    out->activation_bytes = memory.stream_bytes + memory.context_bytes + memory.mid_bytes;
    out->workspace_bytes = memory.workspace_bytes + memory.kv_bytes + tile_bytes(&s, 192);
    out->flops = calibration_flops(c, config, &s, &memory);
    out->peak_bytes = larger(fixed + out->activation_bytes + memory.workspace_bytes + memory.kv_bytes,
                             qb_resident_bytes() + copied_bytes(m));
    return QB_OK;
}
