/* What every test program needs: cmocka with its prerequisites, a checked call, the shared material, a
 * scratch folder. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/status.h"

#define assert_ok(expr)                                                                                      \
    do {                                                                                                     \
        qb_status assert_ok_status = (expr);                                                                 \
        if (assert_ok_status != QB_OK)                                                                       \
            fail_msg("%s: %s: %s", #expr, qb_status_name(assert_ok_status), qb_error_text());                \
    } while (0)

/* The call must fail with this status and a sentence that holds `needle`. */
#define assert_fails(expr, status, needle)                                                                   \
    do {                                                                                                     \
        qb_status assert_fails_status = (expr);                                                              \
        if (assert_fails_status != (status) || !strstr(qb_error_text(), needle))                             \
            fail_msg("%s: got %s: %s; expected %s with \"%s\"", #expr, qb_status_name(assert_fails_status),  \
                     qb_error_text(), qb_status_name(status), needle);                                       \
    } while (0)

/* Path below the shared material ($QB_SHARED, else ../shared beside the checkout). Skips the test, visibly,
   when absent. The result is one of four rotating buffers. */
static inline const char *shared_path(const char *below) {
    static char paths[4][1024];
    static int next;
    char *path = paths[next++ % 4];
    const char *root = getenv("QB_SHARED");
    snprintf(path, sizeof paths[0], "%s/%s", root ? root : QB_SHARED_DIR, below);
    if (!qb_path_exists(path)) {
        print_message("skipped: %s is absent\n", path);
        skip();
    }
    return path;
}

/* A fresh folder under $TMPDIR; removed by scratch_remove. */
static inline char *scratch_make(void) {
    char name[256];
    const char *tmp = getenv("TMPDIR");
    snprintf(name, sizeof name, "%s/qb-test-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(name)) fail_msg("cannot make a scratch folder %s", name);
    return qb_strdup(name);
}
static inline void scratch_remove(char *dir) {
    (void)!qb_remove_tree(dir);
    qb_free(dir);
}
