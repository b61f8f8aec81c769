/* What the methods on affine groups share: their option rows, the checks of a shape, the walk over row tiles.
 */
#pragma once

#include "quant/grid.h"
#include "quant/site.h"

#include <stddef.h>

/* The rows that every affine method takes; a method's own rows follow. */
#define QB_AFFINE_OPTIONS                                                                                    \
    {"bits", 0,    QB_OPTION_INT, offsetof(qb_quant_config, bits), "4", 2,                                   \
     8,      NULL, "N",           "bits a code: 2, 3, 4 or 8"},                                              \
        {"group-size",  0,                                                                                   \
         QB_OPTION_INT, offsetof(qb_quant_config, group_size),                                               \
         "128",         -1,                                                                                  \
         1 << 20,       NULL,                                                                                \
         "COLUMNS",     "input columns that share a scale; -1 for one group a row"},                         \
        {"sym", 0,    QB_OPTION_BOOL, offsetof(qb_quant_config, symmetric),           "true", 0,             \
         0,     NULL, NULL,           "fix the zero point in the middle of the codes"},                      \
        {"ragged-groups",                                                                                    \
         0,                                                                                                  \
         QB_OPTION_BOOL,                                                                                     \
         offsetof(qb_quant_config, ragged_groups),                                                           \
         "false",                                                                                            \
         0,                                                                                                  \
         0,                                                                                                  \
         NULL,                                                                                               \
         NULL,                                                                                               \
         "let the last group of a row be short where the group size does not divide"},                       \
    {                                                                                                        \
        "mse", 0, QB_OPTION_BOOL, offsetof(qb_quant_config, mse), "false", 0, 0, NULL, NULL,                 \
            "search each group's range for the least error (exponent 2.4) instead of its extremes"           \
    }

/* qb_quant_method.describe of the affine methods. */
qb_status qb_affine_describe(const char *module, int64_t rows, int64_t cols, qb_dtype source_dtype,
                             const qb_quant_config *config, qb_qweight *out) QB_NODISCARD;

/* qb_quant_method.label in two parts, between which a method puts its own words: bits, groups and zero
   points, and how ranges are found. */
void qb_affine_label(const qb_quant_config *config, qb_str *out);
void qb_affine_label_search(const qb_quant_config *config, qb_str *out);

/* The grid rule of a configuration. */
qb_grid_rule qb_affine_rule(const qb_quant_config *config);

/* Stores the scales and zeros of one group for n_rows rows from row0 on. */
void qb_affine_put_grid(qb_qweight *q, int64_t row0, int64_t n_rows, int64_t group, const float *scale,
                        const float *zero);
/* Stores the codes of one column, codes[lane], for n_rows rows from row0 on. */
void qb_affine_put_column(qb_qweight *q, int64_t row0, int64_t n_rows, int64_t column, const uint8_t *codes);

/* Round to nearest on the job's weight, group by group, into q (allocated). The whole of the method `rtn`,
   and what others fall back to. report: NULL, or takes the error by the weight alone, with scales as a reader
   of the file finds them. QB_ERR_NUMERIC as qb_weight_check_finite. */
qb_status qb_affine_round(const qb_quant_job *job, qb_qweight *q, qb_module_report *report) QB_NODISCARD;
