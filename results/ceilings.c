#include "results/ceilings.h"

#include "results/text.h"

#include <math.h>

static bool drifted(double before, double after) {
    return fabs(after - before) > QB_CEILING_DRIFT * fmax(before, after); /* NaN: no */
}

static void put_one(const char *what, double before, double after, double scale, const char *unit,
                    const char *separator, qb_str *out) {
    qb_str_printf(out, "%s%s %.1f before and %.1f %s behind it (%+.0f %%)", separator, what, before * scale,
                  after * scale, unit, 100 * (after / before - 1));
}

void qb_ceiling_drift_put(const char *device, double read_before, double read_after, double gemm_before,
                          double gemm_after, qb_str *out) {
    bool read = drifted(read_before, read_after), gemm = drifted(gemm_before, gemm_after);
    if (!read && !gemm) return;
    qb_text_clean(device, 80, out);
    qb_str_text(out, " did not hold still during the run: ");
    if (read) put_one("read ceiling", read_before, read_after, 1e-9, "GB/s", "", out);
    if (gemm) put_one("GEMM ceiling", gemm_before, gemm_after, 1e-9, "GFLOP/s", read ? ", " : "", out);
    qb_str_text(out, "; speeds and shares of the ceiling may be off by as much");
}

void qb_ceiling_drift_of(const qb_row_device *d, qb_str *out) {
    qb_ceiling_drift_put(d->description, d->read_bytes_per_s, d->read_bytes_per_s_after, d->gemm_flop_per_s,
                         d->gemm_flop_per_s_after, out);
}
