#include "kernels/backend.h"

#include <string.h>

#define X(name) extern const qb_backend qb_backend_##name;
#include "kernels/backends.def"
#undef X

static const qb_backend *const backends[] = {
#define X(name) &qb_backend_##name,
#include "kernels/backends.def"
#undef X
};

enum {
#define X(name) BACKEND_##name,
#include "kernels/backends.def"
#undef X
    BACKEND_COUNT
};

const qb_backend *qb_backend_at(size_t index) {
    return index < BACKEND_COUNT ? backends[index] : NULL;
}

const qb_backend *qb_backend_find(const char *name) {
    for (size_t i = 0; qb_backend_at(i); i++)
        if (strcmp(qb_backend_at(i)->name, name) == 0) return qb_backend_at(i);
    return NULL;
}

const char *qb_activations_name(qb_activations a) {
    static const char *const names[] = {"f32", "i16", "i8", "fastest"};
    return names[a];
}
