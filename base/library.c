#include "base/library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

static qb_status fail(const qb_library *l, const char *why) {
    return qb_fail(QB_ERR_UNSUPPORTED, "%s is needed by %s (%s): install %s (Debian: apt-get install %s)",
                   l->file, l->what, why, l->package, l->package);
}

static qb_status load(qb_library *l) {
    void *handle = dlopen(l->file, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *why = dlerror();
        return fail(l, why ? why : "it cannot be opened");
    }
    for (size_t i = 0; i < l->n_symbols; i++) {
        void *found = dlsym(handle, l->symbols[i].name);
        if (!found) {
            qb_status st = fail(l, l->symbols[i].name);
            dlclose(handle);
            return st;
        }
        /* POSIX gives functions as object pointers. */
        memcpy((char *)l->functions + l->symbols[i].offset, &found, sizeof found);
    }
    l->loaded = true;
    return QB_OK;
}

qb_status qb_library_load(qb_library *l) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    qb_status st = l->loaded ? QB_OK : load(l);
    pthread_mutex_unlock(&lock);
    return st;
}
