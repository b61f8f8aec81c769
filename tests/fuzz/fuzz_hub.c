/* Answers of the hub: the first byte says which (a revision, a page of the tree, the head of an answer, an
   address that is led to). */
#include "base/memory.h"
#include "base/str.h"
#include "hub/address.h"
#include "hub/http.h"
#include "hub/listing.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void fuzz_tree(const char *bytes, size_t n) {
    qb_hub_listing list = {0};
    int64_t skipped;
    if (qb_hub_read_tree(bytes, n, "fuzz", &list) == QB_OK) {
        for (size_t i = 0; i < list.n; i++)
            if (!qb_hub_is_path(list.files[i].path) || !qb_hub_is_etag(list.files[i].etag) ||
                list.files[i].bytes < 0)
                abort();
        size_t before = list.n;
        if (qb_hub_choose(&list, before % 2 ? "*.json,a*" : NULL, "fuzz", &skipped) == QB_OK &&
            (list.n > before || skipped < 0))
            abort();
    }
    qb_hub_listing_free(&list);
}

static void fuzz_head(const char *bytes, size_t n) {
    qb_http_answer *a;
    if (qb_alloc_zero(1, sizeof *a, &a) != QB_OK) abort();
    while (n) {
        const char *end = memchr(bytes, '\n', n);
        size_t length = end ? (size_t)(end - bytes) + 1 : n;
        qb_http_take_header(bytes, length, a);
        if (strlen(a->etag) >= sizeof a->etag || strlen(a->next) >= sizeof a->next || a->length < -1) abort();
        bytes += length;
        n -= length;
    }
    qb_free(a);
}

static void fuzz_address(const char *bytes, size_t n) {
    qb_str text = {0};
    char *joined = NULL;
    qb_str_append(&text, bytes, n);
    if (qb_url_join("https://hub.example/a/b?c", qb_str_get(&text), &joined) == QB_OK &&
        strncmp(joined, "https://", 8) != 0)
        abort();
    (void)qb_url_is_relative(qb_str_get(&text));
    qb_free(joined);
    qb_str_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char commit[QB_HUB_COMMIT];
    if (size == 0) return 0;
    const char *bytes = (const char *)data + 1;
    size_t n = size - 1;
    switch (data[0]) {
    case 'i':
        if (qb_hub_read_info(bytes, n, "fuzz", commit) == QB_OK && !qb_hub_is_commit(commit)) abort();
        break;
    case 'h':
        fuzz_head(bytes, n);
        break;
    case 'a':
        fuzz_address(bytes, n);
        break;
    default:
        fuzz_tree(bytes, n);
    }
    return 0;
}
