#include "eval/watch.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const double shortest_s = 0.1;

static bool read_sensors(qb_device *dev, qb_monitor *out) {
    return dev->backend->monitor && dev->backend->monitor(dev, out) == QB_OK;
}

void qb_watch_begin(qb_watch *w, qb_device *dev) {
    *w = (qb_watch){.dev = dev, .start_ns = qb_now_ns()};
    if (getloadavg(&w->load_average, 1) != 1) w->load_average = (double)NAN;
    w->on = read_sensors(dev, &w->before);
}

static void put_count(qb_json *extra, const char *key, int64_t value) {
    if (value >= 0)
        qb_json_put_int(extra, key, value);
    else
        qb_json_put_null(extra, key);
}

static void put_throttling(const qb_monitor *before, const qb_monitor *after, qb_json *extra) {
    if (before->throttled < 0 || after->throttled < 0) {
        qb_json_put_null(extra, "throttled");
        return;
    }
    const qb_monitor *m = after->throttled ? after : before;
    qb_json_put_bool(extra, "throttled", m->throttled);
    if (m->throttled) qb_json_put_text(extra, "throttle_reasons", m->throttle_reasons);
}

void qb_watch_end(qb_watch *w, double tokens, qb_json *extra) {
    qb_monitor after;
    double window_s = (double)(qb_now_ns() - w->start_ns) * 1e-9;
    qb_json_put_real(extra, "load_average", w->load_average);
    if (!w->on || !read_sensors(w->dev, &after)) return;
    double joules = after.energy_j - w->before.energy_j;
    qb_json_put_real(extra, "energy_j_per_token",
                     window_s >= shortest_s && tokens > 0 ? joules / tokens : (double)NAN);
    qb_json_put_real(extra, "energy_window_s", window_s);
    qb_json_put_bool(extra, "energy_sampled", after.energy_sampled);
    qb_json_put_real(extra, "sm_clock_hz", after.sm_clock_hz);
    qb_json_put_real(extra, "memory_clock_hz", after.memory_clock_hz);
    qb_json_put_real(extra, "temperature_c", after.temperature_c);
    qb_json_put_real(extra, "power_limit_w", after.power_limit_w);
    put_throttling(&w->before, &after, extra);
    int most = after.foreign_processes > w->before.foreign_processes ? after.foreign_processes
                                                                     : w->before.foreign_processes;
    put_count(extra, "foreign_processes", most);
}

int64_t qb_watch_process_bytes(qb_device *dev) {
    qb_monitor m;
    return read_sensors(dev, &m) ? m.process_bytes : -1;
}
