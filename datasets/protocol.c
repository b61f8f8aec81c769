/* Perplexity protocols: how a text's ids are cut, what is scored and how it is reduced. The definitions are
   those of the GPTQ paper's code (IST-DASLab/gptq 2d65066, llama.py), llama.cpp (tools/perplexity) and the
   Hugging Face guide "Perplexity of fixed-length models". */
#include "base/memory.h"
#include "base/str.h"
#include "datasets/datasets.h"
#include "datasets/windows.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct protocol_row {
    const char *name;
    int32_t window, stride, min_window; /* defaults; stride 0: equal to the window */
    const char *form, *summary;
} protocol_row;

/* Indexed by qb_protocol_kind. llamacpp scores window -
   window/2 - 1 targets, so 4 is the least that scores one. */
static const protocol_row protocols[QB_PROTOCOL_COUNT] = {
    {"gptq", 2048, 0, 2, "gptq-<window>",
     "disjoint windows of the joined text, remainder dropped; every token of a window but its first is "
     "scored; exp of the "
     "mean of the windows' means (GPTQ paper)"},
    {"llamacpp", 512, 0, 4, "llamacpp-<window>",
     "disjoint windows of the file's raw bytes, the first token of each replaced by BOS; the second half of "
     "each is scored; "
     "exp of the mean over tokens (llama.cpp)"},
    {"strided", 1024, 512, 2, "strided-<window>-<stride>",
     "overlapping windows of the joined text; each token is scored once, with at least window - stride "
     "tokens before it but "
     "at the start; exp of the mean over tokens (Hugging Face)"},
};

enum { MAX_WINDOW = 1 << 20 };

const char *qb_protocol_summary(qb_protocol_kind kind) {
    return (unsigned)kind < QB_PROTOCOL_COUNT ? protocols[kind].summary : "";
}

static qb_status fail_unknown(const char *text, size_t length) {
    char word[32];
    const char *names[QB_PROTOCOL_COUNT];
    for (int i = 0; i < QB_PROTOCOL_COUNT; i++) names[i] = protocols[i].name;
    snprintf(word, sizeof word, "%.*s", (int)length, text);
    char hint[QB_HINT_CHARS];
    return qb_fail(QB_ERR_USAGE,
                   "unknown protocol \"%.64s\": expected gptq-<window>, llamacpp-<window> or "
                   "strided-<window>-<stride>%s",
                   text, qb_did_you_mean(word, names, QB_PROTOCOL_COUNT, hint));
}

/* A run of digits after '-', at most MAX_WINDOW; *p moves behind it. */
static bool read_number(const char **p, int32_t *out) {
    if (**p != '-') return false;
    const char *digit = *p + 1;
    int32_t value = 0;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        value = value * 10 + (*digit - '0');
        if (value > MAX_WINDOW) return false;
    }
    if (digit == *p + 1) return false;
    *p = digit;
    *out = value;
    return true;
}

qb_status qb_protocol_parse(const char *text, qb_protocol *out) {
    *out = (qb_protocol){0};
    size_t length = strcspn(text, "-");
    int kind = 0;
    while (kind < QB_PROTOCOL_COUNT &&
           (strlen(protocols[kind].name) != length || strncmp(text, protocols[kind].name, length) != 0))
        kind++;
    if (kind == QB_PROTOCOL_COUNT) return fail_unknown(text, length);
    const protocol_row *row = &protocols[kind];
    int32_t window = row->window, stride = row->stride;
    const char *p = text + length;
    bool ok = true;
    if (*p) {
        ok = read_number(&p, &window);
        stride = row->stride ? window / 2 : 0;
        if (ok && *p && row->stride) ok = read_number(&p, &stride);
    }
    if (!row->stride) stride = window;
    if (!ok || *p || window < row->min_window || stride < 1 || stride > window)
        return qb_fail(QB_ERR_USAGE, "protocol \"%.64s\": expected %s with %d <= window <= %d%s", text,
                       row->form, row->min_window, MAX_WINDOW,
                       row->stride ? " and 1 <= stride <= window" : "");
    out->kind = (qb_protocol_kind)kind;
    out->window = window;
    out->stride = stride;
    int wrote = row->stride ? snprintf(out->name, sizeof out->name, "%s-%d-%d", row->name, window, stride)
                            : snprintf(out->name, sizeof out->name, "%s-%d", row->name, window);
    return wrote > 0 ? QB_OK : qb_fail(QB_ERR_INTERNAL, "cannot print the protocol's name");
}

