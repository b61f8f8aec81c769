/* Any bytes as a quantized module: rows, columns, a config.json, a NUL, a safetensors file. What a layout
   reads of it is within its ranges and dequantizes. */
#include "base/log.h"
#include "checkpoint/state.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void require(int holds) {
    if (!holds) abort();
}

/* Copies: releasing a mapping would let go of the fuzzer's own pages. */
static qb_status copy_bytes(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) {
    (void)ck;
    memcpy(out, t->source, (size_t)t->tensor.bytes);
    return QB_OK;
}

static void check_affine(const qb_qweight *q) {
    require(q->n_groups == (q->cols + q->group_size - 1) / q->group_size);
    for (int64_t i = 0; i < q->rows * q->cols; i++) require(q->codes[i] >> q->bits == 0);
    for (int64_t i = 0; i < q->rows * q->n_groups; i++)
        require(isfinite(q->scales[i]) && (!q->zeros || q->zeros[i] >> q->bits == 0));
    for (int64_t c = 0; q->g_idx && c < q->cols; c++) require(q->g_idx[c] >= 0 && q->g_idx[c] < q->n_groups);
}

static void check_weight(const qb_weight *w, int64_t rows, int64_t cols) {
    static float dense[256 * 256];
    const qb_qweight *q = w->packed;
    if (!q) return;
    require(q->rows == rows && q->cols == cols);
    if (q->coding == QB_CODING_AFFINE)
        check_affine(q);
    else
        for (int64_t i = 0; i < q->n_blocks; i++) require(isfinite(q->absmax[i]));
    qb_qweight_dequantize(q, dense);
}

static qb_status add_tensors(qb_checkpoint *ck, qb_shard *shard, const uint8_t *bytes, size_t size) {
    qb_safetensors file;
    qb_status st = qb_safetensors_parse(bytes, size, "fuzz", &ck->arena, &file);
    for (size_t i = 0; st == QB_OK && i < file.count; i++) {
        const qb_safetensors_entry *e = &file.entries[i];
        st = qb_checkpoint_add_tensor(ck, shard,
                                      &(qb_tensor_state){.tensor = e->tensor,
                                                         .dtype_name = e->dtype_name,
                                                         .fill = copy_bytes,
                                                         .source = e->tensor.data});
    }
    return st;
}

static void read_module(qb_checkpoint *ck, int64_t rows, int64_t cols) {
    qb_weight w;
    qb_status st = qb_quantization_read(ck);
    if (st == QB_OK) st = qb_checkpoint_linear(ck, "m", rows, cols, &w);
    if (st != QB_OK) {
        require(strchr(qb_error_text(), '\n') == NULL);
        return;
    }
    check_weight(&w, rows, cols);
    qb_checkpoint_free_linear(ck, "m", &w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *end = size > 2 ? memchr(data + 2, 0, size - 2) : NULL;
    qb_checkpoint *ck;
    if (!end || data[0] == 0 || data[1] == 0) return 0;
    qb_log_set_level(QB_LOG_QUIET);
    if (qb_alloc_zero(1, sizeof *ck, &ck) != QB_OK) return 0;
    qb_shard shard = {.file_name = "fuzz", .path = "fuzz"};
    pthread_mutex_init(&ck->lock, NULL);
    pthread_cond_init(&ck->filled, NULL);
    ck->dir = "fuzz";
    ck->shards = &shard;
    qb_status st = qb_json_parse((const char *)data + 2, (size_t)(end - data) - 2, "fuzz", &ck->config);
    if (st == QB_OK) st = add_tensors(ck, &shard, end + 1, (size_t)(data + size - end) - 1);
    if (st == QB_OK) read_module(ck, data[0], data[1]);
    ck->shards = NULL;
    qb_checkpoint_close(ck);
    return 0;
}
