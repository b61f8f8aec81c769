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
/* The same for long work: everything goes to DIR.partial, which stays when the process dies or calls
   qb_writer_keep. With `resume`, qb_writer_begin takes up what an earlier run with the same fingerprint (64
   hex digits over all that decides the bytes) and the same plan has saved there, and empties the directory
   otherwise, which it tells. A second process that writes the same directory is an error. */
qb_status qb_writer_create_resumable(const char *dir, bool replace, int64_t shard_bytes,
                                     const char *fingerprint, bool resume, qb_writer **out) QB_NODISCARD;
/* Removes what a run left that was killed when `dir` was complete: for callers that refuse a directory that
   is there before they create a writer, which does the same. */
qb_status qb_writer_sweep(const char *dir) QB_NODISCARD;
/* After begin and until anything is saved: the state that an earlier run saved last; NULL when this one
   starts from nothing. */
const qb_json *qb_writer_saved(const qb_writer *w);
/* All that was put so far is synced to disk and will not be asked for again; `state` goes over
   to the writer. Only frees it unless resumable. */
qb_status qb_writer_save(qb_writer *w, qb_json *state) QB_NODISCARD;
/* Frees the writer and leaves what was saved for another run. Without anything saved: qb_writer_abort. */
void qb_writer_keep(qb_writer *w);              /* takes NULL */
const char *qb_writer_path(const qb_writer *w); /* where the files are now */
/* A path for the caller's own state beside them, kept and removed with what was saved; NULL unless resumable.
   Free with qb_free. */
char *qb_writer_beside(const qb_writer *w, const char *name);

qb_status qb_writer_plan(qb_writer *w, const char *name, qb_dtype dtype, int n_dims,
                         const int64_t *shape) QB_NODISCARD;
/* Ends planning: writes the headers and reserves the space (a full disk shows here, not hours later). */
qb_status qb_writer_begin(qb_writer *w) QB_NODISCARD;
/* Lends threads to the layouts' packing; NULL ends it. From then on one thread at a time puts, that which
   runs loops on them. */
void qb_writer_use_threads(qb_writer *w, qb_threads *threads);
qb_threads *qb_writer_threads(const qb_writer *w); /* or NULL */
/* All bytes of one planned tensor; the system begins to write them to the disk. */
qb_status qb_writer_put(qb_writer *w, const char *name, const void *data, int64_t bytes) QB_NODISCARD;
/* The same; `passed` is called behind every few megabytes with the bytes that will not be read again. */
typedef void qb_passed(void *user, int64_t at, int64_t n);
qb_status qb_writer_put_passing(qb_writer *w, const char *name, const void *data, int64_t bytes,
                                qb_passed *passed, void *user) QB_NODISCARD;
/* Further files of the directory. */
qb_status qb_writer_put_text(qb_writer *w, const char *file_name, const char *text) QB_NODISCARD;
qb_status qb_writer_put_json(qb_writer *w, const char *file_name, const qb_json *json) QB_NODISCARD;
qb_status qb_writer_copy_file(qb_writer *w, const char *from_dir,
                              const char *file_name) QB_NODISCARD; /* absent: fine */
/* Checks that every planned tensor was put, syncs and renames into place. Frees the writer in any case; a
   resumable one that failed stays for another run. */
qb_status qb_writer_finish(qb_writer *w) QB_NODISCARD;
void qb_writer_abort(qb_writer *w);          /* removes the temporary directory; takes NULL */
int64_t qb_writer_bytes(const qb_writer *w); /* of all planned tensors */
int64_t qb_writer_planned_bytes(const qb_writer *w,
                                const char *name); /* of one; -1 when it was not planned */
