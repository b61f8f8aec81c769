/* On-disk layouts of quantized linears: one row in layouts.def, one const struct, one file each. */
#pragma once

#include "checkpoint/checkpoint.h"
#include "checkpoint/writer.h"

/* A layout that is only read has NULL for check, plan, put and config: qb_layout_need_writer says so. */
typedef struct qb_layout {
    const char *name, *summary, *source;
    /* Whether this layout can hold the weight; the reason and what to try are in the error. Only the shape
       and options of `q` are looked at (arrays may be NULL), so that a plan can ask before anything is
       computed. */
    qb_status (*check)(const char *module, const qb_qweight *q);
    /* Plans MODULE.* tensors for a weight of q's shape and options (arrays may be NULL). */
    qb_status (*plan)(qb_writer *w, const char *module, const qb_qweight *q);
    qb_status (*put)(qb_writer *w, const char *module, const qb_qweight *q);
    /* Whether MODULE is quantized in this layout here. */
    bool (*present)(const qb_checkpoint *ck, const char *module);
    /* Codes may be left in the tensor, with a source that holds it, and products of factors not made. */
    qb_status (*read)(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, qb_qweight *out);
    /* Rows of a fused or stacked tensor, for layouts that need not read all of it; NULL: `read`, then the
       rows. `slice` lies within the tensor. */
    qb_status (*read_slice)(qb_checkpoint *ck, const char *module, const qb_slice *slice, int64_t rows,
                            int64_t cols, qb_qweight *out);
    /* The quantization_config object for config.json; q is any module's weight; `method_config` are the
     * method's options. */
    qb_json *(*config)(const qb_qweight *q, const qb_json *method_config);
    const char *quantize_config_file; /* a second file that carries it ("quantize_config.json"), or NULL */
} qb_layout;

const qb_layout *qb_layout_find(const char *name);
const qb_layout *qb_layout_at(size_t index);
bool qb_layout_is_writable(const qb_layout *layout);
/* QB_ERR_UNSUPPORTED, naming the layouts that are written, for one that is only read. */
qb_status qb_layout_need_writer(const qb_layout *layout) QB_NODISCARD;
/* The layout that stores such a weight: "gptq", which every reader takes, for symmetric groups; "gptq_v2" for
   asymmetric ones, whose zero points may be 0; "bnb8" for int8 rows; "bnb4" for codebooks. */
const qb_layout *qb_layout_for(const qb_qweight *q);
