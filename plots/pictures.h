/* The kinds of picture. Each draws DIR/NAME[-panel].{svg,png,pdf} for every panel that has data, and none
 * where there is none. */
#pragma once

#include "plots/figure.h"
#include "plots/sheet.h"

typedef struct qb_picture_job {
    qb_sheet *sheet;
    const char *terminals, *dir, *name; /* terminals: as qb_gnuplot_terminals gives them */
    int *n_files;                       /* increased */
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
