/* A model of a run and all that its cases read: opened, checked and tokenized before the first case starts,
   so that what is wrong shows in the first second and not in the third hour. */
#pragma once

#include "bench/measure/scoring.h"
#include "bench/suite/suite.h"

typedef struct qb_calibration_windows {
    const char *dataset, *special_tokens; /* point into a variant's config */
    int64_t samples, seqlen, seed;
    qb_windows windows; /* owned */
} qb_calibration_windows;

typedef struct qb_subject {
    const char *word;              /* as the suite names it */
    const qb_suite_model *adapted; /* what is merged, or NULL; points into the suite */
    struct qb_merged *merged;      /* owned (bench/run/merged.h); NULL for a model as it is */
    char *spec;                    /* owned; for qb_model_open */
    bool synthetic;
    qb_model *model;            /* opened, never loaded in this process; owned */
    char sha256[QB_SHA256_HEX]; /* of the weights; filled by qb_subject_identify */
    qb_scoring *scorings;       /* owned */
    size_t n_scorings;
    qb_calibration_windows *calibrations; /* owned */
    size_t n_calibrations, calibrations_capacity;
    qb_windows prompts; /* owned; empty when the suite has none */
} qb_subject;

typedef struct qb_subject_request {
    const qb_suite *suite;
    qb_cases *cases;      /* those whose method cannot serve the model get their reason in `skipped` */
    const char *data_dir; /* NULL: the usual places */
    bool synthetic;
    bool cache;      /* merged models are kept there */
    int64_t threads; /* that merge */
    qb_json *data;   /* array that the files read are added to */
} qb_subject_request;

/* Opens `word` for those of the cases that name it. */
qb_status qb_subject_open(const qb_subject_request *request, const char *word, qb_subject *out) QB_NODISCARD;
void qb_subject_free(qb_subject *s);
/* The windows a variant calibrates on; NULL when it needs none. */
const qb_windows *qb_subject_calibration(const qb_subject *s, const qb_variant *v);
/* Hash of the weights, remembered from run to run; reads the files in a child process when it has to. */
qb_status qb_subject_identify(qb_subject *s) QB_NODISCARD;
