/* `eval` and `speed` measure a model as it is found and write the same document as `run`: one case. */
#pragma once

#include "bench/command.h"
#include "bench/measure/measure.h"
#include "bench/measure/record.h"
#include "results/results.h"

typedef struct qb_found {
    qb_model *model;      /* opened */
    const qb_model *base; /* whose divergence is measured, for the case's config; or NULL */
    qb_device *dev;
    qb_json *config;       /* further members of the case's config; taken */
    qb_json *data;         /* the files read; taken */
    qb_device_facts facts; /* of the device; taken from it when describe is NULL. Freed by qb_found_measure */
} qb_found;

/* Measures and puts the case into a new document in memory (close it with qb_results_close). A failed
   measurement is in the document and is the status too. */
qb_status qb_found_measure(qb_found *f, const qb_measuring *what, qb_results *out) QB_NODISCARD;
