#include "kernels/cuda/nvml.h"

#include "base/clock.h"
#include "base/memory.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PROCESSES = 64, SAMPLE_MS = 20, CLOCK_SM = 1, CLOCK_MEMORY = 2, SENSOR_GPU = 0 };

typedef struct {
    unsigned pid;
    unsigned long long bytes; /* all bits set: not known to this user */
    unsigned gpu_instance, compute_instance;
} process_info;

typedef int (*plain_fn)(void);
typedef int (*handle_fn)(const char *bus_id, void **device);
typedef int (*count_fn)(void *device, unsigned long long *value);
typedef int (*unsigned_fn)(void *device, unsigned *value);
typedef int (*indexed_fn)(void *device, unsigned which, unsigned *value);
typedef int (*processes_fn)(void *device, unsigned *count, process_info *infos);

struct qb_nvml {
    void *library, *device;
    plain_fn init, shutdown;
    handle_fn handle;
    /* any of these may be missing */
    count_fn energy, throttle;
    unsigned_fn power, power_limit;
    indexed_fn clock, temperature;
    processes_fn processes;

    bool has_counter, sampling;
    pthread_t sampler;
    pthread_mutex_t lock; /* of the fields below */
    bool stop;
    double sampled_j;
};

/* ISO C has no conversion from dlsym's object pointer to a function pointer; POSIX demands that this works.
 */
static void find(void *library, const char *symbol, void *function) {
    void *object = dlsym(library, symbol);
    memcpy(function, &object, sizeof object);
}

static bool load_calls(qb_nvml *n) {
    find(n->library, "nvmlInit_v2", &n->init);
    find(n->library, "nvmlShutdown", &n->shutdown);
    find(n->library, "nvmlDeviceGetHandleByPciBusId_v2", &n->handle);
    find(n->library, "nvmlDeviceGetTotalEnergyConsumption", &n->energy);
    find(n->library, "nvmlDeviceGetPowerUsage", &n->power);
    find(n->library, "nvmlDeviceGetEnforcedPowerLimit", &n->power_limit);
    find(n->library, "nvmlDeviceGetClockInfo", &n->clock);
    find(n->library, "nvmlDeviceGetTemperature", &n->temperature);
    find(n->library, "nvmlDeviceGetCurrentClocksEventReasons", &n->throttle);
    if (!n->throttle) find(n->library, "nvmlDeviceGetCurrentClocksThrottleReasons", &n->throttle);
    find(n->library, "nvmlDeviceGetComputeRunningProcesses_v3", &n->processes);
    if (!n->processes) find(n->library, "nvmlDeviceGetComputeRunningProcesses_v2", &n->processes);
    return n->init && n->shutdown && n->handle;
}

/* ---- energy where the device has no counter ---- */

static double power_now_w(const qb_nvml *n) {
    unsigned milliwatts;
    return n->power && n->power(n->device, &milliwatts) == 0 ? milliwatts * 1e-3 : (double)NAN;
}

/* The integral of the power over time, by trapezoids. */
static void *sample_power(void *ctx) {
    qb_nvml *n = ctx;
    const struct timespec pause = {0, SAMPLE_MS * 1000000L};
    double before_w = power_now_w(n);
    int64_t before_ns = qb_now_ns();
    for (bool stop = false; !stop;) {
        nanosleep(&pause, NULL);
        double w = power_now_w(n);
        int64_t now = qb_now_ns();
        double joules = (w + before_w) / 2 * (double)(now - before_ns) * 1e-9;
        pthread_mutex_lock(&n->lock);
        if (isfinite(joules)) n->sampled_j += joules;
        stop = n->stop;
        pthread_mutex_unlock(&n->lock);
        before_w = w;
        before_ns = now;
    }
    return NULL;
}

static void start_sampling(qb_nvml *n) {
    unsigned long long ignored;
    n->has_counter = n->energy && n->energy(n->device, &ignored) == 0;
    if (n->has_counter || isnan(power_now_w(n))) return;
    n->sampling = pthread_create(&n->sampler, NULL, sample_power, n) == 0;
}

static double energy_now_j(qb_nvml *n) {
    unsigned long long millijoules;
    double joules = (double)NAN;
    if (n->has_counter) return n->energy(n->device, &millijoules) == 0 ? (double)millijoules * 1e-3 : joules;
    if (!n->sampling) return joules;
    pthread_mutex_lock(&n->lock);
    joules = n->sampled_j;
    pthread_mutex_unlock(&n->lock);
    return joules;
}

/* ---- opening ---- */

