#include "tools/corpus/corpus_lexicon.h"

#include <math.h>
#include <string.h>

static const struct {
    int words, forms, orders, syllables;
} kind_shapes[QB_CORPUS_KIND_COUNT] = {
#define X(name, words, forms, orders, syllables) {words, forms, orders, syllables},
    QB_CORPUS_KINDS(X)
#undef X
};

/* A letter given twice is twice as frequent. */
static const char *const onsets[] = {"b", "d",  "f",  "g",  "h",  "j",  "k",  "l",  "m",  "n", "p", "r",
                                     "s", "t",  "v",  "z",  "k",  "l",  "m",  "n",  "r",  "s", "t", "d",
                                     "b", "br", "dr", "gr", "kl", "pl", "st", "tr", "th", "sh"};
static const char *const vowels[] = {"a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "ai", "ou"};
static const char *const codas[] = {"", "", "", "", "l", "m", "n", "r", "s", "t", "nd", "rn"};
/* What a class does to a word that has forms. */
static const char *const endings[QB_CORPUS_CLASSES] = {"a", "en", "is"};

#define PICK(rng, list) ((list)[qb_pyrandom_randint(rng, 0, (int64_t)(sizeof(list) / sizeof *(list)) - 1)])

/* At most 3 * (2 + 2) + 2 letters, below QB_CORPUS_WORD_BYTES. Only the last syllable of a word is closed,
   and of a stem that takes endings with a consonant always, so that the ending does not run into a vowel. */
static void invent(qb_pyrandom *rng, int syllables, bool stem, char word[QB_CORPUS_WORD_BYTES]) {
    word[0] = 0;
    for (int i = 0; i < syllables; i++) {
        strcat(word, PICK(rng, onsets));
        strcat(word, PICK(rng, vowels));
    }
    const char *coda = PICK(rng, codas);
    while (stem && !coda[0]) coda = PICK(rng, codas);
    if (syllables < 3) strcat(word, coda);
}

static bool is_taken(const qb_lexicon *lexicon, int kinds, const char *word) {
    for (int k = 0; k < kinds; k++) {
        const qb_lexicon_kind *kind = &lexicon->kinds[k];
        for (int i = 0; i < kind->words * kind->forms; i++)
            if (strcmp(kind->spelling[i], word) == 0) return true;
    }
    return false;
}

/* Writes the forms of word w; false when one of them is a word of the language already. Forms of one stem
   differ by their endings; other stems of the kind are compared as their words stand in the kind (absent ones
   are empty). */
static bool spell(qb_lexicon *lexicon, int k, int w, const char *stem) {
    qb_lexicon_kind *kind = &lexicon->kinds[k];
    char forms[QB_CORPUS_CLASSES][QB_CORPUS_WORD_BYTES] = {{0}};
    const int n = kind->forms > 1 ? QB_CORPUS_CLASSES : 1;
    for (int f = 0; f < n; f++) {
        strcpy(forms[f], stem);
        if (n > 1) strcat(forms[f], endings[f]);
        if (is_taken(lexicon, k + 1, forms[f])) return false;
    }
    for (int f = 0; f < n; f++) strcpy(kind->spelling[w * n + f], forms[f]);
    return true;
}

static void shuffle(qb_pyrandom *rng, uint16_t *items, int n) {
    for (int i = 0; i < n; i++) items[i] = (uint16_t)i;
    for (int i = n - 1; i > 0; i--) {
        int j = (int)qb_pyrandom_randint(rng, 0, i);
        uint16_t swap = items[i];
        items[i] = items[j], items[j] = swap;
    }
}

static void weigh(qb_lexicon_kind *kind) {
    for (int r = 0; r < kind->words; r++)
        kind->cumulative[r + 1] = kind->cumulative[r] + QB_CORPUS_ZIPF / (r + 1);
    double total = (double)kind->cumulative[kind->words];
    for (int r = 0; r < kind->words; r++) {
        double p = (double)(kind->cumulative[r + 1] - kind->cumulative[r]) / total;
        kind->entropy_nats -= p * log(p);
    }
}

qb_status qb_lexicon_make(uint64_t seed, qb_arena *arena, qb_lexicon *out) {
    qb_status st = QB_OK;
    qb_pyrandom rng;
    qb_pyrandom_seed(&rng, seed);
    for (int k = 0; k < QB_CORPUS_KIND_COUNT; k++) {
        qb_lexicon_kind *kind = &out->kinds[k];
        kind->words = kind_shapes[k].words, kind->forms = kind_shapes[k].forms;
        kind->orders = kind_shapes[k].orders;
        size_t words = (size_t)kind->words;
        QB_TRY(st, qb_arena_alloc(arena, words * (size_t)kind->forms, QB_CORPUS_WORD_BYTES, &kind->spelling));
        QB_TRY(st, qb_arena_alloc(arena, words * (size_t)kind->orders, sizeof *kind->ranked, &kind->ranked));
        QB_TRY(st, qb_arena_alloc(arena, words + 1, sizeof *kind->cumulative, &kind->cumulative));
        for (int w = 0; w < kind->words; w++) {
            char stem[QB_CORPUS_WORD_BYTES];
            do invent(&rng, kind_shapes[k].syllables, kind->forms > 1, stem);
            while (!spell(out, k, w, stem));
        }
        for (int o = 0; o < kind->orders; o++) shuffle(&rng, kind->ranked + o * kind->words, kind->words);
        weigh(kind);
    }
out:
    return st;
}

int qb_lexicon_draw(const qb_lexicon_kind *kind, int order, qb_pyrandom *rng, double *nll_nats) {
    int64_t total = kind->cumulative[kind->words], at = qb_pyrandom_randint(rng, 0, total - 1);
    int low = 0, high = kind->words; /* cumulative[low] <= at < cumulative[high] */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (kind->cumulative[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    *nll_nats -= log((double)(kind->cumulative[low + 1] - kind->cumulative[low]) / (double)total);
    return kind->ranked[order * kind->words + low];
}

int qb_corpus_word_count(qb_corpus_kind kind) {
    return kind_shapes[kind].words;
}
int qb_corpus_form_count(qb_corpus_kind kind) {
    return kind_shapes[kind].forms;
}
int qb_corpus_order_count(qb_corpus_kind kind) {
    return kind_shapes[kind].orders;
}
