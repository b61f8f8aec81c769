#include "quant/passes.h"

#include "quant/calibration.h"

int64_t qb_hessian_room_bytes(const qb_quant_config *config) {
    return config->hessian_room_bytes > 0 ? config->hessian_room_bytes : qb_usable_memory_bytes() / 8;
}

static int64_t site_bytes(const qb_walk *w, int64_t site) {
    return w->sites[site].cols * w->sites[site].cols * (int64_t)sizeof(float);
}

int64_t qb_sites_that_fit(const qb_walk *w, int64_t first, int64_t end, bool last, int64_t room) {
    int64_t n = 0, bytes = 0;
    while (n < end - first) {
        bytes += site_bytes(w, last ? end - 1 - n : first + n);
        if (n > 0 && bytes > room) break;
        n++;
    }
    return n;
}

static int64_t passes_over(const qb_walk *w, int64_t first, int64_t end, int64_t room, int64_t *most_bytes) {
    int64_t passes = 0;
    while (end > first) {
        int64_t n = qb_sites_that_fit(w, first, end, true, room), bytes = 0;
        for (int64_t i = end - n; i < end; i++) bytes += site_bytes(w, i);
        if (bytes > *most_bytes) *most_bytes = bytes;
        end -= n;
        passes++;
    }
    return passes;
}

int64_t qb_passes_of(const qb_walk *w, bool true_sequential, int64_t room, int64_t *most_bytes) {
    *most_bytes = 0;
    if (!true_sequential) return passes_over(w, 0, (int64_t)w->n_sites, room, most_bytes);
    int64_t passes = 0;
    for (size_t i = 0; i < w->n_stages; i++) {
        const qb_stage *s = &w->stages[i];
        passes += passes_over(w, s->first_site, s->first_site + s->n_sites, room, most_bytes);
    }
    return passes;
}
