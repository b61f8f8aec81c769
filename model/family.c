/* The registry of families. */
#include "model/config.h"

#include <string.h>

#define X(name) extern const qb_family qb_family_##name;
#include "model/families/families.def"
#undef X

static const qb_family *const families[] = {
#define X(name) &qb_family_##name,
#include "model/families/families.def"
#undef X
};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

const qb_family *qb_family_at(size_t index) {
    return index < N_FAMILIES ? families[index] : NULL;
}

/* Whether `name` is one of "a|b|c". */
static bool is_among(const char *names, const char *name) {
    size_t n = strlen(name);
    for (const char *p = names; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (strcspn(p, "|") == n && !strncmp(p, name, n)) return true;
    return false;
}

const qb_family *qb_family_find(const char *architecture) {
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (is_among(families[i]->architectures, architecture)) return families[i];
    return NULL;
}

const qb_family *qb_family_of_type(const char *model_type) {
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (is_among(families[i]->model_types, model_type)) return families[i];
    return NULL;
}
