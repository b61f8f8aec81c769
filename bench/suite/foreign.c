#include "bench/suite/foreign.h"

#include <stdbool.h>

/* AutoGPTQ, GPTQModel, the GPTQ paper's code, llama.cpp, transformers, lm-eval; and forms of a table. */
static const struct {
    const char *theirs, *ours;
} names[] = {{"desc-act", "act-order"},
             {"wbits", "bits"},
             {"w-bit", "bits"},
             {"groupsize", "group-size"},
             {"q-group-size", "group-size"},
             {"nsamples", "samples"},
             {"percdamp", "damp-percent"},
             {"damp", "damp-percent"},
             {"blocksize", "block-columns"},
             {"static-group", "static-groups"},
             {"chunks", "max-windows"},
             {"limit", "max-windows"},
             {"n-predict", "tokens"},
             {"max-new-tokens", "tokens"},
             {"max-tokens", "tokens"},
             {"n-gen", "decode"},
             {"n-prompt", "prefill"},
             {"n-depth", "depth"},
             {"csv", "format"},
             {"markdown", "format"},
             {"latex", "format"},
             {"junit", "format"},
             {"format", "to"},
             {"outdir", "out"},
             {"outdir", "output"},
             {"output", "out"},
             {"out", "output"}};

static bool same(const char *a, const char *b) {
    while (*a && (*a == *b || (*a == '_' && *b == '-'))) {
        a++;
        b++;
    }
    return !*a && !*b;
}

const char *qb_foreign_name(const char *theirs, size_t nth) {
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (same(theirs, names[i].theirs) && nth-- == 0) return names[i].ours;
    return NULL;
}
