/* Checkpoints: files <-> tensors. A checkpoint is a Hugging Face directory (config.json with
   model.safetensors or a sharded index) or a GGUF file, mapped and never copied whole, or a synthetic one
   whose tensors are generated when asked for. */
#pragma once

#include "base/hash.h"
#include "base/json.h"
#include "base/threads.h"
#include "kernels/qweight.h"

enum { QB_MAX_DIMS = 8 };

typedef struct qb_tensor {
    const char *name;
    /* F64 and F8_E4M3 (times its scales) are read as F32. QB_DTYPE_COUNT: a type of the format that is listed
       but not read (F8_E5M2, U32, ..) */
    qb_dtype dtype;
    int n_dims;
    int64_t shape[QB_MAX_DIMS];
    int64_t bytes;
    /* Mapped bytes; NULL until acquired for synthetic tensors. Use qb_checkpoint_acquire. */
    const void *data;
    uint32_t index; /* position in the checkpoint */
} qb_tensor;

typedef struct qb_checkpoint qb_checkpoint;

/* A directory: opens DIR/model.safetensors, else the shards of DIR/model.safetensors.index.json or of the one
   other index there is, else the one *.safetensors file there is, else the one *.gguf file; a GGUF file:
   opens that; a folder of the hub's cache: its snapshot. Every header is validated before anything is used:
   offsets, overlaps, holes, overflow, dtypes, shape products, file length, duplicates. An index says which
   files there are; what it lists and no shard has, or what two shards have, is an error of whoever needs that
   tensor. qb_checkpoint_config is config.json, or what GGUF metadata says in its words; GGUF tensors are
   found under the names of a Hugging Face directory, their shapes outermost first. */
qb_status qb_checkpoint_open(const char *path, qb_checkpoint **out) QB_NODISCARD;
/* The directory of an adapter: its config is adapter_config.json, its tensors are those of
   adapter_model.safetensors, else of adapter_model.bin, by their own names. */
qb_status qb_checkpoint_open_adapter(const char *path, qb_checkpoint **out) QB_NODISCARD;
/* A checkpoint of random float16 weights: `specs` name and shape the tensors, values are a function of (seed,
   name) alone, roughly normal with the given standard deviation (1-D tensors: ones). config is copied. */
typedef struct qb_tensor_spec {
    char name[96];
    int n_dims;
    int64_t shape[3];
    float stddev;
} qb_tensor_spec;
qb_status qb_checkpoint_synthetic(const qb_json *config, const qb_tensor_spec *specs, size_t n, uint64_t seed,
                                  qb_checkpoint **out) QB_NODISCARD;
void qb_checkpoint_close(qb_checkpoint *ck);
/* Lends threads to whatever makes or unpacks values from now on; NULL ends it. What is asked of the
   checkpoint must meanwhile come from the one thread that runs loops on them. */
void qb_checkpoint_use_threads(qb_checkpoint *ck, qb_threads *threads);

const qb_json *qb_checkpoint_config(const qb_checkpoint *ck);     /* config.json, never NULL */
const char *qb_checkpoint_config_source(const qb_checkpoint *ck); /* the file it was read from, for errors */
const char *qb_checkpoint_dir(const qb_checkpoint *ck); /* as opened, or the snapshot in a folder of the
   hub's cache; "synthetic" for a synthetic one */
/* The GGUF file (checkpoint/gguf/gguf.h) behind the checkpoint, with its metadata; NULL for others. */
const struct qb_gguf *qb_checkpoint_gguf(const qb_checkpoint *ck);
/* The GGUF file that a path means: the path itself when it is no directory, the one .gguf file of a directory
   without other weights; of a model split into parts (NAME-00002-of-00003.gguf) the first. *out stays NULL
   for other directories; several models are an error. Free *out with qb_free. */
qb_status qb_checkpoint_find_gguf(const char *path, char **out) QB_NODISCARD;
bool qb_checkpoint_is_synthetic(const qb_checkpoint *ck);
size_t qb_checkpoint_count(const qb_checkpoint *ck);
const qb_tensor *qb_checkpoint_at(const qb_checkpoint *ck, size_t index);
const qb_tensor *qb_checkpoint_find(const qb_checkpoint *ck, const char *name); /* NULL when absent */
/* Brings the tensors under the family's names, whichever its files use: `embed` and `head` are its modules,
   `layer` a pattern with %d ("model.layers.%d.input_layernorm"). Files may lack the base model's prefix, or
   parts of it ("decoder." for "model.decoder."); with `tied`, a head without an embedding becomes the
   embedding. Before anything else looks for tensors. */
