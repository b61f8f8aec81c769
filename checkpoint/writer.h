/* Writes a checkpoint directory: tensors are planned first, so headers and shards are known, then streamed in
   any order. Everything goes to a temporary directory beside the target and appears under its name only when
   it is complete. */
#pragma once

#include "base/json.h"
#include "checkpoint/checkpoint.h"

typedef struct qb_writer qb_writer;

/* dir must not exist, or be empty, unless `replace`. shard_bytes: model-00001-of-0000N.safetensors with an
   index when the tensors take more (0: 5e9). Fails at once when the parent cannot be written. */
qb_status qb_writer_create(const char *dir, bool replace, int64_t shard_bytes, qb_writer **out) QB_NODISCARD;
qb_status qb_writer_plan(qb_writer *w, const char *name, qb_dtype dtype, int n_dims,
                         const int64_t *shape) QB_NODISCARD;
/* Ends planning: writes the headers and reserves the space (a full disk shows here, not hours later). */
qb_status qb_writer_begin(qb_writer *w) QB_NODISCARD;
/* All bytes of one planned tensor. */
qb_status qb_writer_put(qb_writer *w, const char *name, const void *data, int64_t bytes) QB_NODISCARD;
/* Further files of the directory. */
qb_status qb_writer_put_json(qb_writer *w, const char *file_name, const qb_json *json) QB_NODISCARD;
qb_status qb_writer_copy_file(qb_writer *w, const char *from_dir,
                              const char *file_name) QB_NODISCARD; /* absent: fine */
/* Checks that every planned tensor was put, syncs and renames into place. Frees the writer in any case. */
qb_status qb_writer_finish(qb_writer *w) QB_NODISCARD;
void qb_writer_abort(qb_writer *w);          /* removes the temporary directory; takes NULL */
int64_t qb_writer_bytes(const qb_writer *w); /* of all planned tensors */
int64_t qb_writer_planned_bytes(const qb_writer *w,
                                const char *name); /* of one; -1 when it was not planned */