qb_status qb_nvml_open(const char *library, const char *pci_bus_id, qb_nvml **out) {
    qb_nvml *n;
    int error;
    *out = NULL;
    if (!library) library = "libnvidia-ml.so.1";
    qb_status st = qb_alloc_zero(1, sizeof *n, &n);
    if (st != QB_OK) return st;
    pthread_mutex_init(&n->lock, NULL);
    n->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!n->library) {
        st = qb_fail(QB_ERR_NOT_FOUND, "%s cannot be opened, so energy and clocks are not measured: %s",
                     library, dlerror());
    } else if (!load_calls(n)) {
        st = qb_fail(QB_ERR_UNSUPPORTED, "%s lacks a basic call, so energy and clocks are not measured",
                     library);
    } else if ((error = n->init()) != 0) {
        st = qb_fail(QB_ERR_NOT_FOUND, "nvmlInit failed with code %d, so energy and clocks are not measured",
                     error);
    } else if ((error = n->handle(pci_bus_id, &n->device)) != 0) {
        n->shutdown();
        st = qb_fail(QB_ERR_NOT_FOUND, "NVML knows no device %s (code %d)", pci_bus_id, error);
    }
    if (st != QB_OK) {
        if (n->library) dlclose(n->library);
        pthread_mutex_destroy(&n->lock);
        qb_free(n);
        return st;
    }
    start_sampling(n);
    *out = n;
    return QB_OK;
}

void qb_nvml_close(qb_nvml *n) {
    if (!n) return;
    if (n->sampling) {
        pthread_mutex_lock(&n->lock);
        n->stop = true;
        pthread_mutex_unlock(&n->lock);
        pthread_join(n->sampler, NULL);
    }
    n->shutdown();
    dlclose(n->library);
    pthread_mutex_destroy(&n->lock);
    qb_free(n);
}

/* ---- reading ---- */

static double clock_hz(const qb_nvml *n, unsigned which) {
    unsigned mhz;
    return n->clock && n->clock(n->device, which, &mhz) == 0 ? mhz * 1e6 : (double)NAN;
}

/* Reasons that slow a device that has work; idling and clocks that the user chose are none. */
static void read_throttling(const qb_nvml *n, qb_monitor *out) {
    static const struct {
        unsigned long long bit;
        const char *name;
    } reasons[] = {{0x4, "power cap"},
                   {0x8, "hardware slowdown"},
                   {0x20, "software thermal"},
                   {0x40, "hardware thermal"},
                   {0x80, "power brake"}};
    unsigned long long mask;
    out->throttled = -1;
    if (!n->throttle || n->throttle(n->device, &mask) != 0) return;
    out->throttled = 0;
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (!(mask & reasons[i].bit)) continue;
        size_t used = strlen(out->throttle_reasons);
        snprintf(out->throttle_reasons + used, sizeof out->throttle_reasons - used, "%s%s", used ? ", " : "",
                 reasons[i].name);
        out->throttled = 1;
    }
}

/* In a container the driver counts processes by the host's ids, and ours is not found by its own: then one of
   those listed is taken for it, and only where it is alone are its bytes known to be ours. */
static void read_processes(const qb_nvml *n, qb_monitor *out) {
    process_info infos[MAX_PROCESSES];
    unsigned count = MAX_PROCESSES, own = (unsigned)getpid();
    const process_info *ours = NULL;
    if (!n->processes || n->processes(n->device, &count, infos) != 0 || count > MAX_PROCESSES) return;
    for (unsigned i = 0; i < count; i++)
        if (infos[i].pid == own) ours = &infos[i];
    if (!ours && count == 1) ours = &infos[0];
    out->foreign_processes = count ? (int)count - 1 : 0;
    if (ours && ours->bytes <= (unsigned long long)INT64_MAX) out->process_bytes = (int64_t)ours->bytes;
}

void qb_nvml_read(qb_nvml *n, qb_monitor *out) {
    unsigned value;
    *out = (qb_monitor){.foreign_processes = -1, .process_bytes = -1};
    out->energy_j = energy_now_j(n);
    out->energy_sampled = !n->has_counter;
    out->power_w = power_now_w(n);
    out->power_limit_w =
        n->power_limit && n->power_limit(n->device, &value) == 0 ? value * 1e-3 : (double)NAN;
    out->temperature_c =
        n->temperature && n->temperature(n->device, SENSOR_GPU, &value) == 0 ? value : (double)NAN;
    out->sm_clock_hz = clock_hz(n, CLOCK_SM);
    out->memory_clock_hz = clock_hz(n, CLOCK_MEMORY);
    read_throttling(n, out);
    read_processes(n, out);
}
