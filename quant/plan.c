#include "quant/plan.h"

#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "quant/calibration.h"
#include "quant/output_error.h"
#include "quant/passes.h"

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

/* One weight while it is worked on: float32 where it is widened whole, codes a byte each, scales and zeros,
 * and the words about to be written. */
static int64_t working_bytes(const qb_qweight *q, bool widened) {
    int64_t weights = q->rows * q->cols;
    int64_t beside = q->coding == QB_CODING_AFFINE ? q->rows * q->n_groups * 5 : q->n_blocks * 5;
    return (widened ? weights * 4 : 0) + weights + beside + stored_bytes(q);
}

/* Of one block, or of all: sums, and the largest of what is held at a time. */
typedef struct {
    int64_t packed, dense;                 /* all blocks' linears as stored, and as the checkpoint has them */
    int64_t largest_packed, largest_dense; /* of one block */
    int64_t largest_work;                  /* of one linear, as the checkpoint has it included */
    int64_t widest;                        /* input */
    int64_t largest_hessians;              /* held at once, bytes */
    int64_t passes, stages;                /* qb_quant_plan's */
    double squares, cubes;                 /* of all blocks' inputs, for Hessians and factors */
    double params, bits, update_flops;
} model_sizes;

static qb_status measure_linear(const qb_model *m, const qb_linear *l, int64_t layer,
                                const qb_quant_method *method, const qb_quant_config *config,
                                model_sizes *out, int64_t *packed, int64_t *dense) {
    char module[QB_NAME_BYTES];
    qb_qweight q = {0};
    qb_dtype dtype;
    qb_linear_name(l, layer, module);
    qb_status st = qb_linear_dtype(m, l, layer, &dtype);
    if (st == QB_OK) st = method->describe(module, l->rows, l->cols, dtype, config, &q);
    if (st == QB_OK) st = qb_layout_for(&q)->check(module, &q);
    if (st != QB_OK) return st;
    double weights = (double)l->rows * (double)l->cols;
    int64_t bytes = l->rows * l->cols * (int64_t)qb_dtype_bytes(dtype);
    bool index = config->act_order && !config->static_groups && config->group_size != -1;
    *packed += stored_bytes(&q);
    *dense += bytes;
    int64_t work = working_bytes(&q, !method->by_rows) + bytes;
    if (work > out->largest_work) out->largest_work = work;
    if (l->cols > out->widest) out->widest = l->cols;
    out->params += weights;
    out->bits +=
        weights * qb_qweight_bits_per_weight(&q) + (method->needs && index ? 32.0 * (double)l->cols : 0.0);
    out->update_flops += 3 * weights * (double)l->cols; /* compensation, and the two forms of the error */
    return QB_OK;
}

static qb_status measure_model(const qb_model *m, const qb_quant_method *method,
                               const qb_quant_config *config, model_sizes *out) {
    const qb_topology *t = &m->topology;
    qb_status st = QB_OK;
    *out = (model_sizes){0};
    for (int64_t layer = 0; layer < t->n_layers; layer++) {
        const qb_list *l = &t->layers[layer];
        int64_t packed = 0, dense = 0, held, passes;
        qb_walk w;
        for (size_t i = 0; st == QB_OK && i < l->n_linears; i++)
            if (l->linears[i].quantized)
                st = measure_linear(m, &l->linears[i], layer, method, config, out, &packed, &dense);
        if (st != QB_OK || (st = qb_walk_make(t, l, &w)) != QB_OK) return st;
        for (size_t i = 0; i < w.n_sites; i++) {
            double cols = (double)w.sites[i].cols,
                   share = w.sites[i].expert < 0 ? 1 : (double)t->top_k / (double)t->experts;
            out->squares += cols * cols * share;
            out->cubes += cols * cols * cols;
        }
        passes = qb_passes_of(&w, config->true_sequential, qb_hessian_room_bytes(config), &held);
        if (passes > out->passes) out->passes = passes;
        if (held > out->largest_hessians) out->largest_hessians = held;
        int64_t stages = config->true_sequential ? (int64_t)w.n_stages : 1;
        if (stages > out->stages) out->stages = stages;
        qb_walk_free(&w);
        out->packed += packed;
        out->dense += dense;
        if (packed > out->largest_packed) out->largest_packed = packed;
        if (dense > out->largest_dense) out->largest_dense = dense;
    }
    return QB_OK;
}

/* Multiply-adds a token of what the passes compute again because it is not kept. */
static double repeated_work(const qb_topology *t, int64_t kept_floats) {
    double work = 0;
    for (int64_t layer = 0; layer < t->n_layers; layer++) {
        qb_walk w;
        if (qb_walk_make(t, &t->layers[layer], &w) != QB_OK) {
            qb_error_clear();
            return work;
        }
        qb_walk_store(&w, kept_floats);
        for (size_t i = 0; i < w.n_stages; i++)
            if (!w.stages[i].stored) work += w.stages[i].work;
        qb_walk_free(&w);
    }
    return work;
}

