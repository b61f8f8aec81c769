/* The kinds of picture. Each draws NAME[-panel] for every panel that has data, and none where there is none.
 */
#pragma once

#include "plots/easel.h"
#include "plots/sheet.h"

typedef struct qb_picture_job {
    qb_sheet *sheet;
    qb_easel *easel;
    const char *name;
} qb_picture_job;

typedef qb_status (*qb_picture_fn)(const qb_picture_job *job);

qb_status qb_picture_perplexity_bits(const qb_picture_job *job) QB_NODISCARD;
qb_status qb_picture_perplexity_size(const qb_picture_job *job) QB_NODISCARD;
qb_status qb_picture_pareto(const qb_picture_job *job) QB_NODISCARD;
qb_status qb_picture_decode_bits(const qb_picture_job *job) QB_NODISCARD;
qb_status qb_picture_prefill(const qb_picture_job *job) QB_NODISCARD;
qb_status qb_picture_memory(const qb_picture_job *job) QB_NODISCARD;
qb_status qb_picture_quantize_time(const qb_picture_job *job) QB_NODISCARD;
qb_status qb_picture_layer_error(const qb_picture_job *job) QB_NODISCARD;

/* Every registered picture, or those that `only` names, on any easel. */
qb_status qb_pictures_draw(qb_sheet *sheet, qb_easel *easel, const char *only) QB_NODISCARD;
