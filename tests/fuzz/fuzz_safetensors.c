/* Any bytes as a safetensors file: what is accepted must tile
   the data, be unique and be sized as its shape says. */
#include "checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void require(int holds) {
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qb_arena arena = {0};
    qb_safetensors s;
    if (qb_safetensors_parse(data, size, "fuzz", &arena, &s) == QB_OK) {
        uint64_t header;
        memcpy(&header, data, 8);
        const uint8_t *at = data + 8 + header;
        volatile uint8_t sum = 0;
        for (size_t i = 0; i < s.count; i++) {
            const qb_tensor *t = &s.entries[i].tensor;
            require(t->n_dims >= 0 && t->n_dims <= QB_MAX_DIMS && t->bytes >= 0);
            require((const uint8_t *)t->data == at); /* in order, no hole, no overlap */
            require(qb_tensor_name_ok(t->name) && s.entries[i].dtype_name != NULL);
            for (int64_t k = 0; k < t->bytes; k++) sum = (uint8_t)(sum + at[k]);
            at += t->bytes;
            if (t->dtype != QB_DTYPE_COUNT) {
                int64_t bytes;
                require(
                    qb_shape_bytes(t->n_dims, t->shape, (unsigned)(8 * qb_dtype_bytes(t->dtype)), &bytes));
                require(bytes == t->bytes);
            }
        }
        require(at == data + size);
    } else {
        require(strchr(qb_error_text(), '\n') == NULL);
        require(s.count == 0);
    }
    qb_arena_free(&arena);
    return 0;
}
