/* The store of quantized checkpoints: <cache>/quantized/<key>, the key being a hash of all that decides the
   bytes. An entry is made and removed under the exclusive lock KEY.lock (base/lock.h), and measured under a
   shared one. */
#pragma once

#include "base/hash.h"
#include "base/json.h"

#include <stdint.h>

/* What a checkpoint was made of. The program's own hash is in the key too: new code makes new checkpoints. */
typedef struct qb_cache_key {
    const char *model_sha256;
    const qb_json *options;         /* {method, bits, ...} */
    const char *calibration_sha256; /* NULL for methods that need none */
    const char *backend;
    const qb_json *device; /* what it says of itself: instruction set, BLAS core, ... */
} qb_cache_key;

typedef struct qb_cache_place {
    char *dir; /* owned */
    char *key; /* what was hashed, as text; owned */
} qb_cache_place;

typedef struct qb_cache_hashes {
    char weights[QB_SHA256_HEX]; /* qb_checkpoint_sha256 */
    char files[QB_SHA256_HEX];   /* the other files' names and contents, the stamp's own excepted */
} qb_cache_hashes;

/* The directory for the key; qb_cache_place_free. It is an entry when it bears a stamp, which is written when
   the checkpoint is complete. */
qb_status qb_cache_find(const qb_cache_key *key, qb_cache_place *out) QB_NODISCARD;
void qb_cache_place_free(qb_cache_place *place);
/* Whether an entry seems to be there; nothing is verified. */
qb_status qb_cache_has(const qb_cache_place *place, bool *found) QB_NODISCARD;
qb_status qb_cache_stamp(const qb_cache_place *place, const qb_cache_hashes *hashes) QB_NODISCARD;
/* The hashes that the entry must have; fails when the stamp is damaged or of another key. */
qb_status qb_cache_read_stamp(const qb_cache_place *place, qb_cache_hashes *out) QB_NODISCARD;

/* Fails when nothing can be written below the cache folder; removes what killed runs left half-written in it.
 */
qb_status qb_cache_writable(void) QB_NODISCARD;
int64_t qb_cache_free_bytes(void); /* on its disk; -1: unknown */
/* Removes the checkpoints that were not used for longest until at most `bytes` are left, but none that a
   process makes or measures now. *removed counts. */
qb_status qb_cache_shrink(int64_t bytes, int64_t *removed) QB_NODISCARD;
