/* vocab.json up to the first NUL byte, then merges.txt. What opens must encode and decode anything. */
#include "tests/fuzz/fuzz.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = " a  the\xF0\x9F\x9A\x80\xFF\xE2\x96\x81<s>x</s>\n\0b aaaa12";
    const uint8_t *end = memchr(data, 0, size);
    size_t n = end ? (size_t)(end - data) : size;
    const char *merges = end ? (const char *)end + 1 : "";
    qb_tokenizer *t;
    qb_ids ids = {0};
    qb_str back = {0};
    if (qb_tokenizer_parse_merges((const char *)data, n, merges, end ? size - n - 1 : 0,
                                  size % 2 ? "gpt2" : "Qwen2Tokenizer", size % 3 == 0, "fuzz", &t) != QB_OK)
        return 0;
    if (qb_tokenizer_encode(t, text, sizeof text - 1, true, &ids) == QB_OK &&
        qb_tokenizer_decode(t, ids.ids, ids.count, &back) != QB_OK)
        abort();
    qb_ids_free(&ids);
    qb_str_free(&back);
    qb_tokenizer_close(t);
    return 0;
}
