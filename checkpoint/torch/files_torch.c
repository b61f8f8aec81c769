/* Tensors of a checkpoint that lie in files of torch.save. */
#include "checkpoint/state.h"
#include "checkpoint/torch/torch_file.h"

#include <string.h>

/* The archive is read through the mapping, whose pages are not needed again. */
static qb_status fill_from_torch(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) {
    const qb_shard *shard = &ck->shards[t->shard];
    qb_status st = qb_torch_file_read(shard->torch, t->source, out);
    qb_map_release(shard->map.bytes, shard->map.size);
    return st;
}

qb_status qb_checkpoint_add_torch(qb_checkpoint *ck, qb_shard *shard) {
    qb_status st = qb_torch_file_open(shard->map.bytes, shard->map.size, shard->path, &shard->torch);
    for (size_t i = 0; st == QB_OK && i < qb_torch_file_count(shard->torch); i++) {
        const qb_torch_entry *e = qb_torch_file_at(shard->torch, i);
        const qb_torch_tensor *from = e->tensor;
        qb_tensor_state t = {.dtype_name = qb_dtype_name(from->dtype),
                             .mapped = e->mapped,
                             .fill = e->mapped ? NULL : fill_from_torch,
                             .source = e};
        t.tensor =
            (qb_tensor){.name = e->name, .dtype = from->dtype, .n_dims = from->n_dims, .bytes = from->bytes};
        memcpy(t.tensor.shape, from->shape, sizeof t.tensor.shape);
        st = qb_checkpoint_add_tensor(ck, shard, &t);
    }
    return st;
}
