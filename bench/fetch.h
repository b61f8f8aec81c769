/* Getting models and datasets from the hub into its cache, for `bench fetch` and `bench run --fetch`. */
#pragma once

#include "base/json.h"
#include "datasets/datasets.h"
#include "hub/fetch.h"

typedef struct qb_fetch_request {
    const char *revision; /* NULL: main, or the dataset's own */
    const char *include;  /* globs; NULL: what a model needs */
    int64_t jobs;         /* files at a time */
    bool dry_run;         /* say what there is and fetch nothing */
} qb_fetch_request;

enum { QB_SPLIT_EVALUATION = 1, QB_SPLIT_CALIBRATION = 2 };

/* MODEL: a known name, or a hub id. *report receives {"id", "kind", "revision", "commit", "path", "files":
   [{"path", "bytes", "hash"}], "bytes", "fetched_files", "fetched_bytes"}; free with qb_json_free. */
qb_status qb_fetch_model(const char *word, const qb_fetch_request *request, qb_json **report) QB_NODISCARD;
/* The files of a dataset's splits (bits of QB_SPLIT_*). A built-in one has none. */
qb_status qb_fetch_dataset(const qb_dataset *d, unsigned splits, const qb_fetch_request *request,
                           qb_json **report) QB_NODISCARD;
/* A repository of datasets by its id, as files by globs. */
qb_status qb_fetch_repo(const qb_hub_repo *repo, const qb_fetch_request *request,
                        qb_json **report) QB_NODISCARD;
