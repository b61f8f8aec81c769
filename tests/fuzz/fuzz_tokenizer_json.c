/* tokenizer.json up to the first NUL byte, then a text for it. What opens must encode and decode anything. */
#include "tests/fuzz/fuzz.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static void use(const qb_tokenizer *t, const char *text, size_t n) {
    qb_ids ids = {0};
    qb_str back = {0};
    if (qb_tokenizer_encode(t, text, n, true, &ids) == QB_OK) {
        /* Every id that encoding gives has a piece. */
        if (qb_tokenizer_decode(t, ids.ids, ids.count, &back) != QB_OK) abort();
        for (size_t i = 0; i < ids.count; i++)
            if (qb_tokenizer_piece(t, ids.ids[i], &back) != QB_OK) abort();
    }
    qb_ids_free(&ids);
    qb_str_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = " a  the\xF0\x9F\x9A\x80\xFF\xE2\x96\x81<s>x</s>\n\0b aaaa";
    const uint8_t *end = memchr(data, 0, size);
    size_t n = end ? (size_t)(end - data) : size;
    qb_tokenizer *t;
    if (qb_tokenizer_parse_json((const char *)data, n, "fuzz.json", &t) != QB_OK) return 0;
    use(t, text, sizeof text - 1);
    if (end) use(t, (const char *)end + 1, size - n - 1);
    qb_tokenizer_close(t);
    return 0;
}
