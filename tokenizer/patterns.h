/* Pre-tokenizer patterns as the models' tokenizer.json files have them, by the names that FAMILIES and
   llama.cpp give them. */
#pragma once

#include "tokenizer/pretokenize.h"

#define QB_CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define QB_TAIL        " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
/* Llama 3, cl100k, DBRX, GLM-4, dolma2 */
#define QB_LLAMA3_PATTERN QB_CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" QB_TAIL
#define QB_QWEN2_PATTERN  QB_CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" QB_TAIL
#define QB_QWEN35_PATTERN                                                                                    \
    QB_CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|"     \
                   "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
/* A word in capitals with or without a rest in small letters, and the reverse: o200k and its kin. */
#define QB_CASED_WORD(behind)                                                                                \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" behind       \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" behind "|"
#define QB_SLASH_TAIL     " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QB_GPT4O_PATTERN  QB_CASED_WORD(QB_CONTRACTION "?") "\\p{N}{1,3}|" QB_SLASH_TAIL
#define QB_TEKKEN_PATTERN QB_CASED_WORD("") "\\p{N}|" QB_SLASH_TAIL

/* What tokenizer.ggml.pre names. */
typedef struct qb_pre_name {
    const char *names; /* '|' between */
    bool ignore_merges, add_bos;
    bool raw;                /* pieces are text with U+2581 for spaces, not GPT-2's alphabet */
    const char *patterns[8]; /* each cuts what the one before left, matches apart */
    const char *mapped[3];   /* the same, but in the alphabet (Falcon) */
} qb_pre_name;
/* NULL for a name that is not known here. */
const qb_pre_name *qb_pre_name_find(const char *name);
