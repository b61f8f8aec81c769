/* The straight line of `bench run`: open everything, begin the document, run case after case in processes of
   their own, write the document after each. */
#pragma once

#include "base/file.h"
#include "base/lock.h"
#include "bench/measure/record.h"
#include "bench/run/plan.h"
#include "results/results.h"

typedef struct qb_run_options {
    const char *suite, *model, *data, *backend, *output, *only, *plots, *format;
    const char *set;         /* only for --help: cmd_run.c collects every --set */
    int64_t threads, device; /* device and device_gb as in qb_compute */
    double device_gb;
    const char *numa; /* as there */
    bool offload;     /* blocks that do not fit the device may lie in host memory */
    bool synthetic, resume, dry_run, print, keep_going, cache;
    bool fetch; /* what is missing comes from the hub */
    double cache_gb;
} qb_run_options;

/* A backend of the suite, opened here once for what it says of itself. */
typedef struct qb_run_device {
    const char *backend;
    char id[80]; /* in context.devices */
    qb_device_facts facts;
} qb_run_device;

typedef struct qb_run {
    const qb_run_options *options;
    qb_suite suite;
    qb_cases cases;
    qb_subject *subjects; /* one a model; owned */
    size_t n_subjects;
    qb_json *data;                       /* array: the files read; owned until the context takes it */
    qb_run_device devices[QB_NAMES_MAX]; /* those that cases use */
    size_t n_devices;
    qb_file_lock output_lock; /* of options->output while cases run */
    qb_results results;
    bool began; /* results holds a document */
    size_t n_failed, n_kept, n_skipped;
    bool worked; /* something was measured or tried in this run, not only kept */
    int rounds;  /* of the speed rows (rounds.h) */
} qb_run;

/* The suite with its overrides and its cases; run->options must be set. */
qb_status qb_run_load(const qb_run_options *options, const char *const *sets, size_t n_sets,
                      qb_run *run) QB_NODISCARD;
/* Opens suite, models, texts, output, cache and plots; nothing is computed but token ids and hashes. Free
   with qb_run_close also when it fails. */
qb_status qb_run_open(const qb_run_options *options, const char *const *sets, size_t n_sets,
                      qb_run *run) QB_NODISCARD;
void qb_run_close(qb_run *run);
/* The device that computes the case. */
const qb_run_device *qb_run_device_of(const qb_run *run, const qb_case *c);

/* The plan of every case; allocates *plans [cases.count] (qb_free). */
qb_status qb_run_plan(qb_run *run, qb_case_plan **plans) QB_NODISCARD;
/* Fails when the disk cannot hold what will be written. */
qb_status qb_run_check_disk(const qb_run *run, const qb_case_plan *plans) QB_NODISCARD;

/* Begins or resumes the document, runs the cases. Failed cases are in the document and counted in
   run->n_failed; the status is not QB_OK when the run itself could not go on (QB_ERR_INTERRUPTED). A document
   that cannot be written for want of room keeps its cases in memory and is tried again after each; when
   run->results.unwritten is still set at the end, the caller shows it elsewhere. */
qb_status qb_run_cases(qb_run *run) QB_NODISCARD;
