/* The synthetic language against an independent reading of its description: the parser below knows the
   grammar of tools/corpus/corpus.h in its own notation, sums over every derivation it can find, and shares no
   code with the generator. */
#include "base/hash.h"
#include "base/json.h"
#include "tests/support.h"
#include "tools/corpus/corpus.h"

#include <ctype.h>
#include <math.h>

/* ---------------------------------------------------------------- tokens */

typedef struct {
    char mark; /* ',' '.' '\n', or 'w' for a word */
    qb_corpus_kind kind;
    int word, form;
} token;

static bool find_word(const qb_corpus *c, const char *spelling, token *out) {
    for (int k = 0; k < QB_CORPUS_KIND_COUNT; k++)
        for (int w = 0; w < qb_corpus_word_count((qb_corpus_kind)k); w++)
            for (int f = 0; f < qb_corpus_form_count((qb_corpus_kind)k); f++)
                if (strcmp(qb_corpus_word(c, (qb_corpus_kind)k, w, f), spelling) == 0) {
                    *out = (token){'w', (qb_corpus_kind)k, w, f};
                    return true;
                }
    return false;
}

/* Cuts a text into tokens, checking spaces and capitals on the way. The result is the caller's. */
static size_t tokenize(const qb_corpus *c, const char *text, token **out) {
    size_t n = 0, capacity = 0;
    bool sentence_start = true, line_start = true;
    for (const char *p = text; *p;) {
        assert_ok(qb_grow(out, &capacity, n + 1, sizeof **out));
        token *t = &(*out)[n++];
        if (strchr(",.\n", *p)) {
            *t = (token){.mark = *p};
            line_start = *p == '\n';
            sentence_start = *p != ',';
            p++;
            continue;
        }
        assert_int_equal(*p == ' ', !line_start);
        p += *p == ' ';
        char word[32];
        int length = 0;
        bool capital = isupper((unsigned char)*p);
        while (isalpha((unsigned char)*p) && length < 31) word[length++] = (char)tolower((unsigned char)*p++);
        word[length] = 0;
        if (!find_word(c, word, t)) fail_msg("\"%s\" is no word of the language", word);
        assert_int_equal(capital, sentence_start || t->kind == QB_CORPUS_NAME);
        sentence_start = line_start = false;
    }
    return n;
}

/* ---------------------------------------------------------------- probability by all derivations */

/* Small letters and punctuation are tokens, capitals are phrases. */
static const struct {
    char head;
    int weight;
    const char *body;
} grammar[] = {
    {'P', 2, "ot,h=a.SSSS\n"},
    {'P', 3, "ot,h=a.SSSSS\n"},
    {'P', 3, "ot,h=a.SSSSSS\n"},
    {'P', 2, "ot,h=a.SSSSSSS\n"},
    {'P', 1, "ot,h=a.SSSSSSSS\n"},
    {'S', 4, "C."},
    {'S', 1, "d,C."},
    {'S', 2, "C&C."},
    {'S', 1, "uC,C."},
    {'C', 1, "NV"},
    {'N', 4, "1n"},
    {'N', 1, "1an"},
    {'N', 2, "1np2n"},
    {'N', 1, "1nrv"},
    {'N', 3, "h"},
    {'N', 3, "i"},
    {'V', 2, "v"},
    {'V', 1, "vd"},
    {'V', 2, "vpO"},
    {'V', 4, "xO"},
    {'V', 1, "xOd"},
    {'O', 4, "2n"},
    {'O', 2, "2an"},
    {'O', 1, "g"},
};
enum { GRAMMAR_ROWS = sizeof grammar / sizeof grammar[0] };

/* One paragraph being read. */
typedef struct {
    const qb_corpus *corpus;
    const token *tokens;
    size_t n;
    int derivations;
} reading;

/* What it has told so far; -1: nothing. */
typedef struct {
    int topic, hero, subject, noun;
} memory;

static int rank_of(const qb_corpus *c, qb_corpus_kind kind, int order, int word) {
    int rank = 0;
    while (qb_corpus_ranked(c, kind, order, rank) != word) rank++;
    return rank;
}

