/* A GGUF file as a checkpoint: what its architecture's tensors and metadata are called by the family that
   computes them. Private to checkpoint/. */
#pragma once

#include "checkpoint/gguf/gguf.h"
#include "checkpoint/state.h"

enum { QB_GGUF_PIECES_MAX = 3 };

/* What "attention.sliding_window" means where it is not there. */
typedef enum {
    QB_GGUF_WINDOW_UNREAD,  /* refused where it is there: the class has none */
    QB_GGUF_WINDOW_NONE,    /* absent: no window */
    QB_GGUF_WINDOW_LISTED,  /* absent: no window, and the class wants its layers listed as full */
    QB_GGUF_WINDOW_CLASS,   /* absent: the class's own */
    QB_GGUF_WINDOW_REQUIRED /* absent: an error */
} qb_gguf_window;

/* How rows of attn_qkv stand in the class's tensor; in the file they are q | k | v of all heads. */
typedef enum {
    QB_GGUF_QKV_SAME,
    QB_GGUF_QKV_BY_HEAD,   /* q | k | v of each head */
    QB_GGUF_QKV_BY_KV_HEAD /* of each key head: its queries, its key, its value */
} qb_gguf_qkv;

/* How the class weighs experts, which "expert_gating_func" has to say where it is there. Source: llama.cpp's
   llama_expert_gating_func_type. */
typedef enum {
    QB_GGUF_GATING_NONE,
    QB_GGUF_GATING_SOFTMAX = 1,
    QB_GGUF_GATING_TOPK = 3, /* softmax of the chosen ones */
    QB_GGUF_GATING_CLASS,    /* a way of its own, for which there is no number */
} qb_gguf_gating;

/* How the rows of a tensor of the class come from those of the file's tensors. */
typedef enum {
    QB_GGUF_SAME_ORDER,        /* each behind the one before it, for every matrix of a stack */
    QB_GGUF_ALTERNATE,         /* one of each in turn */
    QB_GGUF_QUERIES_KEYS,      /* each behind the one before it; q's and k's rotary pairs are put back */
    QB_GGUF_BY_KEY_HEAD,       /* q | k | v and z -> of each key head q, k, its values, its z */
    QB_GGUF_KEYS_AND_VALUES,   /* of each head the columns of the first, the rows of the second */
    QB_GGUF_TURNS,             /* value heads: file (turn, key head), class (key head, turn) */
    QB_GGUF_TURNS_OF_ONE,      /* the same, one row a head */
    QB_GGUF_TURNS_BEHIND_KEYS, /* the same behind q and k, which stay */
    QB_GGUF_TURNS_OF_COLUMNS,  /* the same of columns */
} qb_gguf_order;

/* A tensor of the class that is made: names with suffixes, %e: one tensor for each expert. */
typedef struct qb_gguf_made {
    const char *from[QB_GGUF_PIECES_MAX], *to;
    qb_gguf_order order;
    bool log_of_negative; /* the file holds -exp(value) */
    bool depthwise;       /* a convolution's taps: the class has [channels, 1, taps] */
} qb_gguf_made;

typedef struct qb_gguf_name {
    const char *from, *to; /* without ".weight" and ".bias" */
} qb_gguf_name;

/* Metadata that the class has a key for: numbers, truth values. */
typedef struct qb_gguf_copied {
    const char *from, *to; /* to: "key", or "object.key" */
    bool required;
    bool zero_is_none;
    bool whole; /* the class takes a whole number, whatever the file has */
} qb_gguf_copied;

/* A key that a tensor answers. */
typedef struct qb_gguf_flag {
    const char *tensor, *to;
    bool absent; /* true where the tensor is not there */
} qb_gguf_flag;

/* Metadata, whole keys: a float for each layer, or one for all, which the class has as a tensor inside. */
typedef struct qb_gguf_per_layer {
    const char *key, *to;
    bool scalar; /* of no dimension */
} qb_gguf_per_layer;

/* One row of gguf_architectures.def. Lists end with a NULL, or are NULL; as arrays of the row they would be
   pages of pointers that every start of the program has to relocate. */
typedef struct qb_gguf_architecture {
    const char *name;   /* general.architecture */
    const char *family; /* config.json's architecture */
    /* Of the rows of one name the first counts whose condition holds: metadata below the architecture (a
       number: if_value, which 0 makes above 0), a tensor, so many rows of the embedding. NULL, 0: no
       condition. */
    const char *if_key, *if_tensor;
    int64_t if_value, if_vocabulary;
    /* Query and key rows stand so that rotary pairs are neighbours (2 i, 2 i + 1) in each head; our families
       turn pairs (i, i + half), so the rows are put back when they are read. */
    bool interleaved;
    qb_gguf_qkv qkv;
    bool transposed;        /* the class has the matrices of its layers as [in, out] */
    bool fixed_biases;      /* the class reads neither attention_bias nor mlp_bias */
    bool norms_include_one; /* the converter added the one that the class adds to norm weights */
    bool own_head_dim;      /* the class has a head_dim that is not hidden / heads where no key says so */
    bool no_rope;           /* the class turns nothing */
    bool rope_stated;       /* the class wants it said where nothing is scaled */
    bool rope_by_kind;      /* sliding layers may have a theta of their own, and are not scaled */
    const char *partial; /* the class may turn a part of each head, and this is its key for it; NULL: whole */
    const char *context_key;    /* the class's key for context_length; NULL: max_position_embeddings */
    const char *activation;     /* NULL: silu */
    const char *activation_key; /* NULL: hidden_act */
    const char
        *layer_norm_eps; /* the class's key for a LayerNorm's eps; "": fixed at 1e-5; NULL: RMS norms */
    qb_gguf_window window;
    int64_t scale_by_hidden; /* models of so many layers divide scores by the root of hidden / heads, others
                                of the head's width (query_pre_attn_scalar); 0: no such key */
    const char *scale_key;   /* the class's key for attention.scale; absent or 0: 1 / sqrt(head's width) */
    const char *note;        /* warned of: what the class computes and no metadata says */
    const char *constants;   /* JSON: what the class asks for and no metadata says */
    qb_gguf_gating gating;   /* of a mixture of experts */
    bool latent;             /* attention's sizes are those of latent attention (DeepSeek) */
    bool linear_attention;   /* ssm.* are the sizes of the gated delta rule (Qwen3-Next) */
    bool longrope_mscales;   /* the class has the attention factor as short_mscale and long_mscale */
    bool yarn_untruncated;   /* yarn's bounds are not rounded */
    const qb_gguf_copied *copied;
    const qb_gguf_flag *flags;
    const qb_gguf_name *outside, *inside; /* inside: of "blk.N."; to may have %h: one tensor for each row of
                                             the file's */
    const qb_gguf_made *made;             /* inside */
    const qb_gguf_per_layer *per_layer;
    const char *layer;          /* what stands for "blk." */
    const char *const *ignored; /* outside or inside: follow from the metadata */
} qb_gguf_architecture;

