#include "datasets/libarchive.h"

#include "base/library.h"

#define SYMBOL(name) {#name, offsetof(qb_libarchive, name)},
static const qb_symbol symbols[] = {QB_LIBARCHIVE(SYMBOL)};
static qb_libarchive functions;
static qb_library library = {.file = "libarchive.so.13", /* its ABI since 3.0 */
                             .what = "compressed files and archives of text",
                             .package = "libarchive13",
                             .symbols = symbols,
                             .n_symbols = sizeof symbols / sizeof symbols[0],
                             .functions = &functions};

qb_status qb_libarchive_load(const qb_libarchive **out) {
    *out = &functions;
    return qb_library_load(&library);
}
