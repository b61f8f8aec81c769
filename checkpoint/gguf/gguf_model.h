/* A GGUF file as a checkpoint: what its architecture's tensors and metadata are called by the family that
   computes them. Private to checkpoint/. */
#pragma once

#include "checkpoint/gguf/gguf.h"
#include "checkpoint/state.h"

enum { QB_GGUF_NAMES_MAX = 16 };

/* One row of gguf_architectures.def. Names are without ".weight" and ".bias"; lists end with a NULL. */
typedef struct qb_gguf_architecture {
    const char *name;   /* general.architecture */
    const char *family; /* config.json's architecture */
    /* Query and key rows stand so that rotary pairs are neighbours (2 i, 2 i + 1) in each head; our families
       turn pairs (i, i + half), so the rows are put back when they are read. */
    bool interleaved;
    bool fixed_attention_bias; /* the class has its biases without a key attention_bias */
    bool norms_include_one;    /* the converter added the one that the class adds to norm weights */
    const char *activation;    /* hidden_act; NULL: silu */
    struct {
        const char *from, *to;
        bool required;
    } reals[QB_GGUF_NAMES_MAX]; /* metadata that the class has a key for */
    struct {
        const char *from, *to;
    } outside[QB_GGUF_NAMES_MAX], inside[QB_GGUF_NAMES_MAX]; /* inside: of "blk.N." */
    const char *layer;                                       /* what stands for "blk." */
    const char *ignored[QB_GGUF_NAMES_MAX];                  /* outside or inside: follow from the metadata */
} qb_gguf_architecture;

/* By general.architecture; an unknown one is refused by name. */
qb_status qb_gguf_architecture_of(const qb_gguf *g, const qb_gguf_architecture **out) QB_NODISCARD;
/* The family's name of a tensor, into buffer; "" for one that is ignored. A tensor that the architecture has
   no place for fails: what it does would be left out. */
qb_status qb_gguf_tensor_name(const qb_gguf *g, const qb_gguf_architecture *a, const char *name,
                              char out[QB_TENSOR_NAME_MAX]) QB_NODISCARD;
/* What config.json would say, from the metadata and the tensors' shapes. Free with qb_json_free. */
qb_status qb_gguf_config(const qb_gguf *g, const qb_gguf_architecture *a, qb_json **out) QB_NODISCARD;

/* Maps and parses the file, and the further parts of a split model, into ck->shards and ck->gguf: the
   metadata of the first part, the tensors of all. */
qb_status qb_gguf_read_parts(qb_checkpoint *ck, const char *path) QB_NODISCARD;

/* What a tensor's `source` points to. */
typedef struct qb_gguf_source {
    const qb_ggml_type *type;
    int64_t heads, head_rows; /* heads whose rows are put back; 0: none */
} qb_gguf_source;
/* The row of the file that holds row `row` of the tensor; ctx is a qb_gguf_source. */
int64_t qb_gguf_row(const void *ctx, int64_t row);
