/* A model: config, what it computes, checkpoint and, block by block or all at once, its weights on a device.
 */
#pragma once

#include "base/windows.h"
#include "model/topology.h"

/* Weights of one list of steps on the device. */
typedef struct qb_block {
    int64_t layer;     /* -1: before the blocks, n_layers: behind them */
    qb_step_weights w; /* steps belong to the topology, arrays to the block */
    qb_weight *source; /* [n_modules] dense views that the matrices read; empty once packed */
} qb_block;

typedef struct qb_model {
    qb_config config;
    qb_topology topology;
    struct qb_owners *owners;  /* which tensor belongs to what (model/owners.h) */
    unsigned oddities;         /* kinds that were warned of, bits by qb_oddity */
    qb_checkpoint *checkpoint; /* owned */
    qb_json *warnings;         /* owned: texts, what opening it warned of; NULL: nothing */
    char name[256];            /* directory's base name, or the synthetic shape's name */
    char path[1024];
    qb_device *dev; /* not owned; NULL until qb_model_load */
    /* on the device after qb_model_load */
    qb_matrix embed;    /* packed where the checkpoint's is and the device looks rows up there, else dense */
    bool head_is_embed; /* a tied head, unless the table is embed_table */
    bool head_differs;  /* the config ties the head, the file holds another one, which is used */
    float *embed_table; /* [V, D] of a packed one for other devices: what embed views; owned */
    qb_weight embed_source;
    float *rope_tables[QB_ROPES_MAX]; /* [rope_capacity][width / 2][2] */
    int64_t rope_capacity;
    qb_block enter, leave;
    qb_block *blocks; /* [n_layers] when resident, else NULL */
    bool resident;
    double load_seconds; /* that qb_model_load took to make a resident model; 0 else */
    int64_t host_blocks; /* of a resident model: so many of the last blocks lie in host memory
                            (model/offload.h) */
    /* The same for backends that compute a whole token: set when resident. */
    qb_decoder decoder;
    const qb_step_weights **block_weights; /* [n_layers] */
} qb_model;

/* Parses config and headers; touches no weights. `spec` is a directory or a GGUF file, or "synthetic:NAME"
   with a NAME of known_models.def, or "synthetic:DIR" whose config.json gives the shapes. Refuses tensors
   under a layer that nothing reads, and layers that the config leaves out. */
qb_status qb_model_open(const char *spec, qb_model **out) QB_NODISCARD;
/* Whether the checkpoint holds every matrix of the lists, so that a measurement need not find out halfway;
   the first that is missing is named. Touches no weights. */
qb_status qb_model_check_whole(const qb_model *m) QB_NODISCARD;
/* After a computation that ended with QB_ERR_NUMERIC: adds to the error which weight holds a NaN or an
   infinity, or that all are finite. Reads every weight. Returns st, whatever it is. */
qb_status qb_model_explain(qb_model *m, qb_status st) QB_NODISCARD;
void qb_model_close(qb_model *m);

/* Every tensor that a checkpoint of this topology holds, for synthetic ones and for checks. *specs is new
   memory (qb_free). */
qb_status qb_model_tensor_specs(const qb_topology *t, qb_tensor_spec **specs, size_t *n) QB_NODISCARD;

/* Loads embeddings, the ends and the rotary tables for `positions` positions; with `resident` all blocks too.
   Every step is asked of the backend first. */
qb_status qb_model_load(qb_model *m, qb_device *dev, int64_t positions, bool resident) QB_NODISCARD;
qb_status qb_block_load(qb_model *m, int64_t layer, qb_block *out) QB_NODISCARD;
/* Lets the system read a block's files while another block is worked on; past the last layer does nothing. */
void qb_block_prefetch(qb_model *m, int64_t layer);
void qb_block_free(qb_model *m, qb_block *b); /* lets the checkpoint's pages go */
/* The weight of a list's linear as the checkpoint has it; free with qb_linear_unread. */
qb_status qb_linear_read(const qb_model *m, const qb_linear *l, int64_t layer, qb_weight *out) QB_NODISCARD;
void qb_linear_unread(const qb_model *m, const qb_linear *l, int64_t layer, qb_weight *w);
/* The dtype of its elements in the checkpoint, where it is dense. */
qb_status qb_linear_dtype(const qb_model *m, const qb_linear *l, int64_t layer, qb_dtype *out) QB_NODISCARD;

int64_t qb_model_block_bytes(const qb_model *m);  /* of the largest block, once loaded */
int64_t qb_model_weight_bytes(const qb_model *m); /* resident bytes of all weights in their formats */
int64_t qb_model_decode_bytes(const qb_model *m, int64_t context,
                              qb_dtype kv_dtype); /* read per decoded token */
/* Stored bits a weight of the blocks' linears: codes, scales, zeros, absmax and an act-order index; not what
   the file repeats (a g_idx without act-order, code tables). 16 for float16. */
double qb_model_bits_per_weight(const qb_model *m);
int64_t qb_model_module_bytes(const qb_model *m, const char *module); /* of one module, counted so */

/* Known shapes (known_models.def): name, Hugging Face id, config.json text. */
typedef struct qb_known_model {
    const char *name, *hub_id, *summary, *config_json;
} qb_known_model;
const qb_known_model *qb_known_model_at(size_t index);
const qb_known_model *qb_known_model_find(const char *name);
/* MODEL on the command line -> directory or "synthetic:..." spec: a directory or a GGUF file; "demo"; a known
   name or a hub id in the local Hugging Face cache (hub/hub.h says where that is). No request is made. Free
   *out with qb_free. */
qb_status qb_model_resolve(const char *word, char **out) QB_NODISCARD;
