#include "results/ceilings.h"

#include "results/text.h"

#include <math.h>
#include <stdio.h>

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

/* "a; b" */
static void begin_doubt(const char *device, bool *any, qb_str *out) {
    if (*any) {
        qb_str_text(out, "; ");
    } else {
        qb_text_clean(device, 80, out);
        qb_str_text(out, ": ");
    }
    *any = true;
}

void qb_ceiling_doubt_put(const char *device, const qb_json *json, qb_str *out) {
    const qb_ceilings before = qb_ceilings_read(json, ""), after = qb_ceilings_read(json, "_after");
    const qb_json *best = qb_json_get(json, "best");
    const qb_ceiling *c;
    bool any = false;
    if (before.cpu_share > 0 && before.cpu_share < 1 - QB_CEILING_DRIFT) {
        begin_doubt(device, &any, out);
        qb_str_printf(out, "other work had %.0f %% of the processors when its ceilings were measured",
                      100 * (1 - before.cpu_share));
    }
    for (size_t i = 0; (c = qb_ceiling_at(i)); i++) {
        const qb_json *one = qb_json_get(best, c->key);
        double now = fmax(qb_ceiling_of(&before, c), qb_ceiling_of(&after, c));
        double most = qb_json_number(qb_json_get(one, "value"));
        double load = qb_json_number(qb_json_get(one, "load_average"));
        const char *date = qb_json_string(qb_json_get(one, "date"));
        if (!(now < most * (1 - QB_CEILING_DRIFT))) continue;
        begin_doubt(device, &any, out);
        qb_str_printf(out, "%s ceiling %.1f %s, and %.1f ", c->name, now / c->scale, c->unit,
                      most / c->scale);
        char day[11];
        snprintf(day, sizeof day, "%s", date ? date : "before");
        if (date) qb_str_text(out, "on ");
        qb_text_clean(day, 10, out);
        if (load >= 0) qb_str_printf(out, " at load %.1f", load);
    }
    if (any) qb_str_text(out, ": speeds may be low as well");
}
