#include "tools/corpus/corpus.h"

#include "base/memory.h"
#include "base/rng.h"
#include "base/str.h"
#include "tools/corpus/corpus_lexicon.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <string.h>

struct qb_corpus {
    qb_arena arena;
    qb_lexicon lexicon;
};

/* Symbols of the grammar: slots write, phrases expand. */
typedef enum {
    END,
    COMMA,
    STOP,
    LINE, /* punctuation: no choice, no word */
    OPENER,
    TOPIC,
    HERO, /* drawn once a paragraph, then remembered */
    SUBJECT_ARTICLE,
    OBJECT_ARTICLE, /* draw article and noun together: the article shows the noun's class */
    NOUN,
    ADJECTIVE,
    SUBJECT_NAME,
    OBJECT_NAME,
    PRONOUN, /* the hero again: no choice */
    COPULA,
    VERB,
    ACTION,
    ADVERB,
    PREPOSITION,
    CONJUNCTION,
    SUBORDINATOR,
    RELATIVE,
    SLOT_COUNT,
    PARAGRAPH = SLOT_COUNT,
    OPENING,
    SENTENCE,
    CLAUSE,
    SUBJECT,
    PREDICATE,
    OBJECT,
} symbol;

enum { BODY_MAX = 11 };
typedef struct {
    symbol head;
    int weight;
    symbol body[BODY_MAX]; /* ends with END */
} rule;

/* Alternatives of one head stand together. No phrase leads
   back to itself, so expectations are finite sums. */
static const rule rules[] = {
    {PARAGRAPH, 2, {OPENING, SENTENCE, SENTENCE, SENTENCE, SENTENCE, LINE}},
    {PARAGRAPH, 3, {OPENING, SENTENCE, SENTENCE, SENTENCE, SENTENCE, SENTENCE, LINE}},
    {PARAGRAPH, 3, {OPENING, SENTENCE, SENTENCE, SENTENCE, SENTENCE, SENTENCE, SENTENCE, LINE}},
    {PARAGRAPH, 2, {OPENING, SENTENCE, SENTENCE, SENTENCE, SENTENCE, SENTENCE, SENTENCE, SENTENCE, LINE}},
    {PARAGRAPH,
     1,
     {OPENING, SENTENCE, SENTENCE, SENTENCE, SENTENCE, SENTENCE, SENTENCE, SENTENCE, SENTENCE, LINE}},
    {OPENING, 1, {OPENER, TOPIC, COMMA, HERO, COPULA, ADJECTIVE, STOP}},
    {SENTENCE, 4, {CLAUSE, STOP}},
    {SENTENCE, 1, {ADVERB, COMMA, CLAUSE, STOP}},
    {SENTENCE, 2, {CLAUSE, CONJUNCTION, CLAUSE, STOP}},
    {SENTENCE, 1, {SUBORDINATOR, CLAUSE, COMMA, CLAUSE, STOP}},
    {CLAUSE, 1, {SUBJECT, PREDICATE}},
    {SUBJECT, 4, {SUBJECT_ARTICLE, NOUN}},
    {SUBJECT, 1, {SUBJECT_ARTICLE, ADJECTIVE, NOUN}},
    {SUBJECT, 2, {SUBJECT_ARTICLE, NOUN, PREPOSITION, OBJECT_ARTICLE, NOUN}},
    {SUBJECT, 1, {SUBJECT_ARTICLE, NOUN, RELATIVE, VERB}},
    {SUBJECT, 3, {SUBJECT_NAME}},
    {SUBJECT, 3, {PRONOUN}},
    {PREDICATE, 2, {VERB}},
    {PREDICATE, 1, {VERB, ADVERB}},
    {PREDICATE, 2, {VERB, PREPOSITION, OBJECT}},
    {PREDICATE, 4, {ACTION, OBJECT}},
    {PREDICATE, 1, {ACTION, OBJECT, ADVERB}},
    {OBJECT, 4, {OBJECT_ARTICLE, NOUN}},
    {OBJECT, 2, {OBJECT_ARTICLE, ADJECTIVE, NOUN}},
    {OBJECT, 1, {OBJECT_NAME}},
};
enum { RULE_COUNT = sizeof rules / sizeof rules[0] };

