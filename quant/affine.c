#include "quant/affine.h"

#include "base/str.h"

#include <inttypes.h>

static qb_status fail_group(const char *module, int64_t cols, int64_t group) {
    static const int64_t usual[] = {1024, 512, 256, 128, 64, 32, 16, 8};
    qb_str fits = {0};
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (cols % usual[i] == 0) qb_str_printf(&fits, "%lld, ", (long long)usual[i]);
    qb_status st =
        qb_fail(QB_ERR_USAGE,
                "%s: group size %lld does not divide its %lld input columns; sizes that do: %s-1 (one group "
                "a row); or allow a short last group with --ragged-groups",
                module, (long long)group, (long long)cols, qb_str_get(&fits));
    qb_str_free(&fits);
    return st;
}

qb_status qb_affine_describe(const char *module, int64_t rows, int64_t cols, qb_dtype source_dtype,
                             const qb_quant_config *config, qb_qweight *out) {
    int64_t bits = config->bits, group = config->group_size;
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
        return qb_fail(QB_ERR_USAGE, "bits must be 2, 3, 4 or 8, found %lld", (long long)bits);
    if (group != -1 && group < 1)
        return qb_fail(QB_ERR_USAGE, "group size must be positive, or -1 for one group a row, found %lld",
                       (long long)group);
    if (rows < 1 || cols < 1)
        return qb_fail(QB_ERR_FORMAT, "%s: cannot quantize a weight of shape [%lld, %lld]", module,
                       (long long)rows, (long long)cols);
    if (group == -1) group = cols;
    if (cols % group != 0 && !config->ragged_groups) return fail_group(module, cols, group);
    if (group > cols) group = cols; /* ragged: one short group */
    *out = (qb_qweight){
        .coding = QB_CODING_AFFINE,
        .rows = rows,
        .cols = cols,
        .bits = (int)bits,
        .group_size = group,
        .n_groups = (cols + group - 1) / group,
        .symmetric = config->symmetric,
        .source_dtype = source_dtype,
    };
    return QB_OK;
}

void qb_affine_label(const qb_quant_config *config, qb_str *out) {
    qb_str_printf(out, "-%" PRId64 "b", config->bits);
    if (config->group_size > 0)
        qb_str_printf(out, "-g%" PRId64, config->group_size);
    else
        qb_str_text(out, "-row");
    if (!config->symmetric) qb_str_text(out, "-asym");
}

void qb_affine_label_search(const qb_quant_config *config, qb_str *out) {
    if (config->mse) qb_str_text(out, "-mse");
}

qb_grid_rule qb_affine_rule(const qb_quant_config *config) {
    return (qb_grid_rule){.bits = (int)config->bits, .symmetric = config->symmetric, .mse = config->mse};
}

void qb_affine_put_grid(qb_qweight *q, int64_t row0, int64_t n_rows, int64_t group, const float *scale,
                        const float *zero) {
    for (int64_t lane = 0; lane < n_rows; lane++) {
        int64_t at = (row0 + lane) * q->n_groups + group;
        q->scales[at] = scale[lane];
        q->zeros[at] = (uint8_t)zero[lane];
    }
}

void qb_affine_put_column(qb_qweight *q, int64_t row0, int64_t n_rows, int64_t column, const uint8_t *codes) {
    uint8_t *to = q->codes + row0 * q->cols + column;
    for (int64_t lane = 0; lane < n_rows; lane++) to[lane * q->cols] = codes[lane];
}
