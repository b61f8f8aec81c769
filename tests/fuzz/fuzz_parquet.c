/* Parquet files: footer, heads of pages, levels, indices. Rows are counted so far only as a text may be long.
 */
#include "base/status.h"
#include "datasets/parquet/parquet.h"
#include "tests/fuzz/fuzz.h"

enum { MAX_BYTES = 1 << 20 };

static qb_status row(void *user, const char *text, size_t n) {
    size_t *left = user;
    volatile unsigned char byte; /* each is read */
    for (size_t i = 0; i < n; i++) byte = (unsigned char)text[i];
    (void)byte;
    if (*left < n + 16) return qb_fail(QB_ERR_FORMAT, "enough");
    *left -= n + 16;
    return QB_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qb_parquet *p;
    size_t left = MAX_BYTES;
    if (qb_parquet_open(data, size, "fuzz", NULL, &p) != QB_OK) return 0;
    (void)!qb_parquet_read(p, row, &left);
    qb_parquet_close(p);
    return 0;
}
