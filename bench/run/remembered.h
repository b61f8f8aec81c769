/* Hashes of models that were read before, in the cache folder. */
#pragma once

#include "base/hash.h"

/* SHA-256 of a model's weights. Hashing tens of gigabytes takes minutes, so the hash of a directory is
   remembered with name, size, inode and time of change of each of its files, and found again while all of
   them are the same. */
qb_status qb_identity_recall(const char *dir, char hex[QB_SHA256_HEX], bool *found) QB_NODISCARD;
qb_status qb_identity_remember(const char *dir, const char *hex) QB_NODISCARD;
