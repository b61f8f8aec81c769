/* Suite files: whatever is accepted expands into cases with unique, bounded ids. */
#include "bench/suite/suite.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void check_cases(const qb_cases *cases) {
    for (size_t i = 0; i < cases->count; i++) {
        const qb_case *c = &cases->items[i];
        if (!c->id[0] || !c->variant || !c->variant->label[0] || !c->model || !c->backend) abort();
        for (size_t k = 0; k < i && i < 64; k++)
            if (!strcmp(cases->items[k].id, c->id)) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qb_suite suite;
    qb_cases cases;
    if (qb_suite_parse((const char *)data, size, "suite", &suite) != QB_OK) {
        if (!*qb_error_text() || strchr(qb_error_text(), '\n')) abort(); /* one clear line */
        return 0;
    }
    if (!suite.n_variants || !suite.models.n) abort();
    if (qb_suite_expand(&suite, NULL, &cases) == QB_OK) check_cases(&cases);
    qb_free(cases.items);
    (void)!qb_suite_set(&suite, "bits=4");
    if (qb_suite_expand(&suite, "gptq*,none", &cases) == QB_OK) check_cases(&cases);
    qb_free(cases.items);
    qb_suite_free(&suite);
    return 0;
}
