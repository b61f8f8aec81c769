/* Sensors over a timed stretch: energy, clocks, throttling, other processes, for devices that have them. */
#pragma once

#include "base/json.h"
#include "kernels/backend.h"

typedef struct qb_watch {
    qb_device *dev;
    bool on; /* the device has sensors */
    qb_monitor before;
    int64_t start_ns;
    double load_average; /* of the host over the last minute; NaN: unknown */
} qb_watch;

/* Call both with no op in flight; the second adds to `extra` load_average, and for devices with sensors:
   energy_j_per_token, energy_window_s, energy_sampled, sm_clock_hz, memory_clock_hz, temperature_c,
   power_limit_w, throttled, throttle_reasons, foreign_processes; null where the device has no such sensor.
   Energy over less than a tenth of a second is null: the driver's counter moves in steps of that order. */
void qb_watch_begin(qb_watch *watch, qb_device *dev);
void qb_watch_end(qb_watch *watch, double tokens, qb_json *extra);

/* The driver's figure of this process's device memory; -1 where it is not known. */
int64_t qb_watch_process_bytes(qb_device *dev);
