#pragma once

#include <stdint.h>

int64_t qb_now_ns(void);              /* monotonic */
void qb_now_rfc3339(char buffer[32]); /* UTC, "2026-11-22T05:49:38Z" */
