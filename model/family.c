/* Families as data. A new one is a row in families.def. */
#include "model/config.h"

#include <string.h>

static const qb_family families[] = {
#include "model/families.def"
};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

const qb_family *qb_family_at(size_t index) {
    return index < N_FAMILIES ? &families[index] : NULL;
}

const qb_family *qb_family_find(const char *architecture) {
    size_t n = strlen(architecture);
    for (size_t i = 0; i < N_FAMILIES; i++)
        for (const char *p = families[i].architectures; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
            if (strcspn(p, "|") == n && !strncmp(p, architecture, n)) return &families[i];
    return NULL;
}

qb_linear_input qb_linear_input_of(qb_linear linear) {
    static const qb_linear_input inputs[QB_LINEAR_COUNT] = {
        [QB_LINEAR_Q] = QB_INPUT_ATTENTION, [QB_LINEAR_K] = QB_INPUT_ATTENTION,
        [QB_LINEAR_V] = QB_INPUT_ATTENTION, [QB_LINEAR_O] = QB_INPUT_OUTPUT,
        [QB_LINEAR_GATE] = QB_INPUT_MLP,    [QB_LINEAR_UP] = QB_INPUT_MLP,
        [QB_LINEAR_DOWN] = QB_INPUT_DOWN,
    };
    return inputs[linear];
}
