/* SHA-256 through libcrypto: file identities, cache keys, determinism hashes. */
#pragma once

#include "base/status.h"

#include <stdint.h>

enum { QB_SHA256_HEX = 65 }; /* 64 lower-case hex digits and a NUL */

typedef struct qb_hash qb_hash;

qb_status qb_hash_begin(qb_hash **out) QB_NODISCARD;
void qb_hash_add(qb_hash *hash, const void *bytes, size_t n);
void qb_hash_end(qb_hash *hash, char hex[QB_SHA256_HEX]); /* frees */

qb_status qb_hash_bytes(const void *bytes, size_t n, char hex[QB_SHA256_HEX]) QB_NODISCARD;
qb_status qb_hash_file(const char *path, char hex[QB_SHA256_HEX]) QB_NODISCARD;
