#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/pattern.h"

#include "base/memory.h"
#include "tokenizer/unicode.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

struct qb_pattern {
    pcre2_code *code; /* NULL: the literal */
    bool jit;
    char *literal;
    size_t n_literal;
};

/* ---- from Oniguruma's syntax to PCRE2's ---- */

typedef struct translation {
    const char *p, *end, *name, *whole;
    qb_str out;
} translation;

static qb_status refuse(const translation *t, const char *what) {
    return qb_fail(QB_ERR_UNSUPPORTED, "%s: the regular expression \"%.200s\" has %s, which is not supported",
                   t->name, t->whole, what);
}

/* An escape, inside a class or outside. */
static qb_status escape(translation *t, bool in_class) {
    if (t->end - t->p < 2) return refuse(t, "a backslash at its end");
    char c = t->p[1];
    size_t n = 2;
    switch (c) {
    case 'u': /* \uHHHH */
        if (t->end - t->p < 6) return refuse(t, "a broken \\u");
        qb_str_printf(&t->out, "\\x{%.4s}", t->p + 2);
        n = 6;
        break;
    case 'w': /* PCRE2's lacks marks and connectors */
        qb_str_text(&t->out, in_class ? "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
                                      : "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]");
        break;
    case 'W':
        if (in_class) return refuse(t, "\\W in a class");
        qb_str_text(&t->out, "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]");
        break;
    case 'h': /* Oniguruma: a hexadecimal digit */
    case 'H':
    case 'R':
    case 'X':
    case 'G':
    case 'K':
    case 'y':
    case 'Y':
    case 'O':
    case 'N': {
        char what[16];
        snprintf(what, sizeof what, "\\%c", c);
        return refuse(t, what);
    }
    case 'p':
    case 'P': {
        const char *close =
            t->end - t->p > 3 && t->p[2] == '{' ? memchr(t->p, '}', (size_t)(t->end - t->p)) : NULL;
        if (!close) return refuse(t, "\\p without a name in braces");
        const char *property = t->p + 3;
        bool negated = *property == '^';
        property += negated;
        size_t length = (size_t)(close - property);
        /* PCRE2 takes a bare script's name for its extensions. */
        bool script = length > 2 && memcmp(property, "Alphabetic", length < 10 ? length : 10) != 0 &&
                      memcmp(property, "Any", 3) != 0;
        qb_str_printf(&t->out, "\\%c{%s%s%.*s}", c, negated ? "^" : "", script ? "sc:" : "", (int)length,
                      property);
        n = (size_t)(close + 1 - t->p);
        break;
    }
    default:
        qb_str_append(&t->out, t->p, 2);
    }
    t->p += n;
    return QB_OK;
}

/* A class without its '['. Oniguruma nests classes: a set within a set is the union, which is written flat.
   "[A&&[^B]]" is an A that is no B. */
static qb_status char_class(translation *t, bool nested) {
    size_t start = t->out.length;
    bool negated = t->p < t->end && *t->p == '^', first = true;
    if (negated && nested) return refuse(t, "a negated set in a class");
    if (!nested) qb_str_text(&t->out, negated ? "[^" : "[");
    t->p += negated;
    for (qb_status st = QB_OK; t->p < t->end; first = false) {
        if (*t->p == ']' && !first) {
            t->p++;
            if (!nested) qb_str_text(&t->out, "]");
            return QB_OK;
        }
        if (t->end - t->p > 3 && !memcmp(t->p, "&&[^", 4) && !nested && !negated) {
            qb_str left = {0};
            qb_str_append(&left, t->out.text + start, t->out.length - start);
            t->out.length = start;
            t->p += 4;
            qb_str_text(&t->out, "(?:(?![");
            st = char_class(t, true);
            qb_str_printf(&t->out, "])%s])", qb_str_get(&left));
            qb_str_free(&left);
            if (st != QB_OK) return st;
            if (t->p >= t->end || *t->p != ']') return refuse(t, "a set behind an intersection");
            t->p++;
            return QB_OK;
        }
        if (t->end - t->p > 1 && !memcmp(t->p, "&&", 2)) return refuse(t, "an intersection of sets");
        if (*t->p == '\\') {
            st = escape(t, true);
        } else if (*t->p == '[') {
            if (t->end - t->p > 1 && t->p[1] == ':') return refuse(t, "a POSIX bracket");
            t->p++;
            st = char_class(t, true);
        } else {
            if (*t->p == '^' || *t->p == ']') qb_str_text(&t->out, "\\");
            qb_str_append(&t->out, t->p++, 1);
        }
        if (st != QB_OK) return st;
    }
    return refuse(t, "an unclosed class");
}

static qb_status translate(translation *t) {
    qb_status st = QB_OK;
    while (st == QB_OK && t->p < t->end) {
        if (*t->p == '\\') {
            st = escape(t, false);
        } else if (*t->p == '[') {
            t->p++;
            st = char_class(t, false);
        } else if (t->end - t->p > 2 && !memcmp(t->p, "(?~", 3)) {
            st = refuse(t, "an absent operator");
        } else {
            qb_str_append(&t->out, t->p++, 1);
        }
    }
    return st == QB_OK ? qb_str_status(&t->out) : st;
}

