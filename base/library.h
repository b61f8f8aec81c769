/* Shared libraries that are loaded by the first call that needs them. What is linked stands in every process
   with all that it links itself, and so in every figure of memory that `bench` measures, and in every start.
 */
#pragma once

#include "base/status.h"

#include <stddef.h>

/* A function by name, and where in the struct of functions its pointer goes. */
typedef struct qb_symbol {
    const char *name;
    size_t offset;
} qb_symbol;

typedef struct qb_library {
    const char *file;    /* with the number of its ABI: "libarchive.so.13" */
    const char *what;    /* completes "needed by"; with the oldest version, where one is too old */
    const char *package; /* Debian's */
    const qb_symbol *symbols;
    size_t n_symbols;
    void *functions; /* the struct that is filled */
    bool loaded;
} qb_library;

/* Fills l->functions, once; from any thread. QB_ERR_UNSUPPORTED, with what to install, where the file or one
   of the functions is missing. */
qb_status qb_library_load(qb_library *l) QB_NODISCARD;
