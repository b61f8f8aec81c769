#include "eval/share.h"

#include "base/memory.h"
#include "model/offload.h"

#include <stdio.h>
#include <unistd.h>

void qb_share_put(const qb_device *dev, double reached, double ceiling, double reused_bytes, bool whole,
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
    else if (whole)
        snprintf(why, sizeof why, "the products are of whole numbers, and the ceiling is of float32 ones");
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
    qb_json_put_real(row->extra, "read_ceiling_bytes_per_s", c->read_bytes_per_s);
    qb_json_put_real(row->extra, "gemm_ceiling_flop_per_s", c->gemm_flop_per_s);
}
