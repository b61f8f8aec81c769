/* Models larger than their device: as many blocks as fit stay there, the rest lies in host memory that the
   device reads over its bus while it computes. */
#pragma once

#include "model/model.h"

typedef struct qb_offload_plan {
    int64_t device_blocks; /* the first ones */
    int64_t device_bytes;  /* weights on the device: ends and those blocks */
    int64_t host_bytes;    /* weights in host memory */
    int64_t bus_bytes;     /* over the bus for each decoded token, or pass of a batch: host_bytes */
} qb_offload_plan;

/* What fits into `available_bytes` of device memory beside `other_bytes` of caches and activations. Fails
   with QB_ERR_MEMORY and the sizes when even embeddings, head and the rest do not. m need not be loaded. */
qb_status qb_offload_plan_make(const qb_model *m, int64_t available_bytes, int64_t other_bytes,
                               qb_offload_plan *out) QB_NODISCARD;
/* Lets qb_model_load (resident) place the blocks as planned. Before loading only. */
void qb_model_offload(qb_model *m, const qb_offload_plan *plan);
/* Blocks of a loaded model that lie in host memory, and their bytes. */
int64_t qb_model_host_blocks(const qb_model *m);
int64_t qb_model_host_bytes(const qb_model *m);
/* What a token embedding that is packed in the checkpoint takes more, before loading, on a device that looks
   rows up in dense tables alone: there it becomes float32. 0 for others, and once loaded. */
int64_t qb_model_wide_table_bytes(const qb_model *m);
