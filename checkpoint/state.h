/* What a checkpoint is made of, and the checked look-ups that the layouts share. Private to checkpoint/. */
#pragma once

#include "base/file.h"
#include "checkpoint/module_rules.h"
#include "checkpoint/names.h"
#include "checkpoint/safetensors.h"

#include <pthread.h>

/* How a file holds elements that are float32 here (checkpoint/widen.c). */
typedef enum { QB_STORED_AS_IS, QB_STORED_F64, QB_STORED_E4M3 } qb_stored;

typedef struct qb_tensor_state {
    qb_tensor tensor;
    const char *dtype_name;
    qb_stored stored;
    int64_t stored_bytes; /* in the file, of which tensor.bytes are made */
    const void *mapped;   /* in a shard's mapping; NULL for synthetic tensors */
    /* Makes the bytes when they are acquired, for tensors that no file holds as they are wanted: writes
       stored_bytes to `out`. NULL: the mapping, or a copy where that is not aligned for the dtype. */
    qb_status (*fill)(const qb_checkpoint *ck, const struct qb_tensor_state *t, void *out);
    const void *source;  /* what `fill` and the layouts need to know; lives as long as the checkpoint */
    uint32_t shard;      /* which file holds it */
    const char *also_in; /* a second file that holds a tensor of that name: an error once it is needed */
    void *owned;         /* filled or copied; NULL when released */
    uint32_t holders;    /* acquired and not yet released */
    bool filling;        /* another thread is making `owned` */
    float stddev;        /* synthetic */
} qb_tensor_state;

typedef struct qb_shard {
    const char *file_name, *path;
    qb_map map;
    struct qb_torch_file *torch; /* a .bin or .pt file, open; NULL for others */
} qb_shard;

struct qb_checkpoint {
    qb_arena arena;
    const char *dir;
    qb_json *config;
    const char *config_source; /* the file that the config was read from, for errors */
    qb_quantization quantization;
    qb_module_rules rules;           /* of modules with options of their own */
    const char *quantization_source; /* the file that the quantization was read from, for errors */
    qb_shard *shards;
    size_t n_shards, shards_capacity;
    qb_tensor_state *tensors;
    size_t n_tensors, tensors_capacity;
    qb_names names;
    qb_names absent;      /* tensors that an index lists and no shard has, to their shards */
    struct qb_gguf *gguf; /* in the arena; NULL for other containers */
    bool synthetic;
    uint64_t seed;
    qb_threads *threads;  /* qb_checkpoint_use_threads */
    pthread_mutex_t lock; /* holders, filling, owned, tensor.data, warned */
    pthread_cond_t filled;
    unsigned warned; /* bits of qb_checkpoint_warning */
};

/* Things that hold for a whole file are told once, not once a module. */
typedef enum {
    QB_WARNING_ZERO_CONVENTION = 1,
    QB_WARNING_CORRUPT_ZEROS = 2,
    QB_WARNING_ZERO_GROUPS = 4,
    QB_WARNING_WIDENED = 8,
} qb_checkpoint_warning;
bool qb_checkpoint_first_warning(qb_checkpoint *ck, qb_checkpoint_warning which);

/* Fills config.json's quantization_config, or that of a file beside it, into ck->quantization. */
qb_status qb_quantization_read(qb_checkpoint *ck) QB_NODISCARD;

/* Makes a tensor of F64 or E4M3 elements one of float32 by name, size and dtype; others stay. */
void qb_tensor_prepare_widening(qb_tensor_state *t);
/* Its values from the bytes of the file: doubles rounded, E4M3 times the scales beside the tensor
   (NAME_scale_inv or NAME_scale: one, one a row, or one a block of weight_block_size). */
qb_status qb_tensor_widen(const qb_checkpoint *ck, const qb_tensor_state *t, const void *raw,
                          float *out) QB_NODISCARD;
float qb_f32_of_e4m3(uint8_t b);
/* Where the config names a method of quantization: every matrix of E4M3 codes has its scales, in a form that
 * is read. */
qb_status qb_checkpoint_check_scales(const qb_checkpoint *ck) QB_NODISCARD;

/* The quantization of one module, which may have options of its own. */
qb_quantization qb_module_quantization(const qb_checkpoint *ck, const char *module);

/* Finds, maps and validates the files of ck->dir and adds their tensors: safetensors, else files of
   torch.save. */
qb_status qb_checkpoint_open_files(qb_checkpoint *ck) QB_NODISCARD;
qb_status qb_checkpoint_open_adapter_files(qb_checkpoint *ck) QB_NODISCARD;
/* Opens the file of torch.save that `shard` maps and adds its tensors. */
qb_status qb_checkpoint_add_torch(qb_checkpoint *ck, qb_shard *shard) QB_NODISCARD;
/* Fills the config and the quantization too: the file holds both. */
qb_status qb_checkpoint_open_gguf(qb_checkpoint *ck, const char *path) QB_NODISCARD;
/* Fails when bytes are those of a compressed file. */
qb_status qb_checkpoint_check_magic(const char *path, const uint8_t *bytes, size_t size) QB_NODISCARD;
/* The directory that a path means: a snapshot of the hub's cache (models--ORG--NAME), else the path. Free
 *out with qb_free. */
qb_status qb_checkpoint_resolve(const char *path, char **out) QB_NODISCARD;
/* Fails with what a directory is that holds no model (an adapter, the authors' own layout, a folder of
   models); QB_OK when it looks like nothing known. */
qb_status qb_checkpoint_explain(const char *dir) QB_NODISCARD;
/* Fails with what a directory without adapter_config.json is, where an adapter was wanted. */
qb_status qb_checkpoint_explain_no_adapter(const char *dir) QB_NODISCARD;
/* Takes the wrapper of a multimodal model off a tensor's name; *ignored for what nobody needs: its other
   towers, buffers that old programs saved. */
qb_status qb_checkpoint_own_name(qb_checkpoint *ck, qb_tensor *t, bool *ignored) QB_NODISCARD;
/* The table of names anew, after some have changed. */
qb_status qb_checkpoint_index_names(qb_checkpoint *ck) QB_NODISCARD;
/* Adds a file that holds weights, not yet mapped, and a tensor of one: `tensor` says all but its index and
   tensor.data. A name that is there already becomes an error when it is needed. */
qb_status qb_checkpoint_add_shard(qb_checkpoint *ck, const char *path) QB_NODISCARD;
qb_status qb_checkpoint_add_tensor(qb_checkpoint *ck, const qb_shard *shard,
                                   const qb_tensor_state *tensor) QB_NODISCARD;

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
/* The same for F32, F16 or BF16, whichever it is. */
qb_status qb_tensor_expect_float(const qb_checkpoint *ck, const qb_tensor *t, int n_dims,
                                 const int64_t *shape) QB_NODISCARD;
/* "F16 [4096, 4096]" into and from buffer. */
const char *qb_tensor_describe(const qb_checkpoint *ck, const qb_tensor *t, char buffer[160]);
