#include "eval/disturbance.h"

#include <math.h>

/* Two per cent of the time is what rows aim at; a thread that waits so long is felt. A tick of 10 ms is the
   least that the kernel tells of stolen time. */
static const double waited_share = 0.02, stolen_share = 0.02, slower_clock = 0.9;
static const double switches_per_s = 100; /* of a thread: more than a quiet machine's housekeeping */

static const struct {
    unsigned bit;
    const char *key, *words;
} rows[QB_DISTURBANCES] = {
    {QB_DISTURBED_WAITED, "waited", "threads waited for a core"},
    {QB_DISTURBED_SWITCHED, "switched", "threads were put aside for others"},
    {QB_DISTURBED_STOLEN, "stolen", "the hypervisor took cores away"},
    {QB_DISTURBED_THROTTLED, "throttled", "heat slowed cores down"},
    {QB_DISTURBED_CLOCK, "clock", "the clock fell"},
    {QB_DISTURBED_DEVICE, "device", "the device throttled or another process used it"},
};

const char *qb_disturbance_words(unsigned bit) {
    for (int i = 0; i < QB_DISTURBANCES; i++)
        if (rows[i].bit & bit) return rows[i].words;
    return "";
}

const char *qb_disturbance_key(unsigned bit) {
    for (int i = 0; i < QB_DISTURBANCES; i++)
        if (rows[i].bit & bit) return rows[i].key;
    return "";
}

/* NaN where one side has no such counter. */
static double grown(int64_t before, int64_t after) {
    return before < 0 || after < 0 ? (double)NAN : (double)(after - before);
}

unsigned qb_disturbances(const qb_host_counters *before, const qb_host_counters *after,
                         const qb_host_counters *usual, double seconds, int threads) {
    unsigned bits = 0;
    double ns = seconds * 1e9, waited = grown(before->waited_ns, after->waited_ns);
    double switches = grown(before->involuntary, after->involuntary);
    if (waited > waited_share * ns) bits |= QB_DISTURBED_WAITED;
    if (isnan(waited) && switches > 1 && switches > switches_per_s * seconds * threads)
        bits |= QB_DISTURBED_SWITCHED;
    if (grown(before->stolen_ns, after->stolen_ns) > stolen_share * ns) bits |= QB_DISTURBED_STOLEN;
    if (grown(before->throttled, after->throttled) > 0) bits |= QB_DISTURBED_THROTTLED;
    if (after->cpu_hz < slower_clock * usual->cpu_hz) bits |= QB_DISTURBED_CLOCK;
    return bits;
}

/* The device's state, where it has sensors. */
static void look(qb_device *dev, int *throttled, int *foreign) {
    qb_monitor m;
    bool there = dev->backend->monitor && dev->backend->monitor(dev, &m) == QB_OK;
    *throttled = there ? m.throttled : -1;
    *foreign = there ? m.foreign_processes : -1;
    if (!there) qb_error_clear();
}

void qb_stretch_open(qb_stretch *s, qb_device *dev) {
    *s = (qb_stretch){.dev = dev, .threads = qb_threads_count(dev->threads)};
    qb_host_counters_read("", &s->usual);
    look(dev, &s->usual_throttled, &s->usual_foreign);
}

void qb_stretch_begin(qb_stretch *s) {
    qb_host_counters_read("", &s->before);
}

unsigned qb_stretch_end(qb_stretch *s, double seconds) {
    qb_host_counters after;
    int throttled, foreign;
    qb_host_counters_read("", &after);
    unsigned bits = qb_disturbances(&s->before, &after, &s->usual, seconds, s->threads);
    look(s->dev, &throttled, &foreign);
    if (throttled > s->usual_throttled || foreign > s->usual_foreign) bits |= QB_DISTURBED_DEVICE;
    return bits;
}
