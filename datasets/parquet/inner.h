/* What the footer says of the wanted column. Inside datasets/parquet/ only. */
#pragma once

#include "datasets/parquet/parquet.h"

/* Numbers of the format (parquet.thrift). */
enum { QB_PAGE_DATA = 0, QB_PAGE_INDEX = 1, QB_PAGE_DICTIONARY = 2, QB_PAGE_DATA_V2 = 3 };
enum {
    QB_ENCODING_PLAIN = 0,
    QB_ENCODING_PLAIN_DICTIONARY = 2,
    QB_ENCODING_RLE = 3,
    QB_ENCODING_RLE_DICTIONARY = 8
};
enum { QB_CODEC_NONE = 0, QB_CODEC_SNAPPY = 1, QB_CODEC_GZIP = 2, QB_CODEC_ZSTD = 6 };

/* The column in one row group. */
typedef struct qb_chunk {
    int64_t rows, codec;
    int64_t begin, bytes; /* of its pages in the file; checked */
} qb_chunk;

struct qb_parquet {
    const uint8_t *bytes;
    size_t n;
    const char *name; /* as given */
    char column[128];
    bool optional; /* rows have a definition level of one bit */
    int64_t leaf;  /* index among the leaves: of a group's columns */
    int64_t rows;
    qb_chunk *chunks; /* owned */
    size_t n_chunks, capacity;
};

typedef struct qb_page_head {
    int64_t type, stored, bytes; /* on disk, decompressed */
    int64_t values, encoding;
    int64_t level_encoding;              /* v1: of the definition levels */
    int64_t level_bytes, repeated_bytes; /* v2: before the values, never compressed */
    bool compressed;                     /* v2 */
} qb_page_head;

/* Reads the page head at `at`; *length is what it takes. */
qb_status qb_page_head_read(const qb_parquet *p, int64_t at, int64_t end, qb_page_head *out,
                            int64_t *length) QB_NODISCARD;
/* "BROTLI" for 4: what a file has that is not read. */
const char *qb_codec_name(int64_t codec);
const char *qb_encoding_name(int64_t encoding);
