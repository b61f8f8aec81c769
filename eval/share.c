#include "eval/share.h"

#include "base/memory.h"
#include "model/offload.h"

#include <stdio.h>
#include <unistd.h>

double qb_product_ceiling(const qb_ceilings *c, const qb_activation_use *use) {
    double whole = use->mode == QB_ACTIVATIONS_I8    ? c->int8_op_per_s
                   : use->mode == QB_ACTIVATIONS_I16 ? c->int16_op_per_s
                                                     : 0;
    double seconds = 0, left = 1; /* of an operation */
    if (whole > 0 && use->whole_share > 0) seconds += use->whole_share / whole, left -= use->whole_share;
    if (c->dense_flop_per_s > 0) seconds += use->dense_share / c->dense_flop_per_s, left -= use->dense_share;
    return 1 / (seconds + left / c->gemm_flop_per_s);
}

void qb_share_put(const qb_device *dev, double reached, double ceiling, double reused_bytes,
                  qb_measure *row) {
    qb_json_put_real(row->extra, "ceiling", ceiling);
    qb_json_put_real(row->extra, "share_of_ceiling", reached / ceiling);
    if (!(reached > ceiling)) return;
    char bytes[32], why[200];
    double cache = (double)sysconf(_SC_LEVEL3_CACHE_SIZE);
    bool fits = !dev->backend->separate_memory && cache > 0 && reused_bytes <= cache;
    qb_format_bytes(reused_bytes, bytes);
    if (reused_bytes > 0 && (fits || reused_bytes < 64e6))
        snprintf(why, sizeof why, "the %s read for each token stay in caches, and the ceiling is of memory",
                 bytes);
    else
        snprintf(why, sizeof why,
                 "the ceiling was measured while the device was slower: other work ran then, or its clock "
                 "was lower");
    qb_json_put_text(row->extra, "share_reason", why);
}

void qb_ceilings_put(const qb_model *m, const qb_ceilings *c, qb_measure *row) {
    if (qb_model_host_blocks(m) > 0) {
        qb_json_put_int(row->extra, "host_blocks", qb_model_host_blocks(m));
        qb_json_put_int(row->extra, "bus_bytes_per_pass", qb_model_host_bytes(m));
    }
    const qb_ceiling *one;
    for (size_t i = 0; (one = qb_ceiling_at(i)); i++)
        if (qb_ceiling_of(c, one) > 0) qb_json_put_real(row->extra, one->row_key, qb_ceiling_of(c, one));
}
