/* What most subcommands open: the device, a model by its word on the command line, its tokenizer. */
#pragma once

#include "bench/command.h"
#include "model/model.h"
#include "quant/driver.h"
#include "tokenizer/tokenizer.h"

/* Fails with the nearest name when there is no such backend. */
qb_status qb_session_backend(const char *name, const qb_backend **out) QB_NODISCARD;
qb_status qb_session_device(const qb_compute *compute, qb_device **out) QB_NODISCARD;
void qb_session_close(qb_device *dev); /* takes NULL */

/* A model's or an adapter's word -> its directory or file (qb_model_resolve); a note says which snapshot and
   revision of the hub's cache it was found in. Free with qb_free. */
qb_status qb_session_find(const char *word, char **path) QB_NODISCARD;
/* MODEL -> what qb_model_open takes. synthetic asks for
   random weights of the model's shapes. Free with qb_free. */
qb_status qb_session_spec(const char *word, bool synthetic, char **spec) QB_NODISCARD;
qb_status qb_session_model(const char *word, bool synthetic, qb_model **out) QB_NODISCARD;
/* Fails with QB_ERR_USAGE when the output directory is there and may not be replaced, or holds the model. */
qb_status qb_session_check_output(const qb_model *m, const char *dir, bool replace) QB_NODISCARD;
/* Synthetic models have none: QB_ERR_USAGE says so. */
qb_status qb_session_tokenizer(const qb_model *m, qb_tokenizer **out) QB_NODISCARD;
/* "synthetic:DIR", "DIR" and "FILE.gguf" -> its tokenizer, so that `tokenize` needs no weights. */
qb_status qb_session_tokenizer_of(const char *word, qb_tokenizer **out) QB_NODISCARD;
/* A GGUF file holds its tokenizer inside: what a directory written from it gets instead, nothing for other
   models. A tokenizer that has no such form is said in a warning. Zero-initialise; free in any case; the
   target's files point into it. */
typedef struct qb_tokenizer_files {
    qb_str json, config;
    qb_side_file files[2];
    size_t n;
} qb_tokenizer_files;
qb_status qb_session_tokenizer_files(const qb_model *m, qb_tokenizer_files *out) QB_NODISCARD;
void qb_tokenizer_files_free(qb_tokenizer_files *f);
bool qb_spec_is_synthetic(const char *spec);
