/* Datasets and protocols: local files -> text -> token windows, as FIELD.md a5 and a6 define them. A dataset is one
   row in datasets.def. Nothing here touches the network. */
#pragma once

#include "base/hash.h"
#include "base/windows.h"
#include "tokenizer/tokenizer.h"

/* Where files are looked for: --data DIR, $BENCH_DATA, <user cache>/data; in DIR itself and in DIR/<family> (wikitext2,
   ptb, c4). */
typedef struct qb_data_file {
    char path[512];
    char role[16]; /* "test", "train", "validation" */
    char sha256[QB_SHA256_HEX];
    int64_t bytes;
} qb_data_file;
enum { QB_DATA_FILES_MAX = 4 };
typedef struct qb_data_files {
    int n;
    qb_data_file files[QB_DATA_FILES_MAX];
} qb_data_files;

typedef struct qb_dataset qb_dataset;
struct qb_dataset {
    const char *name, *summary, *source;
    const char *family;            /* sub-folder of the data directory */
    const char *evaluation_files;  /* candidates in order of preference, '|' between */
    const char *calibration_files;
    const char *how_to_get;        /* one sentence for the error when the file is missing */
    /* Text (or documents) of the split -> ids; see datasets.c. */
    qb_status (*evaluate)(const qb_dataset *d, const char *path, const qb_tokenizer *t, int64_t window, qb_ids *out);
    qb_status (*calibrate)(const qb_dataset *d, const char *path, const qb_tokenizer *t, int64_t n_samples,
                           int64_t seqlen, uint64_t seed, qb_windows *out);
};

/* `name` is a registry name, or a path to the user's own .txt, .raw, .jsonl file (compressed or not). */
const qb_dataset *qb_dataset_at(size_t index);
const qb_dataset *qb_dataset_find(const char *name); /* NULL: perhaps a file */

/* Protocols: "gptq" (= gptq-2048), "gptq-<n>", "llamacpp" (= llamacpp-512), "llamacpp-<n>", "strided" (= strided-1024-512),
   "strided-<n>" (stride n/2), "strided-<n>-<stride>". Unknown names suggest the nearest. */
typedef enum { QB_PROTOCOL_GPTQ, QB_PROTOCOL_LLAMACPP, QB_PROTOCOL_STRIDED } qb_protocol_kind;
typedef struct qb_protocol {
    qb_protocol_kind kind;
    int32_t window, stride;
    char name[32]; /* canonical: "gptq-2048", "strided-512-256" */
} qb_protocol;
qb_status qb_protocol_parse(const char *text, qb_protocol *out) QB_NODISCARD;
/* A sentence each for `bench list protocols` and the result: what is scored and how it is reduced. */
const char *qb_protocol_summary(qb_protocol_kind kind);

/* Tokenizes the evaluation split and cuts it. max_windows 0: all. llamacpp reads the raw bytes of the file. The
   windows' `dataset`, `protocol`, `total_tokens`, `sha256` (of all ids, before max_windows) are set. Errors: file missing
   (says where it was looked for), text too short for one window. */
qb_status qb_dataset_windows(const char *dataset, const char *data_dir, const qb_tokenizer *t, const qb_protocol *p,
                             int64_t max_windows, qb_windows *out, qb_data_files *files) QB_NODISCARD;
/* Calibration windows exactly as the paper's code draws them with CPython's random. starts/documents, when not NULL,
   receive [n_samples] start tokens and document numbers (-1 for datasets without documents); caller frees with qb_free. */
qb_status qb_dataset_calibration(const char *dataset, const char *data_dir, const qb_tokenizer *t, int64_t n_samples,
                                 int64_t seqlen, uint64_t seed, qb_windows *out, qb_data_files *files,
                                 int64_t **starts, int64_t **documents) QB_NODISCARD;
/* Random valid ids, for models without a tokenizer (--synthetic). */
qb_status qb_random_windows(int64_t vocab, int64_t n_samples, int64_t seqlen, uint64_t seed, qb_windows *out) QB_NODISCARD;

/* Whole text of the evaluation (or calibration) split with the dataset's joins, for `bench tokenize --dataset`. */
qb_status qb_dataset_ids(const char *dataset, const char *data_dir, const qb_tokenizer *t, bool calibration_split,
                         int64_t window, qb_ids *out, qb_data_files *files) QB_NODISCARD;

/* Reads a possibly compressed file whole (.gz .zst .xz .bz2, the first entry of a .zip). Free *out with qb_free. */
qb_status qb_text_read(const char *path, char **out, size_t *n) QB_NODISCARD;
