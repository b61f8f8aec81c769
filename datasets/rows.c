#include "datasets/rows.h"

#include <stdint.h>
#include <string.h>

/* Length of the white-space character at p, 0 when it is none: what Python's str.strip() takes away
   (Unicode's White_Space, and the separators 0x1c to 0x1f). */
static size_t space_length(const unsigned char *p, size_t left) {
    if (p[0] == ' ' || (p[0] >= '\t' && p[0] <= '\r') || (p[0] >= 0x1c && p[0] <= 0x1f)) return 1;
    if (left >= 2 && p[0] == 0xc2 && (p[1] == 0x85 || p[1] == 0xa0)) return 2;
    if (left < 3) return 0;
    uint32_t c = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
    bool space = c == 0xe19a80                       /* U+1680 */
                 || (c >= 0xe28080 && c <= 0xe2808a) /* U+2000 .. U+200A */
                 || c == 0xe280a8 || c == 0xe280a9   /* U+2028, U+2029 */
                 || c == 0xe280af || c == 0xe2819f   /* U+202F, U+205F */
                 || c == 0xe38080;                   /* U+3000 */
    return space ? 3 : 0;
}

/* Narrows [*begin, *end) to what str.strip() keeps. */
static void strip(const unsigned char *p, size_t *begin, size_t *end) {
    size_t i = *begin, last = *begin;
    bool started = false;
    while (i < *end) {
        size_t space = space_length(p + i, *end - i);
        if (space == 0) {
            if (!started) *begin = i;
            started = true;
            last = ++i;
        } else {
            i += space;
        }
    }
    if (!started) *begin = last;
    *end = last;
}

qb_status qb_rows_join(const char *bytes, size_t n, qb_join join, const char *separator, qb_str *out) {
    const unsigned char *p = (const unsigned char *)bytes;
    size_t separator_length = strlen(separator);
    for (size_t i = 0; i < n;) {
        size_t begin = i, end = i;
        while (end < n && p[end] != '\n' && p[end] != '\r') end++;
        bool terminated = end < n;
        if (begin > 0) qb_str_append(out, separator, separator_length);
        i = end + (terminated ? 1 : 0);
        if (terminated && p[end] == '\r' && i < n && p[i] == '\n') i++;

        size_t kept_begin = begin, kept_end = end;
        strip(p, &kept_begin, &kept_end);
        if (join == QB_JOIN_STRIPPED_ROWS) {
            qb_str_append(out, bytes + kept_begin, kept_end - kept_begin);
        } else if (kept_end > kept_begin) {
            qb_str_append(out, bytes + begin, end - begin);
            if (terminated) qb_str_append(out, "\n", 1);
        }
    }
    return qb_str_status(out);
}
