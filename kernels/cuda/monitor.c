/* The vtable's monitor: the device's sensors, found when they are first asked for. */
#include "base/log.h"
#include "base/memory.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/nvml.h"

typedef struct {
    qb_nvml *nvml; /* NULL: the library or the device is not there, which was said once */
} monitor_state;

static void free_state(cuda_device *d, void *state) {
    monitor_state *s = state;
    (void)d;
    qb_nvml_close(s->nvml);
    qb_free(s);
}

static qb_status make_state(cuda_device *d, monitor_state **out) {
    monitor_state *s;
    qb_status st = qb_alloc_zero(1, sizeof *s, &s);
    if (st != QB_OK) return st;
    if (qb_nvml_open(NULL, d->pci_bus_id, &s->nvml) != QB_OK) {
        qb_info("%s", qb_error_text());
        qb_error_clear();
    }
    d->parts[QB_CUDA_PART_MONITOR].state = *out = s;
    d->parts[QB_CUDA_PART_MONITOR].free = free_state;
    return QB_OK;
}

qb_status qb_cuda_monitor(qb_device *dev, qb_monitor *out) {
    cuda_device *d = cuda_of(dev);
    monitor_state *s = d->parts[QB_CUDA_PART_MONITOR].state;
    qb_status st = s ? QB_OK : make_state(d, &s);
    if (st != QB_OK) return st;
    if (!s->nvml) return qb_fail(QB_ERR_UNSUPPORTED, "device %d has no sensors to read", d->index);
    qb_nvml_read(s->nvml, out);
    return QB_OK;
}