static double calibration_flops(const qb_model *m, const qb_quant_config *config, const model_sizes *s,
                                const qb_calibration_memory *memory) {
    const qb_topology *t = &m->topology;
    double tokens = (double)memory->tokens;
    double attention = (double)config->seqlen * (double)t->context_flops;
    double forward = tokens * (2 * (double)qb_topology_active_params(t) + attention) *
                     (config->true_sequential ? 1 : 1 + (double)s->passes);
    if (config->true_sequential) forward += tokens * 2 * repeated_work(t, memory->kept_floats);
    double hessians = tokens * s->squares; /* one triangle */
    return forward + hessians + 2.0 / 3.0 * s->cubes + s->update_flops;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t other_tensors(const qb_model *m, const model_sizes *s) {
    return qb_checkpoint_tensor_bytes(m->checkpoint) - s->dense;
}

/* What the workers of a row-tile loop hold: 128 rows in float32, and for GPTQ half as much again of panels;
   row by row a row and what is made of it, and for the mse search 64 and their panel. */
static int64_t tile_bytes(const model_sizes *s, int64_t rows) {
    return (int64_t)qb_cores_available() * s->widest * rows * 4;
}

/* What stands beside Hessians: what factors them, the tiles of GPTQ and its updates, or behind them those of
   the error, and what the device lays out. */
static int64_t method_bytes(const model_sizes *s, int64_t block, int64_t tokens) {
    const int threads = (int)qb_cores_available();
    const int64_t columns = block < s->widest ? block : s->widest;
    const int64_t gptq = tile_bytes(s, 192) + qb_updates_bytes(threads, s->widest, columns, 128);
    const int64_t behind =
        larger(qb_factor_bytes(threads, s->widest), qb_output_error_bytes(threads, s->widest));
    return larger(gptq, behind) + larger(qb_cpu_hessian_bytes(threads, s->widest, tokens),
                                         qb_cpu_product_bytes(threads, s->widest, tokens));
}

static const qb_tensor *weight_of(const qb_model *m, const char *module) {
    char name[136];
    if (!module) return NULL;
    snprintf(name, sizeof name, "%s.weight", module);
    return qb_checkpoint_find(m->checkpoint, name);
}

static int64_t tensor_bytes(const qb_model *m, const char *module) {
    const qb_tensor *t = weight_of(m, module);
    return t ? t->bytes : 0;
}

static const char *head_name(const qb_model *m) {
    return m->topology.leave.linears[m->topology.head].name;
}

/* Held with the calibration: the embedding table is read all over; a synthetic head is generated beside it
   although it is not used. */
static int64_t table_bytes(const qb_model *m) {
    bool head = qb_checkpoint_is_synthetic(m->checkpoint) && !m->topology.tied_head;
    return tensor_bytes(m, m->topology.embed) + (head ? tensor_bytes(m, head_name(m)) : 0);
}

/* A mapped one is walked over in parts (qb_writer_put_passing). */
static int64_t held_while_copied(const qb_model *m, const char *module) {
    enum { PART_BYTES = 4 << 20 };
    const qb_tensor *t = weight_of(m, module);
    if (!t) return 0;
    return t->bytes > PART_BYTES && qb_checkpoint_is_mapped(m->checkpoint, t) ? PART_BYTES : t->bytes;
}

/* The most that the tensors which are copied as they are take, before the first block. */
static int64_t copied_bytes(const qb_model *m) {
    return larger(held_while_copied(m, m->topology.embed), held_while_copied(m, head_name(m)));
}

int64_t qb_quant_plan_other_bytes(const qb_quant_plan *plan) {
    return plan->peak_bytes - plan->activation_bytes;
}

qb_status qb_quant_plan_make(const qb_model *m, const qb_quant_method *method, const qb_quant_config *config,
                             qb_quant_plan *out) {
    *out = (qb_quant_plan){0};
    model_sizes s;
    qb_status st = measure_model(m, method, config, &s);
    if (st != QB_OK) return st;
    out->params = (int64_t)s.params;
    out->bits_per_weight = s.bits / s.params;
    out->checkpoint_bytes =
        s.packed + other_tensors(m, &s) + (int64_t)qb_checkpoint_count(m->checkpoint) * HEADER_BYTES_A_TENSOR;
    if (!method->needs) {
        out->block_bytes = s.largest_work;
        out->flops = s.params;
        out->workspace_bytes = tile_bytes(&s, method->by_rows && !config->mse ? 2 : 128);
        out->peak_bytes =
            qb_resident_bytes() + larger(out->block_bytes + out->workspace_bytes, copied_bytes(m));
        return QB_OK;
    }
    if (config->samples < 1 || config->seqlen < 1)
        return qb_fail(QB_ERR_USAGE,
                       "calibration needs samples and seqlen of at least 1, found %lld and %lld",
                       (long long)config->samples, (long long)config->seqlen);
    out->calibration_tokens = config->samples * config->seqlen;
    out->hessian_passes = s.passes;
    out->stages = s.stages;
    out->hessian_bytes = s.largest_hessians + 4 * s.widest * s.widest;
    out->block_bytes = s.largest_dense + s.largest_packed + s.largest_work + table_bytes(m);
    qb_calibration_memory memory;
    const int64_t beside = method_bytes(&s, config->block_columns, out->calibration_tokens);
    int64_t fixed = qb_resident_bytes() + out->hessian_bytes + out->block_bytes + beside;
    st = qb_calibration_size(&m->topology, out->calibration_tokens, config->samples, config->seqlen,
                             config->true_sequential, fixed, &memory);
    if (st != QB_OK) return st;
    out->activation_bytes = memory.stream_bytes + memory.kept_bytes;
    out->workspace_bytes = memory.workspace_bytes + memory.kv_bytes + beside;
    out->flops = calibration_flops(m, config, &s, &memory);
    out->peak_bytes = larger(fixed + out->activation_bytes + memory.workspace_bytes + memory.kv_bytes,
                             qb_resident_bytes() + copied_bytes(m));
    return QB_OK;
}
