/* A synthetic language with a known entropy: a seeded generator of text whose exact probability is known, so
   that a model's perplexity on it has a floor that can be drawn. It is ours, needs no download, and yet asks
   for what a language model does: agreement over a distance, a topic and a name to be remembered, words as
   frequent as Zipf's law has them.

   The text is a sequence of independent paragraphs. A paragraph opens by announcing a topic and naming its
   hero; each topic ranks the nouns in its own order. Then come sentences of one or two clauses. Article, verb
   and pronoun take the form of the class (0, 1, 2) of their noun or name, and verbs and adjectives are ranked
   by that class:

     paragraph  = opener topic "," name copula adjective "." sentence{4..8} newline
     sentence   = clause "." | adverb "," clause "." | clause conjunction clause "." | subordinator clause ","
   clause "." clause     = subject predicate subject    = article noun | article adjective noun | article noun
   preposition article noun | article noun relative verb | name | pronoun predicate  = verb | verb adverb |
   verb preposition object | action object | action object adverb object     = article noun | article
   adjective noun | name

   Every word belongs to one kind and every alternative shows in its words, so a text has one derivation: its
   probability is the product of the choices made. A word of rank r (from 1) in its kind has weight
   QB_CORPUS_ZIPF / r, rounded down. All draws are made with integers from CPython's generator: a seed gives
   the same bytes on every machine. */
#pragma once

#include "base/status.h"

#include <stdint.h>

enum { QB_CORPUS_ZIPF = 1000000000, QB_CORPUS_CLASSES = 3, QB_CORPUS_TOPICS = 6 };

/* X(name, words, forms, orders, syllables). forms: one word a class, or 1. orders: in how many rank orders
   the kind is drawn: by topic (nouns), by class (adjectives, verbs, actions), or 1. */
#define QB_CORPUS_KINDS(X)                                                                                   \
    X(OPENER, 4, 1, 1, 1)                                                                                    \
    X(TOPIC, QB_CORPUS_TOPICS, 1, 1, 3)                                                                      \
    X(NAME, 36, 1, 1, 2)                                                                                     \
    X(ARTICLE, 2, QB_CORPUS_CLASSES, 1, 1)                                                                   \
    X(NOUN, 210, 1, QB_CORPUS_TOPICS, 2)                                                                     \
    X(ADJECTIVE, 60, 1, QB_CORPUS_CLASSES, 2)                                                                \
    X(VERB, 30, QB_CORPUS_CLASSES, QB_CORPUS_CLASSES, 1)                                                     \
    X(ACTION, 42, QB_CORPUS_CLASSES, QB_CORPUS_CLASSES, 2)                                                   \
    X(ADVERB, 32, 1, 1, 2)                                                                                   \
    X(PREPOSITION, 8, 1, 1, 1)                                                                               \
    X(CONJUNCTION, 3, 1, 1, 1)                                                                               \
    X(SUBORDINATOR, 4, 1, 1, 1)                                                                              \
    X(RELATIVE, 1, 1, 1, 1)                                                                                  \
    X(PRONOUN, 1, QB_CORPUS_CLASSES, 1, 1)                                                                   \
    X(COPULA, 1, QB_CORPUS_CLASSES, 1, 1)

typedef enum {
#define X(name, words, forms, orders, syllables) QB_CORPUS_##name,
    QB_CORPUS_KINDS(X)
#undef X
        QB_CORPUS_KIND_COUNT
} qb_corpus_kind;

typedef struct qb_corpus qb_corpus;

/* Invents the words and rank orders of one language. *out is the caller's, for qb_corpus_close (which takes
   NULL); it is read-only and may be shared between threads. */
qb_status qb_corpus_open(uint64_t language_seed, qb_corpus **out) QB_NODISCARD;
void qb_corpus_close(qb_corpus *corpus);

typedef struct qb_corpus_text {
    char *text; /* n bytes of ASCII and a NUL behind them; whole paragraphs */
    size_t n;
    int64_t words, paragraphs; /* punctuation and line ends are no words */
    double nll_nats;           /* -ln of the text's probability, given its number of paragraphs */
} qb_corpus_text;

/* Whole paragraphs until at least min_bytes are written (1 to 2^30). Zeroed on failure; qb_corpus_text_free
 * takes NULL. */
qb_status qb_corpus_generate(const qb_corpus *corpus, uint64_t text_seed, size_t min_bytes,
                             qb_corpus_text *out) QB_NODISCARD;
void qb_corpus_text_free(qb_corpus_text *text);

/* Exact entropy of a paragraph (nats), its expected words, and, as paragraphs are independent, by the renewal
   theorem the entropy rate of the endless text in nats a word: their quotient. */
typedef struct qb_corpus_entropy {
    double paragraph_nats, paragraph_words, word_nats;
} qb_corpus_entropy;
qb_corpus_entropy qb_corpus_entropy_of(const qb_corpus *corpus);

/* The lexicon, for checks: number of words and of rank orders of a kind; a word's form (lower case; form 0
   where the kind has one only); the word that `order` puts at `rank` (from 0). Nouns and names are of class
   index % 3. */
int qb_corpus_word_count(qb_corpus_kind kind);
int qb_corpus_form_count(qb_corpus_kind kind);
int qb_corpus_order_count(qb_corpus_kind kind);
const char *qb_corpus_word(const qb_corpus *corpus, qb_corpus_kind kind, int word, int form);
int qb_corpus_ranked(const qb_corpus *corpus, qb_corpus_kind kind, int order, int rank);
