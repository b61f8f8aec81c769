#include "checkpoint/layout.h"

#include "checkpoint/layout_rows.h"

#include <string.h>

static const qb_layout *const layouts[] = {
#define X(name) &qb_layout_##name,
#include "checkpoint/layouts.def"
#undef X
};

const qb_layout *qb_layout_at(size_t index) {
    return index < sizeof layouts / sizeof layouts[0] ? layouts[index] : NULL;
}

const qb_layout *qb_layout_find(const char *name) {
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (!strcmp(layouts[i]->name, name)) return layouts[i];
    return NULL;
}

const qb_layout *qb_layout_for(const qb_qweight *q) {
    return qb_layout_find(q->coding == QB_CODING_CODEBOOK ? "bnb4" : "gptq_v2");
}