/* The kinds of words a slot draws, with how many: QB_CORPUS_KIND_COUNT for none. */
static const struct {
    qb_corpus_kind first, second;
} slot_draws[SLOT_COUNT] = {
#define NONE QB_CORPUS_KIND_COUNT
    [COMMA] = {NONE, NONE},
    [STOP] = {NONE, NONE},
    [LINE] = {NONE, NONE},
    [OPENER] = {QB_CORPUS_OPENER, NONE},
    [TOPIC] = {QB_CORPUS_TOPIC, NONE},
    [HERO] = {QB_CORPUS_NAME, NONE},
    [SUBJECT_ARTICLE] = {QB_CORPUS_NOUN, QB_CORPUS_ARTICLE},
    [OBJECT_ARTICLE] = {QB_CORPUS_NOUN, QB_CORPUS_ARTICLE},
    [NOUN] = {NONE, NONE},
    [ADJECTIVE] = {QB_CORPUS_ADJECTIVE, NONE},
    [SUBJECT_NAME] = {NONE, NONE},
    [OBJECT_NAME] = {NONE, NONE},
    [PRONOUN] = {NONE, NONE},
    [COPULA] = {NONE, NONE},
    [VERB] = {QB_CORPUS_VERB, NONE},
    [ACTION] = {QB_CORPUS_ACTION, NONE},
    [ADVERB] = {QB_CORPUS_ADVERB, NONE},
    [PREPOSITION] = {QB_CORPUS_PREPOSITION, NONE},
    [CONJUNCTION] = {QB_CORPUS_CONJUNCTION, NONE},
    [SUBORDINATOR] = {QB_CORPUS_SUBORDINATOR, NONE},
    [RELATIVE] = {QB_CORPUS_RELATIVE, NONE},
#undef NONE
};

static bool is_punctuation(symbol s) {
    return s == COMMA || s == STOP || s == LINE;
}

/* A text being written. The paragraph's memory is what makes it more than a bag of words. */
typedef struct {
    const qb_lexicon *lexicon;
    qb_pyrandom rng;
    qb_str text;
    int64_t words;
    double nll_nats;
    int topic, hero, noun;   /* of this paragraph; the noun whose article stands written */
    int subject, noun_class; /* classes for the next verb, for the next adjective */
    bool line_start, sentence_start;
} writer;

static void write_word(writer *w, qb_corpus_kind k, int word, int form) {
    const qb_lexicon_kind *kind = &w->lexicon->kinds[k];
    const char *spelling = kind->spelling[word * kind->forms + form];
    char first = spelling[0];
    if (w->sentence_start || k == QB_CORPUS_NAME) first = (char)toupper((unsigned char)first);
    if (!w->line_start) qb_str_append(&w->text, " ", 1);
    qb_str_append(&w->text, &first, 1);
    qb_str_text(&w->text, spelling + 1);
    w->line_start = w->sentence_start = false;
    w->words++;
}

static int draw(writer *w, qb_corpus_kind kind, int order) {
    return qb_lexicon_draw(&w->lexicon->kinds[kind], order, &w->rng, &w->nll_nats);
}

static void write_punctuation(writer *w, symbol s) {
    qb_str_text(&w->text, s == COMMA ? "," : s == STOP ? "." : "\n");
    if (s != COMMA) w->sentence_start = true;
    if (s == LINE) w->line_start = true;
}

/* Slots that draw an unremembered word in the order and form of a class, or of none. */
static void write_plain(writer *w, symbol s) {
    qb_corpus_kind kind = slot_draws[s].first;
    int class = s == ADJECTIVE ? w->noun_class : w->subject;
    const qb_lexicon_kind *k = &w->lexicon->kinds[kind];
    int word = draw(w, kind, k->orders > 1 ? class : 0);
    write_word(w, kind, word, k->forms > 1 ? class : 0);
}

static void write_slot(writer *w, symbol s) {
    int article;
    switch (s) {
    case TOPIC:
        w->topic = draw(w, QB_CORPUS_TOPIC, 0);
        write_word(w, QB_CORPUS_TOPIC, w->topic, 0);
        break;
    case HERO:
        w->hero = draw(w, QB_CORPUS_NAME, 0);
        /* fall through */
    case SUBJECT_NAME:
        w->subject = w->noun_class = w->hero % QB_CORPUS_CLASSES;
        /* fall through */
    case OBJECT_NAME:
        write_word(w, QB_CORPUS_NAME, w->hero, 0);
        break;
    case PRONOUN:
        w->subject = w->hero % QB_CORPUS_CLASSES;
        write_word(w, QB_CORPUS_PRONOUN, 0, w->subject);
        break;
    case COPULA:
        write_word(w, QB_CORPUS_COPULA, 0, w->subject);
        break;
    case SUBJECT_ARTICLE:
    case OBJECT_ARTICLE:
        w->noun = draw(w, QB_CORPUS_NOUN, w->topic);
        w->noun_class = w->noun % QB_CORPUS_CLASSES;
        if (s == SUBJECT_ARTICLE) w->subject = w->noun_class;
        article = draw(w, QB_CORPUS_ARTICLE, 0);
        write_word(w, QB_CORPUS_ARTICLE, article, w->noun_class);
        break;
    case NOUN:
        write_word(w, QB_CORPUS_NOUN, w->noun, 0);
        break;
    default:
        write_plain(w, s);
    }
}

