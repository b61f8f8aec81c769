#include "base/colour.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static qb_colour_when asked = QB_COLOUR_AUTO;

void qb_colour_set(qb_colour_when when) {
    asked = when;
}

bool qb_colour_wanted(int fd) {
    if (asked != QB_COLOUR_AUTO) return asked == QB_COLOUR_ALWAYS;
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return !(no && *no) && term && *term && strcmp(term, "dumb") != 0 && isatty(fd);
}

const char *qb_colour_begin(qb_paint paint, bool wanted) {
    static const char *const sequences[QB_N_PAINTS] = {"\033[1m", "\033[1;31m", "\033[32m", "\033[33m"};
    return wanted ? sequences[paint] : "";
}

const char *qb_colour_end(bool wanted) {
    return wanted ? "\033[0m" : "";
}

static bool in_word(char c) {
    return isalnum((unsigned char)c) || c == '_' || c == '-' || ((unsigned char)c & 0x80);
}

static const qb_painted_word *word_at(const char *text, size_t n, const qb_painted_word *words) {
    for (; words && words->word; words++) {
        size_t length = strlen(words->word);
        if (length <= n && !strncmp(text, words->word, length) && (length == n || !in_word(text[length])))
            return words;
    }
    return NULL;
}

void qb_colour_text(const char *text, size_t n, const qb_painted_word *words, bool heads, qb_str *out) {
    const char *end = text + n;
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t length = stop ? (size_t)(stop - text) : (size_t)(end - text);
        if (heads && length && *text != ' ') {
            qb_str_text(out, qb_colour_begin(QB_BOLD, true));
            qb_str_append(out, text, length);
            qb_str_text(out, qb_colour_end(true));
        } else {
            for (size_t i = 0; i < length;) {
                bool starts = i == 0 || !in_word(text[i - 1]);
                const qb_painted_word *w = starts ? word_at(text + i, length - i, words) : NULL;
                if (w)
                    qb_str_printf(out, "%s%s%s", qb_colour_begin(w->paint, true), w->word,
                                  qb_colour_end(true));
                if (!w) qb_str_append(out, text + i, 1);
                i += w ? strlen(w->word) : 1;
            }
        }
        if (stop) qb_str_text(out, "\n");
        text += length + (stop != NULL);
    }
}
