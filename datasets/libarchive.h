/* libarchive, loaded when the first compressed file is read: it links XML, ICU and the C++ library. */
#pragma once

#include "base/status.h"

#include <archive.h>
#include <archive_entry.h>

#define QB_LIBARCHIVE(F)                                                                                     \
    F(archive_read_new)                                                                                      \
    F(archive_read_free)                                                                                     \
    F(archive_read_open_memory)                                                                              \
    F(archive_read_next_header)                                                                              \
    F(archive_read_data)                                                                                     \
    F(archive_read_support_filter_all)                                                                       \
    F(archive_read_support_filter_gzip)                                                                      \
    F(archive_read_support_filter_zstd)                                                                      \
    F(archive_read_support_filter_xz)                                                                        \
    F(archive_read_support_filter_bzip2)                                                                     \
    F(archive_read_support_format_zip)                                                                       \
    F(archive_read_support_format_tar)                                                                       \
    F(archive_read_support_format_raw)                                                                       \
    F(archive_read_support_format_empty)                                                                     \
    F(archive_error_string)                                                                                  \
    F(archive_entry_pathname)                                                                                \
    F(archive_entry_filetype)                                                                                \
    F(archive_entry_size)                                                                                    \
    F(archive_entry_size_is_set)

#define QB_LIBARCHIVE_FIELD(name) __typeof__(name) *name;
/* Each under its own name. */
typedef struct qb_libarchive {
    QB_LIBARCHIVE(QB_LIBARCHIVE_FIELD)
} qb_libarchive;
#undef QB_LIBARCHIVE_FIELD

/* The functions; QB_ERR_UNSUPPORTED with what to install where the library is not there. */
qb_status qb_libarchive_load(const qb_libarchive **out) QB_NODISCARD;
