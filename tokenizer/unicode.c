#include "tokenizer/unicode.h"

#include "base/memory.h"
#include "tokenizer/unicode_table.h"

#include <utf8proc.h>

size_t qb_utf8_encode(uint32_t c, char out[4]) {
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

static bool in_ranges(const range *list, size_t n, uint32_t c) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (list[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && list[low].first <= c;
}
#define IN(list, c) in_ranges(list, sizeof(list) / sizeof(list)[0], c)

static const stand_in *row_of(const stand_in *list, size_t n, uint32_t c) {
    size_t low = 0, high = n;
    if (c < list[0].first) return NULL;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (list[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && list[low].first <= c ? &list[low] : NULL;
}

static uint32_t stand_in_of(uint32_t c) {
    const stand_in *row = row_of(stand_ins, sizeof stand_ins / sizeof stand_ins[0], c);
    return row ? row->instead : c;
}

static utf8proc_category_t category(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)stand_in_of(c));
}

bool qb_unicode_is_space(uint32_t c) {
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

bool qb_unicode_is_numeric(uint32_t c) {
    utf8proc_category_t k = category(c);
    /* Rust's tables are of Unicode 17. */
    return (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO) || (c >= 0x11DE0 && c <= 0x11DE9) ||
           (c >= 0x16FF4 && c <= 0x16FF6);
}

bool qb_unicode_is_punctuation(uint32_t c) {
    if (c < 0x80)
        return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
               (c >= '{' && c <= '~');
    utf8proc_category_t k = category(c);
    return (k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO) != IN(flipped_punctuation, c);
}

bool qb_unicode_is_mark(uint32_t c) {
    utf8proc_category_t k = category(c);
    return (k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME) != IN(flipped_marks, c);
}

bool qb_unicode_is_nonspacing(uint32_t c) {
    return (category(c) == UTF8PROC_CATEGORY_MN) != IN(flipped_nonspacing, c);
}

bool qb_unicode_is_control(uint32_t c) {
    if (c == '\t' || c == '\n' || c == '\r') return false;
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO;
}

bool qb_unicode_is_word(uint32_t c) {
    utf8proc_category_t k = category(c);
    bool letter = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
    bool mark = k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
    /* The rest of Alphabetic: enclosed letters. */
    bool enclosed = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
                    (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
    return letter || mark || k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL ||
           k == UTF8PROC_CATEGORY_PC || enclosed || c == 0x200C || c == 0x200D;
}

void qb_unicode_append_lower(uint32_t c, qb_str *out) {
    char bytes[4];
    if (c == 0x130) { /* the one character whose lower case is two */
        qb_str_append(out, "i\xCC\x87", 3);
        return;
    }
    const stand_in *row = row_of(newer_lower, sizeof newer_lower / sizeof newer_lower[0], c);
    uint32_t low = row ? row->instead + (c - row->first) : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    qb_str_append(out, bytes, qb_utf8_encode(low, bytes));
}

const char *qb_unicode_shadow(const char *text, size_t n, qb_str *buffer) {
    const uint8_t *p = (const uint8_t *)text;
    bool copied = false;
    for (size_t at = 0, length; at < n; at += length) {
        length = 1;
        if (p[at] < 0x80) continue;
        length = qb_utf8_length(p + at, n - at);
        uint32_t c = length ? qb_utf8_decode(p + at, n - at, &length) : 0,
                 instead = length ? stand_in_of(c) : 1;
        if (length && instead == c) continue;
        if (!copied) {
            buffer->length = 0;
            qb_str_append(buffer, text, n);
            if (buffer->failed) return NULL;
            copied = true;
        }
        if (length)
            (void)qb_utf8_encode(instead, buffer->text + at);
        else
            buffer->text[at] = 1, length = 1;
    }
    return copied ? buffer->text : NULL;
}

/* ---- normalization ---- */

/* U+11A7 is the place before the first final consonant of Hangul, and no consonant: utf8proc (2.8 and 2.10)
   composes it away. */
static bool is_inert(uint32_t c) {
    return c == 0x11A7 || (c >= unnormalized[0].first && IN(unnormalized, c));
}

/* Newer tables also compose what the reference does not know: taken apart again. */
static void append_known(const utf8proc_int32_t *points, utf8proc_ssize_t n, bool composed, qb_str *out) {
    char bytes[4];
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        utf8proc_int32_t parts[4];
        int boundary = 0;
        utf8proc_ssize_t k = 1;
        if (composed && is_inert((uint32_t)points[i]))
            k = utf8proc_decompose_char(points[i], parts, 4, UTF8PROC_DECOMPOSE, &boundary);
        else
            parts[0] = points[i];
        for (utf8proc_ssize_t j = 0; j < k && k <= 4; j++)
            qb_str_append(out, bytes, qb_utf8_encode((uint32_t)parts[j], bytes));
    }
}

/* A valid text without inert characters. */
static qb_status normalize_segment(const char *text, size_t n, bool compose, bool compatible, qb_str *out) {
    if (!n) return QB_OK;
    utf8proc_option_t options =
        (utf8proc_option_t)(UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                            (compatible ? UTF8PROC_COMPAT : 0));
    utf8proc_int32_t *points;
    size_t room = n < 64 ? 256 : 4 * n;
    qb_status st = qb_alloc(room, sizeof *points, &points);
    if (st != QB_OK) return st;
    utf8proc_ssize_t got = utf8proc_decompose((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, points,
                                              (utf8proc_ssize_t)room, options);
    if (got > (utf8proc_ssize_t)room) { /* one character may become 18 */
        qb_free(points);
        room = (size_t)got;
        if ((st = qb_alloc(room, sizeof *points, &points)) != QB_OK) return st;
        got = utf8proc_decompose((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, points,
                                 (utf8proc_ssize_t)room, options);
    }
    if (got >= 0 && compose) got = utf8proc_normalize_utf32(points, got, options);
    if (got >= 0)
        append_known(points, got, compose, out);
    else
        st = qb_fail(QB_ERR_FORMAT, "Unicode normalization failed: %s", utf8proc_errmsg(got));
    qb_free(points);
    return st == QB_OK ? qb_str_status(out) : st;
}

qb_status qb_unicode_normalize(const char *text, size_t n, bool compose, bool compatible, qb_str *out) {
    enum { SEGMENT_BYTES = 1 << 20 };
    const uint8_t *p = (const uint8_t *)text;
    size_t begin = 0, at = 0, ascii_at = 0;
    qb_status st = QB_OK;
    while (st == QB_OK && at < n) {
        size_t length = 1;
        if (p[at] < 0x80) { /* ASCII begins a new composition: what lies before may be done by itself */
            if (at - begin > SEGMENT_BYTES && ascii_at > begin) {
                st = normalize_segment(text + begin, ascii_at - begin, compose, compatible, out);
                begin = ascii_at;
            }
            ascii_at = at++;
            continue;
        }
        bool valid = qb_utf8_length(p + at, n - at) > 0;
        uint32_t c = qb_utf8_decode(p + at, n - at, &length);
        if (!valid || is_inert(c)) {
            st = normalize_segment(text + begin, at - begin, compose, compatible, out);
            qb_str_append(out, text + at, length);
            begin = at + length;
        }
        at += length;
    }
    return st == QB_OK ? normalize_segment(text + begin, n - begin, compose, compatible, out) : st;
}

size_t qb_unicode_grapheme(const char *text, size_t n) {
    const uint8_t *p = (const uint8_t *)text;
    size_t length, at;
    utf8proc_int32_t state = 0;
    uint32_t before = qb_utf8_decode(p, n, &at);
    while (at < n) {
        uint32_t c = qb_utf8_decode(p + at, n - at, &length);
        utf8proc_category_t k = category(before);
        bool control = k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_ZL ||
                       k == UTF8PROC_CATEGORY_ZP;
        if (!control && IN(newer_extends, c)) { /* behind a control character everything begins anew */
            at += length;
            continue;
        }
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)c, &state)) break;
        before = c;
        at += length;
    }
    return at;
}
