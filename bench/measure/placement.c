#include "bench/measure/placement.h"

#include "base/memory.h"
#include "bench/machine/machine.h"

#include <math.h>
#include <stdio.h>

enum { BUS_BYTES = 32 << 20, BUS_ROUNDS = 3 };
/* Rows padded to tiles, scales as the kernels want them; and room for what libraries and panels take. */
static const double weight_margin = 1.05, device_share = 0.95, host_share = 0.9;

/* -1 with the error set: it could not be read. */
static int64_t room_of(qb_device *dev, int64_t memory_bytes) {
    bool separate = dev->backend->separate_memory;
    int64_t have = separate ? dev->backend->available_bytes(dev) : qb_available_memory_bytes();
    if (have < 0) return -1;
    if (memory_bytes > 0 && memory_bytes < have) have = memory_bytes;
    return (int64_t)((separate ? device_share : host_share) * (double)have);
}

qb_status qb_placement_make(const qb_model *m, qb_device *dev, int64_t other_bytes, int64_t memory_bytes,
                            bool offload, qb_placement *out) {
    bool separate = dev->backend->separate_memory;
    int64_t weights = qb_model_weight_bytes(m) + (separate ? qb_model_wide_table_bytes(m) : 0);
    int64_t room = room_of(dev, memory_bytes);
    int64_t need = (int64_t)(weight_margin * (double)weights) + other_bytes;
    char a[32], b[32], c[32];
    *out = (qb_placement){.plan = {.device_blocks = m->config.n_layers, .device_bytes = weights}};
    if (room < 0) return QB_ERR_IO;
    snprintf(out->reason, sizeof out->reason,
             "the weights take %s and the work beside them %s; %s of %smemory may be used%s",
             qb_format_bytes((double)weights, a), qb_format_bytes((double)other_bytes, b),
             qb_format_bytes((double)room, c), separate ? "device " : "",
             separate && !offload ? " (--offload puts what is left into host memory)" : "");
    if (need <= room) return QB_OK;
    out->kind = QB_PLACEMENT_BLOCKS;
    if (!offload || !separate) return QB_OK;
    if (qb_offload_plan_make(m, room, other_bytes, &out->plan) == QB_OK) {
        out->kind = out->plan.device_blocks < m->config.n_layers ? QB_PLACEMENT_SPLIT : QB_PLACEMENT_DEVICE;
    } else {
        snprintf(out->reason, sizeof out->reason, "%s", qb_error_text());
        qb_error_clear();
    }
    return QB_OK;
}

qb_status qb_bus_rate(qb_device *dev, double *bytes_per_s) {
    const qb_backend *be = dev->backend;
    void *to = NULL;
    char *from = NULL;
    double best = INFINITY, seconds;
    qb_status st;
    QB_TRY(st, qb_alloc_zero(BUS_BYTES, 1, &from));
    QB_TRY(st, be->alloc(dev, QB_MEMORY_WORKSPACE, BUS_BYTES, &to));
    for (int i = 0; i < BUS_ROUNDS; i++) {
        QB_TRY(st, be->timer_start(dev));
        QB_TRY(st, be->upload(dev, to, from, BUS_BYTES));
        QB_TRY(st, be->timer_stop(dev, &seconds));
        best = fmin(best, seconds);
    }
    *bytes_per_s = BUS_BYTES / best;
out:
    be->free(dev, to);
    qb_free(from);
    return st;
}

static double token_seconds(const qb_placement *p, const double *bus, const qb_ceilings *ceilings) {
    if (!bus || !ceilings) return (double)NAN;
    return (double)p->plan.device_bytes / ceilings->read_bytes_per_s + (double)p->plan.bus_bytes / *bus;
}

void qb_placement_describe(const qb_placement *p, const double *bus, const qb_ceilings *ceilings,
                           qb_str *out) {
    char a[32], b[32], c[32];
    if (p->kind == QB_PLACEMENT_BLOCKS) {
        qb_str_printf(out, "does not fit: %s", p->reason);
        return;
    }
    qb_str_printf(out, "%s of weights on the device, %s in host memory, %s over the bus a token",
                  qb_format_bytes((double)p->plan.device_bytes, a),
                  qb_format_bytes((double)p->plan.host_bytes, b),
                  qb_format_bytes((double)p->plan.bus_bytes, c));
    double seconds = token_seconds(p, bus, ceilings);
    if (isfinite(seconds)) qb_str_printf(out, ", %s a token at best", qb_format_seconds(seconds, a));
}

qb_json *qb_placement_json(const qb_placement *p, const double *bus, const qb_ceilings *ceilings) {
    qb_json *j = qb_json_object();
    bool fits = p->kind != QB_PLACEMENT_BLOCKS;
    qb_json_put_bool(j, "fits", fits);
    qb_json_put_text(j, "reason", fits ? NULL : p->reason);
    if (!fits) return j;
    qb_json_put_int(j, "device_blocks", p->plan.device_blocks);
    qb_json_put_int(j, "device_bytes", p->plan.device_bytes);
    qb_json_put_int(j, "host_bytes", p->plan.host_bytes);
    qb_json_put_int(j, "bus_bytes_per_token", p->plan.bus_bytes);
    qb_json_put_real(j, "bus_bytes_per_s", bus ? *bus : (double)NAN);
    qb_json_put_real(j, "seconds_per_token", token_seconds(p, bus, ceilings));
    return j;
}
