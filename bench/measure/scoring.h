/* The token windows that a measurement needs: a dataset cut by a protocol, prompts for latency, and the
   datasets' files as they go into a result. */
#pragma once

#include "datasets/datasets.h"
#include "model/model.h"

/* One perplexity to measure. */
typedef struct qb_scoring {
    char dataset[64], protocol[32];
    qb_windows windows; /* owned; empty when skipped */
    double floor; /* perplexity that no model can pass, where the text's own source is known; NaN elsewhere */
    char skipped[200]; /* why there is nothing to measure, or "" */
} qb_scoring;
void qb_scoring_free(qb_scoring *s);

/* Fails with QB_ERR_USAGE when the protocol's windows do not fit the model's positions, naming one that does.
 */
qb_status qb_protocol_fits(const qb_protocol *p, const qb_config *c, const char *model) QB_NODISCARD;

/* What the n datasets are called in rows: a registered one by its name, a file of the user's by its base
   name, with as many of its folders before it as tell it from the others. QB_ERR_USAGE when that takes more
   than a label holds. */
typedef char qb_dataset_label[64];
qb_status qb_dataset_labels(const char *const *words, int n, qb_dataset_label *labels) QB_NODISCARD;

/* Tokenizes and cuts. Appends the files read to the JSON array `data` (once each; may be NULL). Words of the
   request are those of the user. */
typedef struct qb_scoring_request {
    const char *dataset, *protocol, *data_dir;
    const char *label;          /* what rows call the dataset */
    const char *special_tokens; /* "file", "text", "legacy"; "protocol": as the protocol's own program does */
    const qb_tokenizer *tokenizer;
    const qb_model *model;
    int64_t max_windows;
    qb_json *data;
} qb_scoring_request;
qb_status qb_scoring_open(const qb_scoring_request *r, qb_scoring *out) QB_NODISCARD;

/* Whole prompts of a text file, a blank line between; "default" is the file that comes with the program. */
qb_status qb_prompts_open(const char *file, const qb_tokenizer *t, qb_windows *out) QB_NODISCARD;

/* Adds {dataset, role, file, sha256, bytes, canonical, note} for each file unless the array has it. */
void qb_data_files_add(qb_json *data, const char *dataset, const qb_data_files *files);
