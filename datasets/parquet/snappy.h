/* snappy, loaded when the first page that it compressed is read: it is the one library here that links the
   C++ library. */
#pragma once

#include "base/status.h"

#include <snappy-c.h>

typedef struct qb_snappy {
    __typeof__(snappy_uncompressed_length) *snappy_uncompressed_length;
    __typeof__(snappy_uncompress) *snappy_uncompress;
} qb_snappy;

/* The functions; QB_ERR_UNSUPPORTED with what to install where the library is not there. */
qb_status qb_snappy_load(const qb_snappy **out) QB_NODISCARD;
