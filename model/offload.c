#include "model/offload.h"

#include "base/str.h"

/* Bytes that a block may take more than its tensors: rows padded to tiles, scales widened. */
static const double packing_margin = 1.05;

qb_status qb_offload_plan_make(const qb_model *m, int64_t available_bytes, int64_t other_bytes,
                               qb_offload_plan *out) {
    int64_t n = m->config.n_layers, weights = qb_model_weight_bytes(m) + qb_model_wide_table_bytes(m);
    int64_t block = (int64_t)((double)qb_model_block_bytes(m) * packing_margin);
    int64_t ends = weights - n * qb_model_block_bytes(m);
    char a[32], b[32], c[32];
    *out = (qb_offload_plan){0};
    if (ends < 0) ends = 0;
    int64_t room = available_bytes - other_bytes - ends;
    if (room < 0)
        return qb_fail(
            QB_ERR_MEMORY,
            "embeddings, head and norms take %s and caches and activations %s; %s of device memory "
            "are free",
            qb_format_bytes((double)ends, a), qb_format_bytes((double)other_bytes, b),
            qb_format_bytes((double)available_bytes, c));
    out->device_blocks = block > 0 && room / block < n ? room / block : n;
    out->host_bytes = (n - out->device_blocks) * qb_model_block_bytes(m);
    out->device_bytes = weights - out->host_bytes;
    out->bus_bytes = out->host_bytes;
    return QB_OK;
}

void qb_model_offload(qb_model *m, const qb_offload_plan *plan) {
    m->host_blocks = m->config.n_layers - plan->device_blocks;
}

int64_t qb_model_host_blocks(const qb_model *m) {
    return m->resident ? m->host_blocks : 0;
}

int64_t qb_model_host_bytes(const qb_model *m) {
    int64_t sum = 0;
    for (int64_t l = m->config.n_layers - qb_model_host_blocks(m); l < m->config.n_layers; l++)
        for (int64_t i = 0; i < m->blocks[l].w.n_modules; i++) sum += m->blocks[l].w.matrices[i].bytes;
    return sum;
}
