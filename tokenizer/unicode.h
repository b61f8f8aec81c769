/* Characters as the reference libraries see them: categories of Unicode 16, whatever version the installed
   utf8proc and PCRE2 have. */
#pragma once

#include "base/str.h"
#include "tokenizer/utf8.h"

/* The character at p (n > 0 bytes), its bytes in *length; a byte that begins none is U+FFFD, length 1. */
static inline uint32_t qb_utf8_decode(const uint8_t *p, size_t n, size_t *length) {
    size_t k = qb_utf8_length(p, n);
    *length = k ? k : 1;
    if (k == 1) return p[0];
    if (k == 2) return (uint32_t)(p[0] & 31) << 6 | (p[1] & 63);
    if (k == 3) return (uint32_t)(p[0] & 15) << 12 | (uint32_t)(p[1] & 63) << 6 | (p[2] & 63);
    if (k == 4)
        return (uint32_t)(p[0] & 7) << 18 | (uint32_t)(p[1] & 63) << 12 | (uint32_t)(p[2] & 63) << 6 |
               (p[3] & 63);
    return 0xFFFD;
}
/* Writes c as UTF-8 and returns the bytes (1..4). */
size_t qb_utf8_encode(uint32_t c, char out[4]);

bool qb_unicode_is_space(uint32_t c);       /* White_Space */
bool qb_unicode_is_numeric(uint32_t c);     /* Nd, Nl, No: Rust's char::is_numeric */
bool qb_unicode_is_punctuation(uint32_t c); /* ASCII's 32 and the tokenizers library's P* */
bool qb_unicode_is_mark(uint32_t c);        /* Mn, Mc, Me */
bool qb_unicode_is_nonspacing(uint32_t c);  /* Mn */
bool qb_unicode_is_control(uint32_t c);     /* Cc, Cf, Co but tab and newlines: BERT's */
bool qb_unicode_is_word(uint32_t c);        /* \w of Rust's regex */
/* Appends the lower case of c: Unicode's full mapping without context. */
void qb_unicode_append_lower(uint32_t c, qb_str *out);

/* NULL when n bytes of text hold only characters that every table sees alike; else the text with each of the
   others, and each byte that begins no character, replaced by one of the same length and category. For
   matching: offsets stay. The result lies in `buffer`, whose `failed` tells of exhaustion. */
const char *qb_unicode_shadow(const char *text, size_t n, qb_str *buffer);

/* NFC, NFD (compose false), NFKC, NFKD (compatible), appended to out. Characters newer than the reference's
   tables are left as they are. Bytes that begin no character stay. */
qb_status qb_unicode_normalize(const char *text, size_t n, bool compose, bool compatible,
                               qb_str *out) QB_NODISCARD;
/* Bytes of the extended grapheme cluster at p, at least one. */
size_t qb_unicode_grapheme(const char *p, size_t n);
