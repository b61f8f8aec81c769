/* stderr: progress, notes and warnings. stdout belongs to data and is written by bench/ alone. */
#pragma once

#include "base/status.h"

typedef enum { QB_LOG_QUIET, QB_LOG_NORMAL, QB_LOG_VERBOSE } qb_log_level;

void qb_log_set_level(qb_log_level level); /* quiet keeps warnings */
void qb_info(const char *fmt, ...) QB_PRINTF(1, 2);
void qb_debug(const char *fmt, ...) QB_PRINTF(1, 2);
void qb_warn(const char *fmt, ...) QB_PRINTF(1, 2);

/* From now on warnings go to `sink` and not to stderr; NULL ends it. For whoever reports them itself. */
typedef void (*qb_warning_sink)(void *ctx, const char *text);
void qb_log_capture(qb_warning_sink sink, void *ctx);
/* From now on warnings go to `sink` as well as wherever they go; NULL ends it. For whoever writes them down.
 */
void qb_log_copy(qb_warning_sink sink, void *ctx);

/* The one line that a command which failed ends with: "bench: TEXT". */
void qb_log_error(const char *text);

/* Takes away a progress line that an error left standing on the terminal. */
void qb_log_end_line(void);

/* Progress of one long task. On a terminal one line is redrawn with the time
   left; elsewhere a plain line is printed at the start, at most every ten
   seconds, and at the end. Not thread-safe: the task's own thread reports. */
typedef struct qb_progress {
    char label[96];
    double total, done;
    long long started_ns, drawn_ns;
    bool active;
} qb_progress;

void qb_progress_begin(qb_progress *p, double total, const char *fmt, ...) QB_PRINTF(3, 4);
void qb_progress_update(qb_progress *p, double done);
void qb_progress_end(qb_progress *p);