/* By general.architecture; an unknown one is refused by name. */
qb_status qb_gguf_architecture_of(const qb_gguf *g, const qb_gguf_architecture **out) QB_NODISCARD;
/* The family's name of a tensor, into buffer; "" for one that is ignored. A tensor that the architecture has
   no place for fails: what it does would be left out. */
qb_status qb_gguf_tensor_name(const qb_gguf *g, const qb_gguf_architecture *a, const char *name,
                              char out[QB_TENSOR_NAME_MAX]) QB_NODISCARD;
const qb_gguf_tensor *qb_gguf_find_tensor(const qb_gguf *g, const char *name); /* NULL when absent */
/* Whether metadata ARCHITECTURE.below is there and, if a number, above 0. */
bool qb_gguf_says(const qb_gguf *g, const char *architecture, const char *below);

/* What config.json would say, from the metadata and the tensors' shapes. Free with qb_json_free. */
qb_status qb_gguf_config(const qb_gguf *g, const qb_gguf_architecture *a, qb_json **out) QB_NODISCARD;

/* ---- its parts ---- */

typedef struct qb_gguf_builder {
    const qb_gguf *g;
    const qb_gguf_architecture *a;
    char key[128]; /* the last one asked for */
    qb_json *out;
} qb_gguf_builder;

/* "ARCHITECTURE.below", until the next call. */
const char *qb_gguf_key(qb_gguf_builder *b, const char *below);
/* rope_theta, rope_scaling, partial_rotary_factor. */
qb_status qb_gguf_add_rope(qb_gguf_builder *b, int64_t head_width) QB_NODISCARD;
/* sliding_window and layer_types. */
qb_status qb_gguf_add_window(qb_gguf_builder *b) QB_NODISCARD;
/* What kinds of blocks say: sizes of latent and of linear attention, kinds of layers, how experts weigh. */
qb_status qb_gguf_add_latent(qb_gguf_builder *b, int64_t *rope_width) QB_NODISCARD;
qb_status qb_gguf_add_blocks(qb_gguf_builder *b) QB_NODISCARD;
bool qb_gguf_blocks_read(const qb_gguf_architecture *a, const char *below);
/* Metadata that changes the computation and that this row does not read is refused by name. */
qb_status qb_gguf_refuse_unread(qb_gguf_builder *b) QB_NODISCARD;
/* Behind all reading: warns of the architecture's metadata that nobody looked for, unless it is known to
   change nothing. */
void qb_gguf_warn_unread(const qb_gguf *g, const qb_gguf_architecture *a);

/* Maps and parses the file, and the further parts of a split model, into ck->shards and ck->gguf: the
   metadata of the first part, the tensors of all. */
qb_status qb_gguf_read_parts(qb_checkpoint *ck, const char *path) QB_NODISCARD;

/* ---- tensors ---- */

/* What a tensor's `source` points to. */
typedef struct qb_gguf_source {
    const qb_ggml_type *type;
    int64_t heads, head_rows;      /* heads whose rows are put back; 0: none */
    int64_t groups, group_rows[3]; /* groups of q | k | v rows that stand apart in the file; 0: none */
} qb_gguf_source;
/* The row of the file that holds row `row` of the tensor; ctx is a qb_gguf_source. */
int64_t qb_gguf_row(const void *ctx, int64_t row);
/* Adds what the class has in place of one tensor of the file. */
qb_status qb_gguf_add_tensor(qb_checkpoint *ck, const qb_gguf_architecture *a,
                             const qb_gguf_tensor *from) QB_NODISCARD;
/* Adds the tensors that lie in the metadata (per_layer). */
qb_status qb_gguf_add_per_layer(qb_checkpoint *ck, const qb_gguf_architecture *a) QB_NODISCARD;
/* Adds what the class has in place of tensors of the file that are no tensors of it (qb_gguf_made); whether
   a tensor of the file goes into one. */
qb_status qb_gguf_add_made(qb_checkpoint *ck, const qb_gguf_architecture *a) QB_NODISCARD;
bool qb_gguf_is_for_made(const qb_gguf_architecture *a, const char *below);