qb_status qb_checkpoint_adopt_names(qb_checkpoint *ck, const char *embed, const char *layer, const char *head,
                                    bool tied) QB_NODISCARD;
/* Puts tensors of their own in the place of dense stacks, [n, ..]: matrix i under the pattern with i for %e,
   as [out, in], or the halves of its rows under two patterns; the rows of a stack of vectors as vectors.
   Stacks in a form that allows no view (made, widened) must not be among them: qb_checkpoint_can_split.
   Pointers to tensors end. */
typedef struct qb_stack {
    const char *name, *pattern[2]; /* the second NULL: no halves */
    int64_t n;
    bool transposed; /* its matrices lie as [in, out] */
} qb_stack;
bool qb_checkpoint_can_split(const qb_checkpoint *ck, const char *stack);
qb_status qb_checkpoint_split(qb_checkpoint *ck, const qb_stack *stacks, size_t n) QB_NODISCARD;
/* Like find, but absence is an error naming the checkpoint, the tensor and the nearest name. */
qb_status qb_checkpoint_need(const qb_checkpoint *ck, const char *name, const qb_tensor **out) QB_NODISCARD;
/* The element type as the file spells it ("BF16", "F8_E4M3", "Q4_K"); for bytes that stand for a packed
   type, tensor->dtype is U8 or QB_DTYPE_COUNT. */
const char *qb_checkpoint_dtype_name(const qb_checkpoint *ck, const qb_tensor *t);
int64_t qb_checkpoint_tensor_bytes(const qb_checkpoint *ck); /* sum over tensors, as the files hold them */
/* About what a tensor takes once it is loaded: its bytes, but for blocks that are packed otherwise in memory
   (GGUF's of 5 and 6 bits as 8 bits, K types with float32 scales, as GPUs have them; the CPU's take less).
   For plans. */
int64_t qb_checkpoint_loaded_bytes(const qb_checkpoint *ck, const qb_tensor *t);
/* Base name and size of weight file `index`; NULL behind the last and for a synthetic one. */
const char *qb_checkpoint_file(const qb_checkpoint *ck, size_t index, int64_t *bytes);
/* One identity for the weights: SHA-256 over, for each weight file in the order of names, its name, a NUL,
   the 64 hex digits of its SHA-256 and a NUL; of the seed and specs if synthetic. Reads everything and keeps
   nothing, so call once. */
qb_status qb_checkpoint_sha256(const qb_checkpoint *ck, char hex[QB_SHA256_HEX]) QB_NODISCARD;

/* Bytes of a tensor, aligned for its dtype: the mapping, or a copy where the file is not aligned, or
   generated values. Each acquire pairs with a release; the last release lets mapped pages go (they are read
   again when touched) or frees the copy. Thread-safe. */
qb_status qb_checkpoint_acquire(qb_checkpoint *ck, const qb_tensor *t, const void **out) QB_NODISCARD;
void qb_checkpoint_release(qb_checkpoint *ck, const qb_tensor *t);
/* Whether acquire gives the mapping itself. */
bool qb_checkpoint_is_mapped(const qb_checkpoint *ck, const qb_tensor *t);
/* Its bytes at .. at+n-1 were read once and are not read again soon: lets these pages of the mapping go where
   the caller is the only one that holds the tensor, so that a walk over it needs little memory. */
void qb_checkpoint_pass(qb_checkpoint *ck, const qb_tensor *t, int64_t at, int64_t n);
/* Asks the system to begin reading a tensor's part of its file; does not wait, and nothing depends on it. */
void qb_checkpoint_prefetch(qb_checkpoint *ck, const qb_tensor *t);

/* The weight of linear module `module` ("model.layers.0.self_attn.q_proj"), [rows, cols] as the config wants
   it: a dense view of MODULE.weight, or the quantized form in whatever layout the checkpoint has, checked
   (shapes, codes, g_idx range, finite scales). Free with qb_checkpoint_free_linear. */
qb_status qb_checkpoint_linear(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols,
                               qb_weight *out) QB_NODISCARD;
