#include "base/json_memory.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

static _Thread_local unsigned long losses;

static void *counted_malloc(size_t n) {
    void *p = malloc(n);
    if (!p) losses++;
    return p;
}

/* Before main: whatever is allocated by one pair of hooks must be freed by the same. */
__attribute__((constructor)) static void hook(void) {
    cJSON_Hooks hooks = {counted_malloc, free};
    cJSON_InitHooks(&hooks);
}

unsigned long qb_json_losses(void) {
    return losses;
}

void qb_json_losses_reset(unsigned long count) {
    losses = count;
}
