/* SHA-256 through libcrypto: file identities, cache keys, determinism hashes; and git's name of a file. */
#pragma once

#include "base/status.h"

#include <stdint.h>

enum { QB_SHA256_HEX = 65 }; /* 64 lower-case hex digits and a NUL */
enum { QB_BLOB_HEX = 41 };   /* 40 */

typedef struct qb_hash qb_hash;

qb_status qb_hash_begin(qb_hash **out) QB_NODISCARD;
/* Git's name of a file of so many bytes: SHA-1 of "blob BYTES", a NUL and the bytes. */
qb_status qb_hash_begin_blob(int64_t bytes, qb_hash **out) QB_NODISCARD;
void qb_hash_add(qb_hash *hash, const void *bytes, size_t n);
void qb_hash_end(qb_hash *hash, char hex[QB_SHA256_HEX]); /* frees; 40 digits of a blob */

qb_status qb_hash_bytes(const void *bytes, size_t n, char hex[QB_SHA256_HEX]) QB_NODISCARD;
qb_status qb_hash_file(const char *path, char hex[QB_SHA256_HEX]) QB_NODISCARD;
