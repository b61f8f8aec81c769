/* The store of quantized checkpoints: <cache>/quantized/<key>, the key being a hash of all that decides the
 * codes. */
#pragma once

#include "base/hash.h"
#include "base/json.h"

#include <stdint.h>

/* What a checkpoint was made of. The program's own hash is in the key too: new code makes new checkpoints. */
typedef struct qb_cache_key {
    const char *model_sha256;
    const qb_json *options;         /* {method, bits, ...} */
    const char *calibration_sha256; /* NULL for methods that need none */
} qb_cache_key;

/* The directory for the key; free *dir with qb_free. It exists when, and only when, the checkpoint is
   complete: the writer renames it into place. */
qb_status qb_cache_path(const qb_cache_key *key, char **dir) QB_NODISCARD;
/* A complete checkpoint is there; also marks it as used now. */
bool qb_cache_hit(const char *dir);
/* Another process is making this checkpoint right now. */
bool qb_cache_busy(const char *dir);
/* Fails when nothing can be written below the cache folder; removes what killed runs left half-written in it.
 */
qb_status qb_cache_writable(void) QB_NODISCARD;
int64_t qb_cache_free_bytes(void); /* on its disk; -1: unknown */
/* Removes the checkpoints that were not used for longest until at most `bytes` are left. *removed counts. */
qb_status qb_cache_shrink(int64_t bytes, int64_t *removed) QB_NODISCARD;

/* SHA-256 of a model's weights. Hashing tens of gigabytes takes minutes, so the hash of a directory is
   remembered with name, size, inode and time of change of each of its files, and found again while all of
   them are the same. */
qb_status qb_identity_recall(const char *dir, char hex[QB_SHA256_HEX], bool *found) QB_NODISCARD;
qb_status qb_identity_remember(const char *dir, const char *hex) QB_NODISCARD;
