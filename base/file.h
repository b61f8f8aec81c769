/* Files: read-only mappings, whole reads, atomic writes, paths. Every error names the path and the system's
 * reason. */
#pragma once

#include "base/status.h"

#include <dirent.h>
#include <stdint.h>

typedef struct qb_map {
    const uint8_t *bytes; /* NULL when size is 0 */
    size_t size;
} qb_map;

/* Maps a regular file read-only and private. qb_map_close takes NULL and {0}. */
qb_status qb_map_open(const char *path, qb_map *out) QB_NODISCARD;
void qb_map_close(qb_map *map);
/* Tells the kernel that these mapped bytes are not needed now (they are read again from the file when
 * touched). */
void qb_map_release(const void *bytes, size_t n);
/* Asks the system to begin reading a mapped range from disk; does not wait. */
void qb_map_prefetch(const void *bytes, size_t n);

/* Whole file with a NUL behind it; refuses files above max_bytes. Free *out with qb_free. */
qb_status qb_file_read(const char *path, size_t max_bytes, char **out, size_t *out_size) QB_NODISCARD;

/* Fails when `path` exists and is no regular file: a rename would put a file in the place of a device. */
qb_status qb_file_replaceable(const char *path) QB_NODISCARD;
/* Writes a temporary file beside `path`, syncs it, renames it over `path`: readers see the old or the new
 * file. */
qb_status qb_file_write_atomic(const char *path, const void *bytes, size_t n) QB_NODISCARD;

/* Whether something, or a directory, is there; fails when the system cannot say (EIO, EACCES on the way, a
 * loop of links), which is no absence. */
qb_status qb_path_look(const char *path, bool *there) QB_NODISCARD;
qb_status qb_path_look_dir(const char *path, bool *is_dir) QB_NODISCARD;
/* The same as far as it can be seen, for hints in messages: nothing may be decided by it. */
bool qb_path_exists(const char *path);
qb_status qb_file_size(const char *path, int64_t *bytes) QB_NODISCARD; /* absence fails too */

/* Free the result with qb_free; NULL on exhaustion. "a","b" -> "a/b". */
char *qb_path_join(const char *dir, const char *name);
char *qb_path_dir(const char *path);        /* "a/b" -> "a", "b" -> "." */
const char *qb_path_base(const char *path); /* points into path */

/* The next entry but "." and ".."; NULL at the end, and on an error, which *st then holds (else it is left
 * alone). */
struct dirent *qb_dir_next(DIR *dir, const char *path, qb_status *st);

qb_status qb_make_dirs(const char *path) QB_NODISCARD; /* like mkdir -p */
/* Removes a directory and what is in it (no links followed). Absent is fine. */
qb_status qb_remove_tree(const char *path) QB_NODISCARD;
qb_status qb_copy_file(const char *from, const char *to) QB_NODISCARD; /* atomic at `to` */
/* Fails unless files can be created in `dir` (tried, not asked). */
qb_status qb_dir_writable(const char *dir) QB_NODISCARD;

/* The user's cache: $BENCH_CACHE, else $XDG_CACHE_HOME/quantbench, else ~/.cache/quantbench. Free with
 * qb_free. */
char *qb_cache_dir(void);
/* Files that come with the program (suites, plots, prompts, demo): $BENCH_SHARE, else
 * <exe>/../share/quantbench. */
char *qb_share_dir(void);