static int64_t zipf_weight(int rank) {
    return 1000000000 / (rank + 1);
}

static long double zipf(qb_corpus_kind kind, int rank) {
    int64_t sum = 0;
    for (int r = 0; r < qb_corpus_word_count(kind); r++) sum += zipf_weight(r);
    return (long double)zipf_weight(rank) / (long double)sum;
}

/* Probability of a word in an order; 0 when the token is of another kind or form. */
static long double word_p(const reading *r, const token *t, qb_corpus_kind kind, int order, int form) {
    if (t->mark != 'w' || t->kind != kind || t->form != form) return 0;
    return zipf(kind, rank_of(r->corpus, kind, order, t->word));
}

/* One terminal against one token: its probability given the memory, which it may change. */
static long double terminal_p(const reading *r, char terminal, const token *t, memory *m) {
    switch (terminal) {
    case 'o':
        return word_p(r, t, QB_CORPUS_OPENER, 0, 0);
    case 't':
        m->topic = t->word;
        return word_p(r, t, QB_CORPUS_TOPIC, 0, 0);
    case 'd':
        return word_p(r, t, QB_CORPUS_ADVERB, 0, 0);
    case 'p':
        return word_p(r, t, QB_CORPUS_PREPOSITION, 0, 0);
    case '&':
        return word_p(r, t, QB_CORPUS_CONJUNCTION, 0, 0);
    case 'u':
        return word_p(r, t, QB_CORPUS_SUBORDINATOR, 0, 0);
    case 'r':
        return word_p(r, t, QB_CORPUS_RELATIVE, 0, 0);
    case '=':
        return word_p(r, t, QB_CORPUS_COPULA, 0, m->hero % 3);
    case 'v':
        return word_p(r, t, QB_CORPUS_VERB, m->subject, m->subject);
    case 'x':
        return word_p(r, t, QB_CORPUS_ACTION, m->subject, m->subject);
    case 'a':
        return word_p(r, t, QB_CORPUS_ADJECTIVE, m->noun, 0);
    case 'i':
        m->subject = m->hero % 3;
        return word_p(r, t, QB_CORPUS_PRONOUN, 0, m->subject);
    case 'h':
    case 'g': {
        long double p = word_p(r, t, QB_CORPUS_NAME, 0, 0);
        if (m->hero < 0)
            m->hero = t->word, m->noun = t->word % 3; /* the first name is drawn */
        else
            p = p > 0 && t->word == m->hero; /* later ones are known */
        if (terminal == 'h') m->subject = m->hero % 3;
        return p;
    }
    case '1':
    case '2':
        m->noun = t->form;
        if (terminal == '1') m->subject = t->form;
        return word_p(r, t, QB_CORPUS_ARTICLE, 0, t->form);
    case 'n':
        return t->word % 3 == m->noun ? word_p(r, t, QB_CORPUS_NOUN, m->topic, 0) : 0;
    default:
        return t->mark == terminal;
    }
}

/* Probability that `stack` writes exactly the tokens from `at` to the end, over all derivations. */
static long double derive(reading *r, const char *stack, size_t at, memory m) {
    if (!*stack) {
        r->derivations += at == r->n;
        return at == r->n;
    }
    if (at == r->n) return 0;
    if (!isupper((unsigned char)*stack)) {
        long double p = terminal_p(r, *stack, &r->tokens[at], &m);
        return p > 0 ? p * derive(r, stack + 1, at + 1, m) : 0;
    }
    int total = 0;
    for (int i = 0; i < GRAMMAR_ROWS; i++) total += grammar[i].head == *stack ? grammar[i].weight : 0;
    long double sum = 0;
    for (int i = 0; i < GRAMMAR_ROWS; i++) {
        if (grammar[i].head != *stack) continue;
        char expanded[64];
        snprintf(expanded, sizeof expanded, "%s%s", grammar[i].body, stack + 1);
        sum += (long double)grammar[i].weight / total * derive(r, expanded, at, m);
    }
    return sum;
}