static int head_weight(symbol head) {
    int total = 0;
    for (int i = 0; i < RULE_COUNT; i++)
        if (rules[i].head == head) total += rules[i].weight;
    return total;
}

static const rule *choose(writer *w, symbol head) {
    int total = head_weight(head);
    assert(total > 0 && "a phrase without rules");
    int64_t at = qb_pyrandom_randint(&w->rng, 0, total - 1);
    const rule *r = rules;
    while (r->head != head || at >= r->weight) {
        if (r->head == head) at -= r->weight;
        r++;
    }
    w->nll_nats -= log((double)r->weight / total);
    return r;
}

static void write_symbol(writer *w, symbol s) {
    if (is_punctuation(s)) {
        write_punctuation(w, s);
    } else if (s < SLOT_COUNT) {
        write_slot(w, s);
    } else {
        const rule *r = choose(w, s);
        for (int i = 0; r->body[i] != END; i++) write_symbol(w, r->body[i]);
    }
}

qb_status qb_corpus_generate(const qb_corpus *corpus, uint64_t text_seed, size_t min_bytes,
                             qb_corpus_text *out) {
    *out = (qb_corpus_text){0};
    if (min_bytes < 1 || min_bytes > (size_t)1 << 30)
        return qb_fail(QB_ERR_USAGE, "synthetic text of %zu bytes: expected 1 to %zu", min_bytes,
                       (size_t)1 << 30);
    writer w = {.lexicon = &corpus->lexicon, .line_start = true, .sentence_start = true};
    qb_pyrandom_seed(&w.rng, text_seed);
    int64_t paragraphs = 0;
    while (w.text.length < min_bytes && !w.text.failed) {
        write_symbol(&w, PARAGRAPH);
        paragraphs++;
    }
    qb_status st = qb_str_status(&w.text);
    if (st != QB_OK) {
        qb_str_free(&w.text);
        return st;
    }
    *out = (qb_corpus_text){w.text.text, w.text.length, w.words, paragraphs, w.nll_nats};
    return QB_OK;
}

void qb_corpus_text_free(qb_corpus_text *text) {
    if (!text) return;
    qb_free(text->text);
    *text = (qb_corpus_text){0};
}

/* Expected nats and words below a symbol. Word entropies do not depend on topic or class, which only reorder
   the ranks, so the sum over the grammar is exact without any state. */
static void expect(const qb_lexicon *lexicon, symbol s, double *nats, double *words) {
    if (s < SLOT_COUNT) {
        const qb_corpus_kind draws[2] = {slot_draws[s].first, slot_draws[s].second};
        for (int i = 0; i < 2; i++)
            if (draws[i] != QB_CORPUS_KIND_COUNT) *nats += lexicon->kinds[draws[i]].entropy_nats;
        if (!is_punctuation(s)) *words += 1;
        return;
    }
    double total = head_weight(s);
    for (int i = 0; i < RULE_COUNT; i++) {
        if (rules[i].head != s) continue;
        double p = rules[i].weight / total, below_nats = 0, below_words = 0;
        for (int j = 0; rules[i].body[j] != END; j++)
            expect(lexicon, rules[i].body[j], &below_nats, &below_words);
        *nats += p * (below_nats - log(p));
        *words += p * below_words;
    }
}

qb_corpus_entropy qb_corpus_entropy_of(const qb_corpus *corpus) {
    qb_corpus_entropy e = {0};
    expect(&corpus->lexicon, PARAGRAPH, &e.paragraph_nats, &e.paragraph_words);
    e.word_nats = e.paragraph_nats / e.paragraph_words;
    return e;
}

qb_status qb_corpus_open(uint64_t language_seed, qb_corpus **out) {
    qb_status st = QB_OK;
    qb_corpus *c = NULL;
    *out = NULL;
    QB_TRY(st, qb_alloc_zero(1, sizeof *c, &c));
    QB_TRY(st, qb_lexicon_make(language_seed, &c->arena, &c->lexicon));
    *out = c;
    return QB_OK;
out:
    qb_corpus_close(c);
    return st;
}

void qb_corpus_close(qb_corpus *corpus) {
    if (!corpus) return;
    qb_arena_free(&corpus->arena);
    qb_free(corpus);
}

const char *qb_corpus_word(const qb_corpus *corpus, qb_corpus_kind kind, int word, int form) {
    const qb_lexicon_kind *k = &corpus->lexicon.kinds[kind];
    return k->spelling[word * k->forms + form];
}

int qb_corpus_ranked(const qb_corpus *corpus, qb_corpus_kind kind, int order, int rank) {
    const qb_lexicon_kind *k = &corpus->lexicon.kinds[kind];
    return k->ranked[order * k->words + rank];
}
