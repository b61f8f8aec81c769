/* dump_ids TOKENIZER RULE < texts: ids of many texts, for tools/check_tokenizers.py, which compares with
   other programs. A text is its length in bytes as a little-endian uint32 and the bytes; for each a line of
   ids. Nothing is put around. TOKENIZER: a file or directory, or a GGUF file; RULE: file, text, legacy. */
#include "base/memory.h"
#include "bench/session.h"

#include <stdio.h>
#include <string.h>

static qb_status run(const char *path, const char *rule) {
    qb_tokenizer *t = NULL;
    qb_encoding e = {0};
    char *text = NULL;
    size_t capacity = 0;
    uint32_t n;
    qb_ids ids = {0};
    qb_status st;
    QB_TRY(st, qb_special_tokens_parse(rule, &e.special));
    size_t length = strlen(path);
    bool file = (length > 5 && !strcmp(path + length - 5, ".json")) || strstr(path, ".model") ||
                strstr(path, ".tiktoken");
    QB_TRY(st, file ? qb_tokenizer_open_file(path, &t) : qb_session_tokenizer_of(path, &t));
    while (fread(&n, 1, 4, stdin) == 4) {
        QB_TRY(st, qb_grow(&text, &capacity, (size_t)n + 1, 1));
        if (fread(text, 1, n, stdin) != n) break;
        ids.count = 0;
        QB_TRY(st, qb_tokenizer_encode_as(t, text, n, &e, &ids));
        for (size_t i = 0; i < ids.count; i++) printf("%s%d", i ? " " : "", (int)ids.ids[i]);
        putchar('\n');
    }
out:
    qb_free(text);
    qb_ids_free(&ids);
    qb_tokenizer_close(t);
    return st;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: dump_ids TOKENIZER file|text|legacy < texts\n");
        return 2;
    }
    if (run(argv[1], argv[2]) == QB_OK) return 0;
    fprintf(stderr, "dump_ids: %s\n", qb_error_text());
    return 1;
}
