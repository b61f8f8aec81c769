/* What a checkpoint is made of, and the checked look-ups that the layouts share. Private to checkpoint/. */
#pragma once

#include "base/file.h"
#include "checkpoint/names.h"
#include "checkpoint/safetensors.h"

#include <pthread.h>

typedef struct qb_tensor_state {
    qb_tensor tensor;
    const char *dtype_name;
    const void *mapped; /* in a shard's mapping; NULL for synthetic tensors */
    void *
        owned; /* generated, or copied because the mapping is not aligned for the dtype; NULL when released */
    uint32_t holders; /* acquired and not yet released */
    bool filling;     /* another thread is making `owned` */
    float stddev;     /* synthetic */
} qb_tensor_state;

typedef struct qb_shard {
    const char *file_name, *path;
    qb_map map;
} qb_shard;

struct qb_checkpoint {
    qb_arena arena;
    const char *dir;
    qb_json *config;
    qb_quantization quantization;
    const char *quantization_source; /* the file that the quantization was read from, for errors */
    qb_shard *shards;
    size_t n_shards;
    qb_tensor_state *tensors;
    size_t n_tensors;
    qb_names names;
    bool synthetic;
    uint64_t seed;
    pthread_mutex_t lock; /* holders, filling, owned, tensor.data, warned */
    pthread_cond_t filled;
    unsigned warned; /* bits of qb_checkpoint_warning */
};

/* Things that hold for a whole file are told once, not once a module. */
typedef enum {
    QB_WARNING_ZERO_CONVENTION = 1,
    QB_WARNING_CORRUPT_ZEROS = 2,
} qb_checkpoint_warning;
bool qb_checkpoint_first_warning(qb_checkpoint *ck, qb_checkpoint_warning which);

/* Fills config.json's quantization_config, or that of a file beside it, into ck->quantization. */
qb_status qb_quantization_read(qb_checkpoint *ck) QB_NODISCARD;

/* Generates a synthetic tensor into new memory. */
qb_status qb_synthetic_fill(const qb_checkpoint *ck, const qb_tensor_state *t, void **out) QB_NODISCARD;

/* "MODULE.SUFFIX" into name; fails when it is too long. */
enum { QB_TENSOR_NAME_MAX = 512 };
qb_status qb_module_tensor_name(const char *module, const char *suffix,
                                char name[QB_TENSOR_NAME_MAX]) QB_NODISCARD;
/* The tensor of that name; absence is the error of qb_checkpoint_need. */
qb_status qb_module_tensor(const qb_checkpoint *ck, const char *module, const char *suffix,
                           const qb_tensor **out) QB_NODISCARD;
const qb_tensor *qb_module_tensor_find(const qb_checkpoint *ck, const char *module, const char *suffix);
/* Fails with "expected DTYPE SHAPE, found ..." unless the tensor is just that. */
qb_status qb_tensor_expect(const qb_checkpoint *ck, const qb_tensor *t, qb_dtype dtype, int n_dims,
                           const int64_t *shape) QB_NODISCARD;
/* "F16 [4096, 4096]" into and from buffer. */
const char *qb_tensor_describe(const qb_checkpoint *ck, const qb_tensor *t, char buffer[160]);