static qb_status compile(const char *pattern, size_t n, const translation *t, qb_pattern *p) {
    int code;
    PCRE2_SIZE at;
    /* Ruby's syntax: ^ and $ are of lines. */
    p->code =
        pcre2_compile((PCRE2_SPTR)pattern, n, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &at, NULL);
    if (!p->code) {
        PCRE2_UCHAR why[160];
        pcre2_get_error_message(code, why, sizeof why);
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: the regular expression \"%.200s\" is not supported: %s",
                       t->name, t->whole, (const char *)why);
    }
    p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
    return QB_OK;
}

qb_status qb_pattern_compile(const char *text, size_t n, const char *name, qb_pattern **out) {
    translation t = {.p = text, .end = text + n, .name = name, .whole = text};
    qb_status st;
    QB_TRY(st, qb_alloc_zero(1, sizeof **out, out));
    QB_TRY(st, translate(&t));
    st = compile(qb_str_get(&t.out), t.out.length, &t, *out);
out:
    qb_str_free(&t.out);
    if (st != QB_OK) {
        qb_pattern_free(*out);
        *out = NULL;
    }
    return st;
}

qb_status qb_pattern_literal(const char *text, size_t n, qb_pattern **out) {
    qb_status st = qb_alloc_zero(1, sizeof **out, out);
    if (st == QB_OK) st = qb_alloc(n + 1, 1, &(*out)->literal);
    if (st != QB_OK) {
        qb_pattern_free(*out);
        *out = NULL;
        return st;
    }
    memcpy((*out)->literal, text, n);
    (*out)->n_literal = n;
    return QB_OK;
}

void qb_pattern_free(qb_pattern *p) {
    if (!p) return;
    pcre2_code_free(p->code);
    qb_free(p->literal);
    qb_free(p);
}

/* ---- matching ---- */

void qb_matching_free(qb_matching *m) {
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    qb_str_free(&m->shadow);
    *m = (qb_matching){0};
}

qb_status qb_matching_begin(qb_matching *m, const char *text, size_t n, const char **subject) {
    enum { STACK_LEAST = 32 << 10, STACK_MOST = 64 << 20 };
    if (!m->data) {
        m->data = pcre2_match_data_create(1, NULL);
        m->context = pcre2_match_context_create(NULL);
        m->stack = pcre2_jit_stack_create(STACK_LEAST, STACK_MOST, NULL);
        if (!m->data || !m->context || !m->stack) return qb_fail(QB_ERR_MEMORY, "out of memory");
        pcre2_jit_stack_assign(m->context, NULL, m->stack);
    }
    const char *shadow = qb_unicode_shadow(text, n, &m->shadow);
    *subject = shadow ? shadow : text;
    return qb_str_status(&m->shadow);
}

static bool next_literal(const qb_pattern *p, const char *subject, size_t n, size_t from, size_t *begin,
                         size_t *end) {
    const char *at = subject + from, *stop = subject + n;
    while (p->n_literal && (size_t)(stop - at) >= p->n_literal &&
           (at = memchr(at, p->literal[0], (size_t)(stop - at) - p->n_literal + 1))) {
        if (!memcmp(at, p->literal, p->n_literal)) {
            *begin = (size_t)(at - subject);
            *end = *begin + p->n_literal;
            return true;
        }
        at++;
    }
    return false;
}

static qb_status next_match(const qb_pattern *p, qb_matching *m, const char *subject, size_t n, size_t from,
                            size_t *begin, size_t *end, bool *found) {
    *found = false;
    if (!p->code) {
        *found = next_literal(p, subject, n, from, begin, end);
        return QB_OK;
    }
    int got =
        p->jit ? pcre2_jit_match(p->code, (PCRE2_SPTR)subject, n, from, 0, m->data, m->context)
               : pcre2_match(p->code, (PCRE2_SPTR)subject, n, from, PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (got == PCRE2_ERROR_NOMATCH) return QB_OK;
    if (got < 0) {
        PCRE2_UCHAR why[160];
        pcre2_get_error_message(got, why, sizeof why);
        return qb_fail(QB_ERR_FORMAT, "the tokenizer's regular expression gave up on a text of %zu bytes: %s",
                       n, (const char *)why);
    }
    const PCRE2_SIZE *where = pcre2_get_ovector_pointer(m->data);
    *begin = where[0];
    *end = where[1];
    *found = true;
    return QB_OK;
}

static size_t character_length(const char *text, size_t at, size_t n) {
    size_t length = qb_utf8_length((const uint8_t *)text + at, n - at);
    return length ? length : 1;
}

qb_status qb_matches_next(qb_matches *w, size_t *begin, size_t *end, bool *found) {
    for (*found = false; !w->over && w->from <= w->n;) {
        qb_status st = next_match(w->pattern, w->matching, w->subject, w->n, w->from, begin, end, found);
        if (st != QB_OK || !*found) return st;
        bool empty = *begin == *end, nothing = empty && w->any && *begin == w->last_end;
        if (empty && *end >= w->n) w->over = true;
        w->from = empty && !w->over ? *end + character_length(w->subject, *end, w->n) : *end;
        if (!nothing) {
            w->last_end = *end;
            w->any = true;
            return QB_OK;
        }
        *found = false;
    }
    return QB_OK;
}
