/* What disturbed a timed stretch from outside. Judged by the kernel's counters alone, never by how long the
   stretch took: leaving out what is slow would make every figure better than it is. */
#pragma once

#include "base/host_counters.h"
#include "base/json.h"
#include "kernels/backend.h"

typedef enum {
    QB_DISTURBED_WAITED = 1,    /* threads waited for a core that others had */
    QB_DISTURBED_SWITCHED = 2,  /* the same, by involuntary switches, where the kernel counts no waiting */
    QB_DISTURBED_STOLEN = 4,    /* the hypervisor gave cores to others */
    QB_DISTURBED_THROTTLED = 8, /* heat slowed a core down */
    QB_DISTURBED_CLOCK = 16,    /* the clock was a tenth slower than when the row began */
    QB_DISTURBED_DEVICE = 32,   /* the device began to throttle, or another process came onto it */
} qb_disturbance;
enum { QB_DISTURBANCES = 6 };
/* "waited for a core", of one bit; and its JSON key, "waited". */
const char *qb_disturbance_words(unsigned bit);
const char *qb_disturbance_key(unsigned bit);

/* Of a stretch of so many seconds that `threads` threads worked in. `usual` is the state when the row began.
   Bits of qb_disturbance. */
unsigned qb_disturbances(const qb_host_counters *before, const qb_host_counters *after,
                         const qb_host_counters *usual, double seconds, int threads);

/* The two ends of a stretch on a device. begin and end stand outside of what is timed. */
typedef struct qb_stretch {
    qb_device *dev;
    int threads;
    qb_host_counters usual, before;
    int usual_throttled, usual_foreign; /* of the device; -1: not known */
} qb_stretch;
void qb_stretch_open(qb_stretch *s, qb_device *dev); /* once a row */
void qb_stretch_begin(qb_stretch *s);
unsigned qb_stretch_end(qb_stretch *s, double seconds);