qb_special_tokens qb_protocol_special_tokens(qb_protocol_kind kind) {
    return kind == QB_PROTOCOL_LLAMACPP ? QB_SPECIAL_TEXT : QB_SPECIAL_FILE;
}

/* llama.cpp needs two windows of text to begin. */
static int64_t windows_needed(const qb_protocol *p) {
    return p->kind == QB_PROTOCOL_LLAMACPP ? 2 : 1;
}

int64_t qb_protocol_tokens(const qb_protocol *p, int64_t max_windows) {
    if (max_windows <= 0 || max_windows > INT64_MAX / MAX_WINDOW / 2) return 0;
    int64_t tokens = p->window + (max_windows - 1) * p->stride, least = windows_needed(p) * p->window;
    return tokens > least ? tokens : least;
}

static int64_t count_windows(const qb_protocol *p, int64_t tokens) {
    if (tokens < p->window) return 0;
    if (p->kind != QB_PROTOCOL_STRIDED) return tokens / p->window;
    return 1 + (tokens - p->window + p->stride - 1) / p->stride; /* the last one ends with the text */
}

/* Perplexity of less than one window (llama.cpp: of less than two) is not what the protocol names. */
static qb_status check_length(const qb_protocol *p, int64_t tokens, const char *where) {
    int32_t needed = (int32_t)windows_needed(p);
    if (tokens / needed >= p->window) return QB_OK;
    const protocol_row *row = &protocols[p->kind];
    int64_t fits = tokens / needed;
    char advice[96] = "use a longer text";
    if (fits >= row->min_window)
        snprintf(advice, sizeof advice, "use a longer text or --protocol %s-%" PRId64, row->name, fits);
    return qb_fail(QB_ERR_FORMAT, "%s: too short for %s: %" PRId64 " tokens, %d are needed: %s", where,
                   p->name, tokens, needed * p->window, advice);
}

static qb_window window_at(const qb_protocol *p, int64_t index, int64_t tokens) {
    qb_window w = {.offset = index * p->stride, .length = p->window, .score_begin = 1};
    if (p->kind == QB_PROTOCOL_LLAMACPP) {
        w.score_begin = p->window / 2 + 1;
    } else if (p->kind == QB_PROTOCOL_STRIDED && index > 0) {
        int64_t scored_before = w.offset - p->stride + p->window;
        if (w.offset + w.length > tokens) w.length = (int32_t)(tokens - w.offset);
        w.score_begin = (int32_t)(scored_before - w.offset);
        if (w.score_begin < 1) w.score_begin = 1; /* stride = window: its first token has nothing before it */
    }
    w.score_end = w.length;
    return w;
}

static qb_status cut(const qb_protocol *p, int32_t bos, int64_t max_windows, const char *where,
                     qb_windows *out) {
    qb_status st = check_length(p, out->total_tokens, where);
    if (st != QB_OK) return st;
    int64_t n = count_windows(p, out->total_tokens);
    if (max_windows > 0 && max_windows < n) n = max_windows;
    st = qb_alloc((size_t)n, sizeof *out->windows, &out->windows);
    if (st != QB_OK) return st;
    for (int64_t i = 0; i < n; i++) {
        qb_window w = window_at(p, i, out->total_tokens);
        if (w.score_begin >= w.score_end) continue; /* one lone token at the end, when stride = window */
        if (p->kind == QB_PROTOCOL_LLAMACPP && bos >= 0) out->ids[w.offset] = bos;
        if (w.length > out->max_length) out->max_length = w.length;
        out->windows[out->count++] = w;
    }
    out->mean = p->kind == QB_PROTOCOL_GPTQ ? QB_MEAN_OF_WINDOWS : QB_MEAN_OF_TOKENS;
    return QB_OK;
}

qb_status qb_protocol_cut(const qb_protocol *p, qb_ids *ids, int32_t bos, int64_t max_windows,
                          const char *where, qb_windows *out) {
    qb_status st = qb_windows_take(ids, (int64_t)ids->count, p->name, out);
    if (st == QB_OK) st = cut(p, bos, max_windows, where, out);
    if (st != QB_OK) qb_windows_free(out);
    return st;
}
