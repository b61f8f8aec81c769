/* The directory that a run fills: what of the source is taken over as it is, what describes the result, and
   how far an interrupted run came. */
#pragma once

#include "checkpoint/layout.h"
#include "model/modules.h"
#include "quant/driver.h"

/* Fails for an expert of a stack that no program reads in this layout. */
qb_status qb_target_check_stacked(const qb_module *m, const qb_layout *layout) QB_NODISCARD;
/* Plans and puts every tensor that is no part of a module, one at a time; one that is missing, or that the
   model would not compute with (qb_modules_check_others), NaN and infinity are errors. Floats become `as`,
   which must hold each value exactly; QB_DTYPE_COUNT leaves them as they are. */
qb_status qb_target_plan_others(const qb_model *m, const qb_modules *modules, qb_dtype as,
                                qb_writer *w) QB_NODISCARD;
qb_status qb_target_copy_others(const qb_model *m, const qb_modules *modules, qb_dtype as,
                                qb_writer *w) QB_NODISCARD;
/* Puts n elements as another float type. *inexact counts those that were rounded; NULL: the first such is an
   error that names it. A value that overflows is an error in any case. */
qb_status qb_target_put_as(qb_writer *w, const char *name, const float *values, int64_t n, qb_dtype as,
                           int64_t *inexact) QB_NODISCARD;
/* The tokenizer's files and what else Hugging Face directories hold beside weights, absent ones passed
   over; then the target's own. */
qb_status qb_target_copy_companions(const qb_model *m, const qb_quant_target *target,
                                    qb_writer *w) QB_NODISCARD;
/* Whether `dir` holds any of the tokenizer's files. */
qb_status qb_target_has_tokenizer(const char *dir, bool *found) QB_NODISCARD;
/* config.json of the source with this quantization_config (NULL: without any), which also goes to a file of
   its own when `file` is not NULL. torch_dtype: the torch name of the floats' new type, or NULL. */
qb_status qb_target_put_config(const qb_model *m, const qb_json *quantization, const char *file,
                               const char *torch_dtype, qb_writer *w) QB_NODISCARD;

/* One quantizing run's target. */
typedef struct qb_target_run {
    const qb_model *m;
    const qb_quant_method *method;
    const qb_quant_config *config;
    const qb_quant_target *target;
    const qb_layout *layout;
    qb_modules modules;
    qb_writer *writer;
    int64_t blocks;         /* that an earlier run finished */
    double earlier_seconds; /* that it took */
    int64_t started_ns;
} qb_target_run;

/* Plans everything, takes up what an earlier run left (its module reports go into `report`) and writes all
   that is known before the first block. qb_target_close in any case. */
qb_status qb_target_open(const qb_model *m, const qb_quant_method *method, const qb_quant_config *config,
                         const qb_quant_target *target, qb_quant_report *report,
                         qb_target_run *out) QB_NODISCARD;
/* What qb_writer_save is given once blocks 0 .. blocks-1 are put: their number and the reports of their
   modules. NULL where nothing is kept for another run. */
qb_json *qb_target_state(const qb_target_run *t, int64_t blocks, const qb_quant_report *report);
/* Fills the report's sums, writes it and the model card, and publishes. calibration may be NULL. */
qb_status qb_target_finish(qb_target_run *t, const qb_windows *calibration,
                           qb_quant_report *report) QB_NODISCARD;
/* Removes what is unfinished, or leaves it for another run when the work was stopped rather than wrong. */
void qb_target_close(qb_target_run *t, qb_status st);

/* The model card (README.md of the directory) as Markdown. quant/card.c */
qb_status qb_card_write(const qb_target_run *t, const qb_windows *calibration, const qb_quant_report *report,
                        qb_str *out) QB_NODISCARD;