static void test_corpus__probability_equals_the_sum_over_all_derivations(void **state) {
    (void)state;
    qb_corpus *c;
    qb_corpus_text text;
    assert_ok(qb_corpus_open(7, &c));
    assert_ok(qb_corpus_generate(c, 11, 30000, &text));
    token *tokens = NULL;
    size_t n = tokenize(c, text.text, &tokens), start = 0;
    int64_t words = 0, paragraphs = 0;
    long double nll = 0;
    for (size_t i = 0; i < n; i++) {
        words += tokens[i].mark == 'w';
        if (tokens[i].mark != '\n') continue;
        reading r = {c, tokens + start, i + 1 - start, 0};
        nll -= logl(derive(&r, "P", 0, (memory){-1, -1, -1, -1}));
        assert_int_equal(r.derivations, 1);
        start = i + 1, paragraphs++;
    }
    assert_int_equal(start, n);
    assert_int_equal(words, text.words);
    assert_int_equal(paragraphs, text.paragraphs);
    assert_true(paragraphs > 50);
    if (!(fabsl(nll - text.nll_nats) < 1e-9L * nll)) fail_msg("%.12Lf against %.12f", nll, text.nll_nats);
    qb_free(tokens);
    qb_corpus_text_free(&text);
    qb_corpus_close(c);
}

/* ---------------------------------------------------------------- frequencies, entropy */

static void test_corpus__words_are_distinct_and_short(void **state) {
    (void)state;
    qb_corpus *c;
    assert_ok(qb_corpus_open(3, &c));
    int forms = 0;
    for (int k = 0; k < QB_CORPUS_KIND_COUNT; k++)
        for (int w = 0; w < qb_corpus_word_count((qb_corpus_kind)k); w++)
            for (int f = 0; f < qb_corpus_form_count((qb_corpus_kind)k); f++, forms++) {
                const char *word = qb_corpus_word(c, (qb_corpus_kind)k, w, f);
                token t = {0};
                assert_in_range(strlen(word), 2, 15);
                assert_true(find_word(c, word, &t)); /* finds the first of that spelling */
                assert_true((int)t.kind == k && t.word == w && t.form == f);
            }
    assert_in_range(forms, 400, 800);
    qb_corpus_close(c);
}

/* Pearson's chi-square of the observed ranks against Zipf's law; the tail is pooled so that each cell expects
   8 or more. The statistic has mean df and variance 2 df: five standard deviations are generous, a wrong
   exponent gives hundreds. */
static void check_ranks(const char *what, qb_corpus_kind kind, const int64_t *seen) {
    int64_t n = 0;
    for (int r = 0; r < qb_corpus_word_count(kind); r++) n += seen[r];
    double chi = 0, expected = 0, found = 0;
    int cells = 0;
    for (int r = 0; r < qb_corpus_word_count(kind); r++) {
        expected += (double)(zipf(kind, r) * (long double)n), found += (double)seen[r];
        bool last = r + 1 == qb_corpus_word_count(kind);
        if (expected < 8 && !last) continue;
        chi += (found - expected) * (found - expected) / expected;
        expected = found = 0, cells++;
    }
    double df = cells - 1;
    if (chi > df + 5 * sqrt(2 * df) + 5)
        fail_msg("%s: chi-square %.1f with %.0f degrees of freedom", what, chi, df);
    assert_true(cells > 1 && n > 1000);
}

static void test_corpus__ranks_follow_zipf(void **state) {
    (void)state;
    qb_corpus *c;
    qb_corpus_text text;
    assert_ok(qb_corpus_open(1, &c));
    assert_ok(qb_corpus_generate(c, 5, 200000, &text));
    token *tokens = NULL;
    size_t n = tokenize(c, text.text, &tokens);
    static int64_t seen[QB_CORPUS_KIND_COUNT][256];
    int topic = 0;
    for (size_t i = 0; i < n; i++) {
        const token *t = &tokens[i];
        if (t->mark != 'w') continue;
        if (t->kind == QB_CORPUS_TOPIC) topic = t->word;
        int order = t->kind == QB_CORPUS_NOUN ? topic : t->form;
        if (qb_corpus_order_count(t->kind) == 1) order = 0;
        seen[t->kind][rank_of(c, t->kind, order, t->word)]++;
    }
    check_ranks("nouns by topic", QB_CORPUS_NOUN, seen[QB_CORPUS_NOUN]);
    check_ranks("verbs by class", QB_CORPUS_VERB, seen[QB_CORPUS_VERB]);
    check_ranks("actions by class", QB_CORPUS_ACTION, seen[QB_CORPUS_ACTION]);
    check_ranks("adverbs", QB_CORPUS_ADVERB, seen[QB_CORPUS_ADVERB]);
    check_ranks("prepositions", QB_CORPUS_PREPOSITION, seen[QB_CORPUS_PREPOSITION]);
    check_ranks("articles", QB_CORPUS_ARTICLE, seen[QB_CORPUS_ARTICLE]);
    qb_free(tokens);
    qb_corpus_text_free(&text);
    qb_corpus_close(c);
}

