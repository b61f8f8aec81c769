/* What the globals in PyTorch's pickles mean: storages, tensors as views of them, and what stands around
   them. Private to checkpoint/. Source: torch/_utils.py, torch/serialization.py. */
#pragma once

#include "checkpoint/checkpoint.h"
#include "checkpoint/torch/pickle.h"

typedef struct qb_torch_storage {
    const char *key; /* names the bytes: a member of the archive, or a place in the older files */
    qb_dtype dtype;  /* U8 for untyped storages, whose elements are bytes */
    bool untyped;
    int64_t n_elements;
} qb_torch_storage;

/* A view of a storage, checked to lie within it: its elements in row-major order, or a matrix that lies
   transposed. */
typedef struct qb_torch_tensor {
    const qb_torch_storage *storage;
    qb_dtype dtype;
    int n_dims;
    bool transposed;
    int64_t shape[QB_MAX_DIMS];
    int64_t offset_bytes, bytes;
} qb_torch_tensor;

/* The number of an allowed global; -1 for all others. */
int qb_torch_global(const char *module, const char *name);
/* out = global(*args); `file` heads errors. */
qb_status qb_torch_reduce(int64_t global, qb_pickle_value *args, const char *file, qb_arena *arena,
                          qb_pickle_value *out) QB_NODISCARD;
/* A persistent id: ("storage", class, key, location, n_elements[, view]). */
qb_status qb_torch_persistent(const qb_pickle_value *id, const char *file, qb_arena *arena,
                              qb_pickle_value *out) QB_NODISCARD;
