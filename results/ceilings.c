#include "results/ceilings.h"

#include "results/text.h"

#include <math.h>

static bool drifted(double before, double after) {
    return before > 0 && fabs(after - before) > QB_CEILING_DRIFT * fmax(before, after); /* NaN: no */
}

void qb_ceiling_drift_put(const char *device, const qb_ceilings *before, const qb_ceilings *after,
                          qb_str *out) {
    bool any = false;
    const qb_ceiling *c;
    for (size_t i = 0; (c = qb_ceiling_at(i)); i++) {
        double was = qb_ceiling_of(before, c), is = qb_ceiling_of(after, c);
        if (!drifted(was, is)) continue;
        if (!any) {
            qb_text_clean(device, 80, out);
            qb_str_text(out, " did not hold still during the run: ");
        }
        qb_str_printf(out, "%s%s ceiling %.1f before and %.1f %s behind it (%+.0f %%)", any ? ", " : "",
                      c->name, was / c->scale, is / c->scale, c->unit, 100 * (is / was - 1));
        any = true;
    }
    if (any) qb_str_text(out, "; speeds and shares of the ceiling may be off by as much");
}

void qb_ceiling_drift_of(const qb_row_device *d, qb_str *out) {
    qb_ceiling_drift_put(d->description, &d->ceilings, &d->ceilings_after, out);
}
