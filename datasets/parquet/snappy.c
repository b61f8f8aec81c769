#include "datasets/parquet/snappy.h"

#include "base/library.h"

#define SYMBOL(name)                                                                                         \
    { #name, offsetof(qb_snappy, name) }
static const qb_symbol symbols[] = {SYMBOL(snappy_uncompressed_length), SYMBOL(snappy_uncompress)};
static qb_snappy functions;
static qb_library library = {.file = "libsnappy.so.1", /* its ABI since 1.0 */
                             .what = "Parquet files whose pages snappy compressed",
                             .package = "libsnappy1v5",
                             .symbols = symbols,
                             .n_symbols = sizeof symbols / sizeof symbols[0],
                             .functions = &functions};

qb_status qb_snappy_load(const qb_snappy **out) {
    *out = &functions;
    return qb_library_load(&library);
}
