/* A tiktoken file or a tekken.json. What opens must encode and decode anything. The number of pieces that a
   tiktoken file must have is large, so most inputs end there; tekken.json goes all the way. */
#include "tests/fuzz/fuzz.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = " a  the\xF0\x9F\x9A\x80\xFF\xE2\x96\x81<s>x</s>\n\0b aaaa12";
    qb_tokenizer *t;
    qb_ids ids = {0};
    qb_str back = {0};
    if (qb_tokenizer_parse_ranks((const char *)data, size, "fuzz", &t) != QB_OK) return 0;
    if (qb_tokenizer_encode(t, text, sizeof text - 1, true, &ids) == QB_OK &&
        qb_tokenizer_decode(t, ids.ids, ids.count, &back) != QB_OK)
        abort();
    qb_ids_free(&ids);
    qb_str_free(&back);
    qb_tokenizer_close(t);
    return 0;
}
