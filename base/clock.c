#include "base/clock.h"

#include <time.h>

int64_t qb_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void qb_now_rfc3339(char buffer[32]) {
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(buffer, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
}
