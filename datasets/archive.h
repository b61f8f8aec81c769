/* Decompression through libarchive, and what it leaves unchecked. */
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef enum {
    QB_STORED_PLAIN,
    QB_STORED_GZIP,
    QB_STORED_ZSTD,
    QB_STORED_XZ,
    QB_STORED_BZIP2,
    QB_STORED_ZIP,
    QB_STORED_TAR, /* itself compressed or not */
} qb_stored;

/* By the end of the file's name; *stem_length, when not
   NULL, is the length of the name without the suffix. */
qb_stored qb_stored_by_name(const char *name, size_t *stem_length);

/* Decompresses n stored bytes. `name` heads errors. entry as for qb_text_open; *entry_name (free with
   qb_free) receives the entry read from an archive, NULL for a single compressed stream. The decompressed
   size is told (qb_info) where the file states it and it is of 1 MiB or more. Output above max_bytes is
   refused, before it is made where it is stated; so is what leaves no memory. Free *out with qb_free; a NUL
   stands behind the *out_n bytes. */
qb_status qb_archive_read(const void *stored, size_t n, qb_stored kind, const char *name, const char *entry,
                          size_t max_bytes, char **out, size_t *out_n, char **entry_name) QB_NODISCARD;
