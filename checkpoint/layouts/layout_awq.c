/* AWQ checkpoints, GEMM version: qweight [in, out/8], qzeros [groups, out/8], scales [groups, out]; eight
   4-bit codes of neighbouring rows of W to a word, in an order of its own. Formats: AutoAWQ
   modules/linear/gemm.py, utils/packing_utils.py; docs/formats.md. */
#include "base/memory.h"
#include "checkpoint/layouts/layout_rows.h"
#include "checkpoint/layouts/read_parts.h"
#include "checkpoint/state.h"

#include <inttypes.h>
#include <string.h>

enum { PER_WORD = 8, TILE = 64 };

/* Nibble i of a word, the lowest first, belongs to this one of its eight rows. */
static const uint8_t row_of_nibble[PER_WORD] = {0, 2, 4, 6, 1, 3, 5, 7};

static bool present(const qb_checkpoint *ck, const char *module) {
    return qb_module_tensor_find(ck, module, "qweight") != NULL;
}

/* Rows first .. first + n of words [cols, rows / 8] to fields [n, cols], in tiles whose lines stay in cache.
 */
static void unpack(const uint32_t *words, int64_t rows, int64_t cols, int64_t first, int64_t n,
                   uint8_t *fields) {
    int64_t stride = rows / PER_WORD, last = first + n;
    uint8_t tile[PER_WORD][TILE];
    for (int64_t c = 0; c < cols; c += TILE) {
        int64_t width = cols - c < TILE ? cols - c : TILE;
        for (int64_t w = first / PER_WORD; w * PER_WORD < last; w++) {
            for (int64_t k = 0; k < width; k++) {
                uint32_t word = words[(c + k) * stride + w];
                for (int i = 0; i < PER_WORD; i++) tile[row_of_nibble[i]][k] = (uint8_t)(word >> 4 * i & 15);
            }
            for (int i = 0; i < PER_WORD; i++) {
                int64_t row = w * PER_WORD + i;
                if (row >= first && row < last)
                    memcpy(fields + (row - first) * cols + c, tile[i], (size_t)width);
            }
        }
    }
}

static void word_codes(const qb_code_source *from, int64_t first, int64_t n, uint8_t *codes) {
    const qb_tensor_codes *c = (const qb_tensor_codes *)from;
    unpack(c->bytes, c->rows, c->cols, first, n, codes);
}

static qb_status read_zeros(qb_checkpoint *ck, const qb_tensor *t, qb_qweight *q) {
    const void *words;
    qb_status st = qb_checkpoint_acquire(ck, t, &words);
    if (st != QB_OK) return st;
    unpack(words, q->rows, q->n_groups, 0, q->rows, q->zeros);
    qb_checkpoint_release(ck, t);
    return QB_OK;
}

static qb_status read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, qb_qweight *out) {
    qb_quantization own = qb_module_quantization(ck, module);
    const qb_quantization *how = &own;
    const qb_tensor *qweight, *qzeros, *scales;
    qb_tensor_codes *codes;
    int64_t group = how->group_size < 0 || how->group_size > cols ? cols : how->group_size;
    *out = (qb_qweight){0};
    if (rows < 1 || cols < 1 || rows > INT32_MAX || cols > INT32_MAX || rows % PER_WORD != 0)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: %s: an awq weight of shape [%" PRId64 ", %" PRId64 "] does not fill whole words",
                       ck->dir, module, rows, cols);
    int64_t n_groups = (cols + group - 1) / group;
    qb_status st;
    QB_TRY(st, qb_module_tensor(ck, module, "qweight", &qweight));
    QB_TRY(st, qb_module_tensor(ck, module, "qzeros", &qzeros));
    QB_TRY(st, qb_module_tensor(ck, module, "scales", &scales));
    QB_TRY(st, qb_tensor_expect(ck, qweight, QB_DTYPE_I32, 2, (int64_t[]){cols, rows / PER_WORD}));
    QB_TRY(st, qb_tensor_expect(ck, qzeros, QB_DTYPE_I32, 2, (int64_t[]){n_groups, rows / PER_WORD}));
    QB_TRY(st, qb_qweight_form_affine(rows, cols, how->bits, group, out));
    QB_TRY(st, qb_qweight_alloc_values(out, false));
    QB_TRY(st, qb_read_scales(ck, scales, QB_SCALES_BY_GROUP, out));
    QB_TRY(st, read_zeros(ck, qzeros, out));
    QB_TRY(st, qb_leave_codes(ck, qweight, word_codes, out, &codes));
    out->symmetric = qb_qweight_zeros_in_middle(out);
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

const qb_layout qb_layout_awq = {
    .name = "awq",
    .summary = "AWQ safetensors, GEMM version (AutoAWQ, GPTQModel, vLLM); read only",
    .source = "AutoAWQ modules/linear/gemm.py",
    .present = present,
    .read = read,
};
