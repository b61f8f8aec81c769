/* Quantizes a whole model block by block: at most two blocks of weights and the calibration activations are
 * held. */
#pragma once

#include "base/windows.h"
#include "checkpoint/layout.h"
#include "model/decoder.h"
#include "quant/method.h"

/* What a run will take, stated before it starts. */
typedef struct qb_quant_plan {
    int64_t calibration_tokens;
    int64_t activation_bytes, hessian_bytes, block_bytes, workspace_bytes, peak_bytes;
    int64_t checkpoint_bytes; /* of the result */
    double flops;             /* forwards, Hessians, factorizations, updates */
    double bits_per_weight;   /* over the blocks' linears */
    int64_t params;           /* quantized */
    /* Passes over the calibration tokens that a block's Hessians take, at most, and how many there would be
       with room for all. */
    int64_t hessian_passes, stages;
} qb_quant_plan;
qb_status qb_quant_plan_make(const qb_model *m, const qb_quant_method *method, const qb_quant_config *config,
                             qb_quant_plan *out) QB_NODISCARD;

typedef struct qb_quant_report {
    qb_module_report *modules; /* owned */
    size_t n_modules, capacity;
    double seconds; /* whole run, writing included; with what an interrupted run before it took */
    double params_per_second;
    int64_t peak_rss_bytes; /* of this process */
    int64_t checkpoint_bytes;
    double bits_per_weight;
    int64_t resumed_blocks; /* taken over from an interrupted run */
} qb_quant_report;
void qb_quant_report_free(qb_quant_report *r);
qb_json *qb_quant_report_json(const qb_quant_report *r);
/* Appends the modules of an earlier report's "modules" array. */
qb_status qb_quant_report_restore(const qb_json *modules, const char *where, qb_quant_report *r) QB_NODISCARD;
qb_status qb_quant_report_add(qb_quant_report *r, const qb_module_report *module) QB_NODISCARD;
/* Puts the modules from index `from` on before those from `to` on. */
qb_status qb_quant_report_move(qb_quant_report *r, size_t from, size_t to) QB_NODISCARD;

/* Where the checkpoint goes, and what its model card tells. */
/* A small text file that stands beside the weights. */
typedef struct qb_side_file {
    const char *name, *text;
} qb_side_file;

typedef struct qb_quant_target {
    const char *dir;
    bool replace;        /* an older checkpoint there */
    int64_t shard_bytes; /* 0: 5e9 */
    const char *format;  /* name of a layout; NULL: the one that most programs read and that can hold it */
    /* 64 hex digits over all that decides the codes: model, method, options, calibration, program,
       instruction set. What an interrupted run leaves in DIR.partial is taken up by the next one with the
       same; NULL: nothing is left. */
    const char *fingerprint;
    bool resume; /* false: begin anew whatever is there */
    /* The calibration stream (tokens x width floats) is stored beside at most this often, and never so often
       that it takes a twentieth of the time; tokens are forwarded through the blocks behind the last one
       stored. */
    double stream_every_s;
    /* NULL: left out of the card */
    const char *source_sha256, *command, *program;
    const qb_side_file *files; /* [n_files], written besides what the source's directory has; win over it */
    size_t n_files;
    const char
        *tokenizer_dir; /* whose tokenizer is written, in the place of the source's and of `files`; NULL */
} qb_quant_target;

/* Reads model m (opened, not loaded), writes a complete checkpoint directory. calibration may be NULL for
   methods that need none. A run that takes up an earlier one first brings the calibration tokens behind the
   finished blocks: from the stored stream, and through the blocks since, which takes half to three quarters
   of the time that those took. It then gives the same bytes as one that was never interrupted. */
qb_status qb_quantize_model(qb_model *m, qb_device *dev, const qb_quant_method *method,
                            const qb_quant_config *config, const qb_windows *calibration,
                            const qb_quant_target *target, qb_quant_report *report) QB_NODISCARD;
