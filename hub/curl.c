#include "hub/curl.h"

#include "base/library.h"

#include <pthread.h>

#define SYMBOL(name)                                                                                         \
    { "curl_" #name, offsetof(qb_curl, name) }
static const qb_symbol symbols[] = {
    SYMBOL(global_init),
    SYMBOL(easy_init),
    SYMBOL(easy_cleanup),
    SYMBOL(easy_reset),
    SYMBOL(easy_setopt),
    SYMBOL(easy_getinfo),
    SYMBOL(easy_strerror),
    SYMBOL(multi_init),
    SYMBOL(multi_cleanup),
    SYMBOL(multi_add_handle),
    SYMBOL(multi_remove_handle),
    SYMBOL(multi_perform),
    SYMBOL(multi_poll),
    SYMBOL(multi_info_read),
    SYMBOL(slist_append),
    SYMBOL(slist_free_all),
    SYMBOL(url),
    SYMBOL(url_cleanup),
    SYMBOL(url_set),
    SYMBOL(url_get),
    SYMBOL(free),
};
#undef SYMBOL
static qb_curl functions;
static qb_library library = {.file = "libcurl.so.4", /* its ABI since 7.16 */
                             .what = "downloads, in version 7.66 or later",
                             .package = "libcurl4",
                             .symbols = symbols,
                             .n_symbols = sizeof symbols / sizeof symbols[0],
                             .functions = &functions};
static CURLcode started;

static void start(void) {
    started = functions.global_init(CURL_GLOBAL_DEFAULT);
}

qb_status qb_curl_load(const qb_curl **out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    *out = &functions;
    qb_status st = qb_library_load(&library);
    if (st != QB_OK) return st;
    pthread_once(&once, start);
    return started == CURLE_OK ? QB_OK : qb_fail(QB_ERR_UNSUPPORTED, "%s does not start", library.file);
}