/* Mean and standard error. */
static void check_mean(const char *what, const double *x, int n, double expected) {
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    double mean = sum / n;
    for (int i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    double se = sqrt(squares / (n - 1.0) / n);
    if (fabs(mean - expected) > 4 * se)
        fail_msg("%s: mean %.4f (se %.4f), expected %.4f", what, mean, se, expected);
    assert_true(se > 0);
}

static void test_corpus__entropy_is_the_mean_surprise(void **state) {
    (void)state;
    enum { PARAGRAPHS = 6000 };
    static double nats[PARAGRAPHS], words[PARAGRAPHS], beyond[PARAGRAPHS];
    qb_corpus *c;
    assert_ok(qb_corpus_open(1, &c));
    qb_corpus_entropy e = qb_corpus_entropy_of(c);
    assert_true(fabs(e.word_nats - e.paragraph_nats / e.paragraph_words) < 1e-12);
    for (int i = 0; i < PARAGRAPHS; i++) {
        qb_corpus_text text;
        assert_ok(qb_corpus_generate(c, (uint64_t)i, 1, &text));
        assert_int_equal(text.paragraphs, 1);
        nats[i] = text.nll_nats, words[i] = (double)text.words;
        beyond[i] = nats[i] - e.word_nats * words[i]; /* expected 0: far less scattered than the two apart */
        qb_corpus_text_free(&text);
    }
    check_mean("nats a paragraph", nats, PARAGRAPHS, e.paragraph_nats);
    check_mean("words a paragraph", words, PARAGRAPHS, e.paragraph_words);
    check_mean("nats beyond the rate", beyond, PARAGRAPHS, 0);
    qb_corpus_close(c);
}

/* ---------------------------------------------------------------- determinism, errors, the committed texts
 */

static void test_corpus__a_seed_fixes_every_byte(void **state) {
    (void)state;
    qb_corpus *c;
    qb_corpus_text a, b;
    char hex[QB_SHA256_HEX];
    assert_ok(qb_corpus_open(1, &c));
    assert_ok(qb_corpus_generate(c, 1, 100000, &a));
    assert_ok(qb_hash_bytes(a.text, a.n, hex)); /* recorded when the demo's model was trained */
    assert_string_equal(hex, "10723c60f3ce5fb4a6ea2f542b5a2d4e452ade50c96b520f660e5d6fc06c09c4");
    assert_int_equal(a.text[a.n], 0);
    assert_int_equal(a.text[a.n - 1], '\n');
    assert_ok(qb_corpus_generate(c, 2, 100000, &b));
    assert_memory_not_equal(a.text, b.text, 1000);
    qb_corpus_text_free(&b);
    qb_corpus_close(c);
    assert_ok(qb_corpus_open(2, &c));
    assert_ok(qb_corpus_generate(c, 1, 100000, &b));
    assert_memory_not_equal(a.text, b.text, 1000);
    qb_corpus_text_free(&a);
    qb_corpus_text_free(&b);
    qb_corpus_close(c);
}

static void test_corpus__refuses_absurd_sizes(void **state) {
    (void)state;
    qb_corpus *c;
    qb_corpus_text text;
    assert_ok(qb_corpus_open(1, &c));
    assert_fails(qb_corpus_generate(c, 1, 0, &text), QB_ERR_USAGE, "expected 1 to");
    assert_null(text.text);
    assert_fails(qb_corpus_generate(c, 1, SIZE_MAX, &text), QB_ERR_USAGE, "expected 1 to");
    qb_corpus_text_free(NULL);
    qb_corpus_close(c);
    qb_corpus_close(NULL);
}

static char *read_demo(const char *name, size_t *n) {
    char path[1024], *text;
    snprintf(path, sizeof path, "%s/bench/demo/%s", QB_SOURCE_DIR, name);
    assert_ok(qb_file_read(path, (size_t)1 << 22, &text, n));
    return text;
}

/* entropy.json says with which seeds the committed texts were made. */
static void check_committed(const qb_corpus *c, const qb_json *entropy, const char *name) {
    char file[64], hex[QB_SHA256_HEX];
    snprintf(file, sizeof file, "%s.txt", name);
    size_t n;
    char *committed = read_demo(file, &n);
    const qb_json *row = qb_json_get(entropy, name);
    int64_t seed, least, words, paragraphs;
    double nll;
    const char *sha256;
    assert_ok(qb_json_int(row, "seed", name, true, 0, INT32_MAX, &seed));
    assert_ok(qb_json_int(row, "min_bytes", name, true, 1, INT32_MAX, &least));
    assert_ok(qb_json_int(row, "words", name, true, 1, INT32_MAX, &words));
    assert_ok(qb_json_int(row, "paragraphs", name, true, 1, INT32_MAX, &paragraphs));
    assert_ok(qb_json_real(row, "nll_nats", name, true, 1, 1e9, &nll));
    assert_ok(qb_json_text(row, "sha256", name, true, &sha256));
    qb_corpus_text text;
    assert_ok(qb_corpus_generate(c, (uint64_t)seed, (size_t)least, &text));
    assert_int_equal(n, text.n);
    assert_memory_equal(committed, text.text, n);
    assert_int_equal(words, text.words);
    assert_int_equal(paragraphs, text.paragraphs);
    assert_true(fabs(nll - text.nll_nats) < 1e-10 * nll);
    assert_ok(qb_hash_bytes(committed, n, hex));
    assert_string_equal(hex, sha256);
    qb_corpus_text_free(&text);
    qb_free(committed);
}

static void test_demo__texts_are_the_generators(void **state) {
    (void)state;
    size_t n;
    char *text = read_demo("entropy.json", &n);
    qb_json *entropy;
    assert_ok(qb_json_parse(text, n, "entropy.json", &entropy));
    int64_t language;
    double rate;
    assert_ok(qb_json_int(entropy, "language_seed", "entropy.json", true, 0, INT32_MAX, &language));
    assert_ok(qb_json_real(entropy, "entropy_per_word_nats", "entropy.json", true, 0, 20, &rate));
    qb_corpus *c;
    assert_ok(qb_corpus_open((uint64_t)language, &c));
    assert_true(fabs(rate - qb_corpus_entropy_of(c).word_nats) < 1e-10);
    check_committed(c, entropy, "train");
    check_committed(c, entropy, "test");
    qb_corpus_close(c);
    qb_json_free(entropy);
    qb_free(text);
}

static void test_demo__no_test_paragraph_is_in_the_calibration_text(void **state) {
    (void)state;
    size_t n_train, n_test;
    char *train = read_demo("train.txt", &n_train), *test = read_demo("test.txt", &n_test), *save = NULL;
    for (char *line = strtok_r(test, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (strstr(train, line)) fail_msg("in both texts: %.80s", line);
    qb_free(train);
    qb_free(test);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus__probability_equals_the_sum_over_all_derivations),
        cmocka_unit_test(test_corpus__words_are_distinct_and_short),
        cmocka_unit_test(test_corpus__ranks_follow_zipf),
        cmocka_unit_test(test_corpus__entropy_is_the_mean_surprise),
        cmocka_unit_test(test_corpus__a_seed_fixes_every_byte),
        cmocka_unit_test(test_corpus__refuses_absurd_sizes),
        cmocka_unit_test(test_demo__texts_are_the_generators),
        cmocka_unit_test(test_demo__no_test_paragraph_is_in_the_calibration_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
