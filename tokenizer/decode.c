/* Ids to text: the decoder's steps over a list of pieces, in the order tokenizer.json gives. Unlike the
   reference libraries, bytes that do not form a character are kept, not replaced by U+FFFD. */
#include "tokenizer/parts.h"

#include <string.h>

/* Pieces one after the other; ends[i] is where piece i ends in text. */
typedef struct pieces {
    qb_str text;
    size_t *ends;
    size_t n, capacity;
} pieces;

static qb_status close_piece(pieces *p) {
    qb_status st = qb_grow(&p->ends, &p->capacity, p->n + 1, sizeof *p->ends);
    if (st == QB_OK) p->ends[p->n++] = p->text.length;
    return st;
}

static void strip(const qb_decode_step *s, const char **text, size_t *n) {
    for (int64_t i = 0; i < s->start && *n >= s->n_from && !memcmp(*text, s->from, s->n_from); i++) {
        *text += s->n_from;
        *n -= s->n_from;
    }
    for (int64_t i = 0; i < s->stop && *n >= s->n_from && !memcmp(*text + *n - s->n_from, s->from, s->n_from);
         i++)
        *n -= s->n_from;
}

/* One piece through one step that works piece by piece. `at_start`: it is the first of the text. */
static void step_piece(const qb_decode_step *s, const char *text, size_t n, bool at_start, bool at_end,
                       qb_str *out) {
    int byte = s->kind == QB_DECODE_BYTE_FALLBACK ? qb_piece_byte(text, n) : -1;
    if (byte >= 0) {
        uint8_t c = (uint8_t)byte;
        qb_str_append(out, &c, 1);
        return;
    }
    if (s->kind == QB_DECODE_BYTE_LEVEL) {
        if (!qb_alphabet_to_bytes(text, n, out)) qb_str_append(out, text, n);
        return;
    }
    if (s->kind == QB_DECODE_STRIP) strip(s, &text, &n);
    if (s->kind == QB_DECODE_SUFFIX)
        qb_replace_all(text, n, s->from, s->n_from, " ", at_end ? 0 : 1, out);
    else if (s->kind == QB_DECODE_REPLACE)
        qb_replace_all(text, n, s->from, s->n_from, s->to, s->n_to, out);
    else if (s->kind == QB_DECODE_METASPACE)
        qb_replace_all(text, n, s->from, s->n_from, " ", at_start && s->drop_first ? 0 : 1, out);
    else
        qb_str_append(out, text, n);
}

static bool is_byte(const pieces *p, size_t i) {
    size_t begin = i ? p->ends[i - 1] : 0;
    return i < p->n && qb_piece_byte(qb_str_get(&p->text) + begin, p->ends[i] - begin) >= 0;
}

static qb_status run_step(const qb_decode_step *s, const pieces *in, pieces *out) {
    out->text.length = out->n = 0;
    qb_status st = QB_OK;
    size_t begin = 0;
    for (size_t i = 0; st == QB_OK && i < in->n; i++) {
        step_piece(s, qb_str_get(&in->text) + begin, in->ends[i] - begin, i == 0, i + 1 == in->n, &out->text);
        begin = in->ends[i];
        bool joins = s->kind == QB_DECODE_FUSE ||
                     (s->kind == QB_DECODE_BYTE_FALLBACK && is_byte(in, i) && is_byte(in, i + 1));
        if (!joins) st = close_piece(out);
    }
    if (st == QB_OK && s->kind == QB_DECODE_FUSE) st = close_piece(out);
    return st != QB_OK ? st : qb_str_status(&out->text);
}

static qb_status check_id(const qb_tokenizer *t, int32_t id) {
    if (id >= 0 && id < t->vocab.count && t->vocab.pieces[id].type != QB_PIECE_NONE) return QB_OK;
    return qb_fail(QB_ERR_FORMAT, "token id %d has no piece in the vocabulary of %d", id, t->vocab.count);
}

static qb_status decode_pipeline(const qb_tokenizer *t, const int32_t *ids, size_t n, qb_str *out) {
    pieces lists[2] = {0};
    qb_status st;
    size_t now = 0;
    for (size_t i = 0; i < n; i++) {
        QB_TRY(st, check_id(t, ids[i]));
        const qb_piece *p = &t->vocab.pieces[ids[i]];
        if (p->special) continue;
        if (!t->has_decoder && lists[0].n) qb_str_text(&lists[0].text, " ");
        qb_str_append(&lists[0].text, p->text, p->length);
        QB_TRY(st, close_piece(&lists[0]));
    }
    QB_TRY(st, qb_str_status(&lists[0].text));
    for (size_t i = 0; i < t->n_decoder; i++, now ^= 1)
        QB_TRY(st, run_step(&t->decoder[i], &lists[now], &lists[now ^ 1]));
    qb_str_append(out, qb_str_get(&lists[now].text), lists[now].text.length);
    st = qb_str_status(out);
out:
    for (size_t i = 0; i < 2; i++) {
        qb_str_free(&lists[i].text);
        qb_free(lists[i].ends);
    }
    return st;
}

