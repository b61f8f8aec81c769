/* Errors: what can fail returns qb_status; the sentence for the user is kept per thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#if defined(__GNUC__)
#define QB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define QB_NODISCARD         __attribute__((warn_unused_result))
#else
#define QB_PRINTF(fmt, args)
#define QB_NODISCARD
#endif

typedef enum {
#define X(name, exit_code, text) QB_##name,
#include "base/status.def"
#undef X
} qb_status;

/* Sets this thread's error sentence and returns `code`, so that `return qb_fail(...)` reads as one step.
   The sentence says what, where, expected, found, what to try; it holds no newline and no full stop. */
qb_status qb_fail(qb_status code, const char *fmt, ...) QB_PRINTF(2, 3);

/* Puts "prefix: " before the present sentence (a caller adds the file or module it knows). Returns `code`. */
qb_status qb_fail_prefix(qb_status code, const char *fmt, ...) QB_PRINTF(2, 3);

/* The sentence set last on this thread; never NULL, "" after qb_error_clear. Owned by the thread. */
const char *qb_error_text(void);
void qb_error_clear(void);

/* "ERR_FORMAT" -> for results; "malformed input" -> for people; process exit code for main. */
const char *qb_status_name(qb_status status);
const char *qb_status_text(qb_status status);
int qb_status_exit_code(qb_status status);

/* Runs `expr`; on failure leaves through the function's single `out:` label with `st` set. */
#define QB_TRY(st, expr)                                                                                     \
    do {                                                                                                     \
        if (((st) = (expr)) != QB_OK) goto out;                                                              \
    } while (0)
