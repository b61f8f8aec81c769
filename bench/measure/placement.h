/* Where a model's weights go: all on the device, some of them in host memory, or block by block. */
#pragma once

#include "base/str.h"
#include "model/offload.h"

typedef enum {
    QB_PLACEMENT_DEVICE, /* all weights fit beside the work */
    QB_PLACEMENT_SPLIT,  /* with --offload: the last blocks in host memory */
    QB_PLACEMENT_BLOCKS, /* one block at a time: perplexity and quantizing only */
} qb_placement_kind;

typedef struct qb_placement {
    qb_placement_kind kind;
    qb_offload_plan plan; /* of the device's memory; kind DEVICE has all blocks there */
    char reason[240];     /* what it takes and what there is, for a row that is skipped */
} qb_placement;

/* For a device that is open; other_bytes: what must fit beside the weights. memory_bytes: a budget, or 0. On
   the host there is no split: its memory is the device's. Fails when what memory there is cannot be read. */
qb_status qb_placement_make(const qb_model *m, qb_device *dev, int64_t other_bytes, int64_t memory_bytes,
                            bool offload, qb_placement *out) QB_NODISCARD;

/* Bytes a second from host memory to the device, measured with copies of 32 MiB. */
qb_status qb_bus_rate(qb_device *dev, double *bytes_per_s) QB_NODISCARD;

/* "5.10 GB on the device, 1.20 GB in host memory, 1.20 GB over the bus a token, about 0.05 s a token": bus
   and ceilings may be NULL. */
void qb_placement_describe(const qb_placement *p, const double *bus_bytes_per_s, const qb_ceilings *ceilings,
                           qb_str *out);
qb_json *qb_placement_json(const qb_placement *p, const double *bus_bytes_per_s, const qb_ceilings *ceilings);
