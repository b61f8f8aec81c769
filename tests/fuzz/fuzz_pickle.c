/* Any bytes as a pickle: nothing is run, and what comes out is within its limits. */
#include "checkpoint/torch/torch_objects.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

static void require(int holds) {
    if (!holds) abort();
}

/* Lists may hold themselves, so the walk is bounded. */
static void walk(const qb_pickle_value *v, int depth, int *budget) {
    if (depth == 0 || --*budget < 0) return;
    if (v->kind == QB_PICKLE_TENSOR) require(v->tensor->bytes >= 0 && v->tensor->storage != NULL);
    if (v->kind == QB_PICKLE_TEXT) require(v->text[v->length] == 0);
    if (v->kind != QB_PICKLE_TUPLE && v->kind != QB_PICKLE_LIST && v->kind != QB_PICKLE_DICT) return;
    require(v->kind != QB_PICKLE_DICT || v->count % 2 == 0);
    for (size_t i = 0; i < v->count; i++) walk(v->items[i], depth - 1, budget);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qb_arena arena = {0};
    const qb_pickle_value *v;
    size_t used;
    int budget = 100000;
    if (qb_pickle_read(data, size, "fuzz", &arena, &used, &v) == QB_OK) {
        require(used > 0 && used <= size);
        walk(v, 8, &budget);
        (void)qb_pickle_get(v, "state_dict");
    }
    qb_arena_free(&arena);
    return 0;
}