static void sentencepiece_text(const qb_tokenizer *t, const qb_piece *p, qb_str *out) {
    const char *text = p->text;
    size_t n = p->length;
    int byte = p->type == QB_PIECE_BYTE ? qb_piece_byte(text, n) : -1;
    if (byte >= 0) {
        uint8_t c = (uint8_t)byte;
        qb_str_append(out, &c, 1);
    } else if (p->type == QB_PIECE_UNKNOWN) {
        qb_str_text(out, t->unk_surface);
    } else if (p->type != QB_PIECE_CONTROL && !(p->type == QB_PIECE_ADDED && p->special)) {
        qb_replace_all(text, n, QB_SPACE_SYMBOL, QB_SPACE_SYMBOL_LENGTH, " ", 1, out);
    }
}

/* SentencePiece's Decode: pieces before the first text lose one leading space symbol, all of them together
   where extra white space was not removed in encoding. Source: sentencepiece_processor.cc, behaviour checked
   against release 0.2. */
static qb_status decode_sentencepiece(const qb_tokenizer *t, const int32_t *ids, size_t n, qb_str *out) {
    const qb_normalize_step *spec = &t->normalizer[0];
    bool strips = spec->spaces.add_dummy_prefix || spec->spaces.remove_extra_whitespaces;
    bool at_start = true, stripped = false;
    size_t begin = out->length;
    for (size_t i = 0; i < n; i++) {
        qb_status st = check_id(t, ids[i]);
        if (st != QB_OK) return st;
        qb_piece p = t->vocab.pieces[ids[i]];
        bool text = p.type == QB_PIECE_NORMAL || p.type == QB_PIECE_USER_DEFINED || p.type == QB_PIECE_UNUSED;
        if (p.type != QB_PIECE_BYTE && (stripped || out->length > begin)) at_start = false;
        stripped = false;
        if (text && at_start && strips && p.length >= QB_SPACE_SYMBOL_LENGTH &&
            !memcmp(p.text, QB_SPACE_SYMBOL, QB_SPACE_SYMBOL_LENGTH)) {
            p.text += QB_SPACE_SYMBOL_LENGTH;
            p.length -= QB_SPACE_SYMBOL_LENGTH;
            stripped = !spec->spaces.remove_extra_whitespaces;
        }
        sentencepiece_text(t, &p, out);
    }
    return qb_str_status(out);
}

qb_status qb_tokenizer_decode(const qb_tokenizer *t, const int32_t *ids, size_t n, qb_str *out) {
    bool model = t->n_decoder == 1 && t->decoder[0].kind == QB_DECODE_SENTENCEPIECE;
    return model ? decode_sentencepiece(t, ids, n, out) : decode_pipeline(t, ids, n, out);
}

qb_status qb_tokenizer_piece(const qb_tokenizer *t, int32_t id, qb_str *out) {
    qb_status st = check_id(t, id);
    if (st != QB_OK) return st;
    const qb_piece *p = &t->vocab.pieces[id];
    if (t->n_decoder == 1 && t->decoder[0].kind == QB_DECODE_SENTENCEPIECE) {
        sentencepiece_text(t, p, out);
        return qb_str_status(out);
    }
    if (p->special) return QB_OK;
    if (!t->has_decoder) qb_str_text(out, " ");
    qb_str texts[2] = {0};
    size_t now = 0;
    qb_str_append(&texts[0], p->text, p->length);
    bool fused = false;
    for (size_t i = 0; i < t->n_decoder; i++) {
        const qb_decode_step *s = &t->decoder[i];
        fused |= s->kind == QB_DECODE_FUSE;
        if (fused && s->kind == QB_DECODE_STRIP) continue; /* concerns the ends of the whole text */
        texts[now ^ 1].length = 0;
        step_piece(s, qb_str_get(&texts[now]), texts[now].length, false, false, &texts[now ^ 1]);
        now ^= 1;
    }
    qb_str_append(out, qb_str_get(&texts[now]), texts[now].length);
    st = qb_str_status(out);
    if (st == QB_OK && texts[now].failed) st = qb_str_status(&texts[now]);
    qb_str_free(&texts[0]);
    qb_str_free(&texts[1]);
    return st;
}