/* The part of a tensor that one linear module is. Row r of the module is the tensor's row
   first_row + r / run * stride + r % run (run 0: first_row + r); {0} is the whole of a plain tensor. So
     rows of a fused one           {.tensor_rows = 3 * D, .first_row = D}
     rows interleaved by head      {.tensor_rows = 3 * D, .first_row = Dh, .run = Dh, .stride = 3 * Dh}
     every other row (gpt-oss)     {.tensor_rows = 2 * F, .first_row = 1, .run = 1, .stride = 2}
     one matrix of stacked experts {.matrices = E, .index = e}
     GPT-2's Conv1D, [in, out]     {.transposed = true} */
typedef struct qb_slice {
    int64_t tensor_rows; /* output rows of the tensor (of one matrix of a stack); 0: the module's */
    int64_t first_row, run, stride;
    int64_t matrices, index; /* [matrices, ..]: a stack, of which matrix `index`; 0 matrices: no stack */
    bool transposed;         /* a dense tensor lies as [in, out]; quantized ones never do */
} qb_slice;
/* The tensor's row of row `row` of the module, within its matrix. */
int64_t qb_slice_row(const qb_slice *slice, int64_t row);
/* Like qb_checkpoint_linear, of a part of MODULE.weight, or of a tensor of just the module's name (stacked
   experts have no suffix). Contiguous dense rows are a view; other dense parts are copied. Quantized rows are
   cut out of what the layout reads. */
qb_status qb_checkpoint_linear_slice(qb_checkpoint *ck, const char *module, const qb_slice *slice,
                                     int64_t rows, int64_t cols, qb_weight *out) QB_NODISCARD;
/* The same for who reads a quantized weight by rows: its codes may be left in the file, and factors not
   multiplied (qb_qweight_rows, qb_qweight_fill_values). slice may be NULL. */
qb_status qb_checkpoint_linear_view(qb_checkpoint *ck, const char *module, const qb_slice *slice,
                                    int64_t rows, int64_t cols, qb_weight *out) QB_NODISCARD;
/* Makes of such a view what qb_checkpoint_linear gives. */
qb_status qb_checkpoint_complete(qb_checkpoint *ck, qb_weight *w) QB_NODISCARD;
/* The same rows of a bias: a 1-D tensor of tensor_rows, or [matrices, tensor_rows], as float32 [rows] in new
   memory (qb_free). `name` is the whole name. */
qb_status qb_checkpoint_read_f32_slice(qb_checkpoint *ck, const char *name, const qb_slice *slice,
                                       int64_t rows, float **out) QB_NODISCARD;
void qb_checkpoint_free_linear(qb_checkpoint *ck, const char *module, qb_weight *w);
/* Fails with QB_ERR_NUMERIC naming tensor and element when a NaN or an infinity is in it; integers pass. */
qb_status qb_checkpoint_check_finite(qb_checkpoint *ck, const qb_tensor *t) QB_NODISCARD;
/* Fails unless the tensor is there, as F32, F16 or BF16 of this shape; shape1 = 0 for 1-D, and
   [shape0, 1, shape1] is as good as 2-D. Reads no values. */
qb_status qb_checkpoint_need_floats(const qb_checkpoint *ck, const char *name, int64_t shape0,
                                    int64_t shape1) QB_NODISCARD;
/* A 1-D or 2-D tensor as float32 in new memory (qb_free). shape1 = 0 for 1-D. */
qb_status qb_checkpoint_read_f32(qb_checkpoint *ck, const char *name, int64_t shape0, int64_t shape1,
                                 float **out) QB_NODISCARD;

/* How the checkpoint says it is quantized: from config.json's quantization_config, else quantize_config.json.
 */
typedef struct qb_quantization {
    char method[24]; /* "gptq", "bitsandbytes", GGUF's mixture ("q4_k_m"); "" when not quantized */
    char layout[24]; /* registry name in layouts.def: "gptq", "gptq_v2", "bnb4", "gguf", .., "awq", .. */
    int bits;
    int64_t group_size;      /* -1: one group a row */
    bool group_size_missing; /* gptq: taken as -1 */
    bool symmetric, desc_act, static_groups;
    bool zeros_by_word; /* gptq: the writer took one from whole words of zeros, so that borrows crossed fields
                         */
    char codebook[8];   /* "nf4", "fp4" */
    bool double_quant;
} qb_quantization;
/* Whether a rule for single modules (GPTQModel's "dynamic", auto-round's "extra_config") leaves this one
 * dense. */
bool qb_checkpoint_ruled_dense(const qb_checkpoint *ck, const char *module);
const qb_quantization *qb_checkpoint_quantization(const qb_checkpoint *ck);
