/* A precompiled character map behind its length (two bytes), then a text for both libraries' ways of applying
 * it. */
#include "base/memory.h"
#include "tests/fuzz/fuzz.h"
#include "tokenizer/charsmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    size_t n = (size_t)data[0] << 8 | data[1];
    if (n > size - 2) n = size - 2;
    qb_charsmap map;
    qb_str out = {0};
    if (qb_charsmap_parse(data + 2, n, "fuzz", &map) != QB_OK) return 0;
    const char *text = (const char *)data + 2 + n, *piece;
    size_t left = size - 2 - n, n_piece;
    qb_charsmap_apply(&map, text, left, &out);
    for (size_t at = 0; at < left; at++)
        if (qb_charsmap_longest(&map, text + at, left - at, &piece, &n_piece))
            qb_str_append(&out, piece, n_piece);
    qb_str_free(&out);
    qb_charsmap_free(&map);
    return 0;
}
