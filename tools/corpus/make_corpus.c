/* Writes a text of the synthetic language (tools/corpus/corpus.h) and prints its measures as one JSON object.
   Built with the tests; tools/train_demo.py runs it. */
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/memory.h"
#include "tools/corpus/corpus.h"

#include <stdio.h>
#include <stdlib.h>

static qb_status make(uint64_t language, uint64_t seed, size_t bytes, const char *path) {
    qb_status st = QB_OK;
    qb_corpus *corpus = NULL;
    qb_corpus_text text = {0};
    char sha256[QB_SHA256_HEX], *printed = NULL;
    qb_json *o = qb_json_object();
    QB_TRY(st, qb_corpus_open(language, &corpus));
    QB_TRY(st, qb_corpus_generate(corpus, seed, bytes, &text));
    QB_TRY(st, qb_file_write_atomic(path, text.text, text.n));
    QB_TRY(st, qb_hash_bytes(text.text, text.n, sha256));
    qb_corpus_entropy entropy = qb_corpus_entropy_of(corpus);
    qb_json_put_int(o, "language_seed", (int64_t)language);
    qb_json_put_int(o, "seed", (int64_t)seed);
    qb_json_put_int(o, "min_bytes", (int64_t)bytes);
    qb_json_put_int(o, "bytes", (int64_t)text.n);
    qb_json_put_int(o, "paragraphs", text.paragraphs);
    qb_json_put_int(o, "words", text.words);
    qb_json_put_real(o, "nll_nats", text.nll_nats);
    qb_json_put_real(o, "entropy_per_word_nats", entropy.word_nats);
    qb_json_put_text(o, "sha256", sha256);
    QB_TRY(st, qb_json_print(o, true, &printed));
    fputs(printed, stdout);
out:
    qb_free(printed);
    qb_json_free(o);
    qb_corpus_text_free(&text);
    qb_corpus_close(corpus);
    return st;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: make_corpus LANGUAGE_SEED SEED MIN_BYTES FILE\n");
        return 2;
    }
    qb_status st =
        make(strtoull(argv[1], NULL, 10), strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), argv[4]);
    if (st != QB_OK) fprintf(stderr, "make_corpus: %s\n", qb_error_text());
    return qb_status_exit_code(st);
}
