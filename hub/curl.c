#include "hub/curl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static const char library[] = "libcurl.so.4"; /* its ABI since 7.16 */
static qb_curl functions;
static char fault[200]; /* "" when all is there */

/* POSIX gives functions as object pointers. */
static void take(void *handle, const char *name, void *slot, size_t bytes) {
    void *found = dlsym(handle, name);
    if (!found && !fault[0]) snprintf(fault, sizeof fault, "%s has no %s", library, name);
    memcpy(slot, &found, bytes);
}

static void load(void) {
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *why = dlerror();
        snprintf(fault, sizeof fault, "%s", why ? why : library);
        return;
    }
#define TAKE(name) take(handle, "curl_" #name, &functions.name, sizeof functions.name)
    TAKE(global_init);
    TAKE(easy_init);
    TAKE(easy_cleanup);
    TAKE(easy_reset);
    TAKE(easy_setopt);
    TAKE(easy_getinfo);
    TAKE(easy_strerror);
    TAKE(multi_init);
    TAKE(multi_cleanup);
    TAKE(multi_add_handle);
    TAKE(multi_remove_handle);
    TAKE(multi_perform);
    TAKE(multi_poll);
    TAKE(multi_info_read);
    TAKE(slist_append);
    TAKE(slist_free_all);
    TAKE(url);
    TAKE(url_cleanup);
    TAKE(url_set);
    TAKE(url_get);
    TAKE(free);
#undef TAKE
    if (!fault[0] && functions.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        snprintf(fault, sizeof fault, "%s does not start", library);
}

qb_status qb_curl_load(const qb_curl **out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    *out = &functions;
    if (!fault[0]) return QB_OK;
    return qb_fail(QB_ERR_UNSUPPORTED,
                   "nothing can be fetched without libcurl 7.66 or later (%s): install libcurl4 (Debian: "
                   "apt-get install libcurl4)",
                   fault);
}
