/* GPUs as the driver's own management library shows them. It is opened at run time: a machine without GPU
   needs nothing of it. Prototypes after NVIDIA's public NVML API reference; only calls that have kept their
   signature since 2012. */
#include "bench/machine/machine.h"

#ifdef QB_WITH_CUDA
#include "kernels/backend.h"
#include "kernels/cuda/cuda_probe.h"
#endif

#include <dlfcn.h>
#include <stdio.h>

typedef int (*nvml_plain_fn)(void);
typedef int (*nvml_count_fn)(unsigned *count);
typedef int (*nvml_handle_fn)(unsigned index, void **device);
typedef int (*nvml_name_fn)(void *device, char *name, unsigned length);
typedef int (*nvml_driver_fn)(char *version, unsigned length);
typedef struct {
    unsigned long long total, free, used;
} nvml_memory;
typedef int (*nvml_memory_fn)(void *device, nvml_memory *memory);

typedef struct {
    nvml_plain_fn init, shutdown;
    nvml_count_fn count;
    nvml_handle_fn handle;
    nvml_name_fn name;
    nvml_driver_fn driver;
    nvml_memory_fn memory;
} nvml_calls;

/* ISO C has no conversion from dlsym's object pointer to a function pointer; POSIX demands that this union
 * works. */
#define LOAD(field, symbol)                                                                                  \
    do {                                                                                                     \
        union {                                                                                              \
            void *object;                                                                                    \
            __typeof__(calls->field) function;                                                               \
        } loaded = {.object = dlsym(library, symbol)};                                                       \
        if (!loaded.object) return false;                                                                    \
        calls->field = loaded.function;                                                                      \
    } while (0)

static bool load_calls(void *library, nvml_calls *calls) {
    LOAD(init, "nvmlInit_v2");
    LOAD(shutdown, "nvmlShutdown");
    LOAD(count, "nvmlDeviceGetCount_v2");
    LOAD(handle, "nvmlDeviceGetHandleByIndex_v2");
    LOAD(name, "nvmlDeviceGetName");
    LOAD(driver, "nvmlSystemGetDriverVersion");
    LOAD(memory, "nvmlDeviceGetMemoryInfo");
    return true;
}

static void list_gpus(const nvml_calls *calls, qb_json *array) {
    unsigned n = 0;
    char driver[96] = "";
    if (calls->count(&n) != 0) return;
    if (calls->driver(driver, sizeof driver - 1) != 0) driver[0] = 0;
    for (unsigned i = 0; i < n; i++) {
        void *device;
        char name[128] = "";
        nvml_memory memory = {0, 0, 0};
        if (calls->handle(i, &device) != 0 || calls->name(device, name, sizeof name - 1) != 0) continue;
        qb_json *gpu = qb_json_object();
        qb_json_put_text(gpu, "name", name);
        if (calls->memory(device, &memory) == 0) qb_json_put_int(gpu, "memory_bytes", (int64_t)memory.total);
        qb_json_put_text(gpu, "driver", driver[0] ? driver : NULL);
        qb_json_push(array, gpu);
    }
}

qb_json *qb_gpus_json(void) {
    qb_json *array = qb_json_array();
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return array;
    nvml_calls calls;
    if (load_calls(library, &calls) && calls.init() == 0) {
        list_gpus(&calls, array);
        calls.shutdown();
    }
    dlclose(library);
    return array;
}

#ifdef QB_WITH_CUDA
/* What its copies and products reach, by the backend itself, and what its sensors say now. */
static qb_status measure_device(int index, qb_json *j) {
    const qb_backend *be = qb_backend_find("cuda");
    qb_device *dev = NULL;
    qb_ceilings ceilings;
    qb_monitor m;
    qb_status st;
    QB_TRY(st, be->open(&(qb_device_options){.threads = 1, .index = index}, &dev));
    QB_TRY(st, be->ceilings(dev, &ceilings));
    qb_json_put_real(j, "copy_bytes_per_s", ceilings.read_bytes_per_s);
    qb_json_put_real(j, "gemm_flop_per_s", ceilings.gemm_flop_per_s);
    if (be->monitor(dev, &m) == QB_OK) {
        qb_json_put_real(j, "power_limit_w", m.power_limit_w);
        qb_json_put_real(j, "temperature_c", m.temperature_c);
        qb_json_put_real(j, "sm_clock_hz", m.sm_clock_hz);
        qb_json_put_real(j, "memory_clock_hz", m.memory_clock_hz);
        qb_json_put_text(j, "throttled", m.throttled > 0 ? m.throttle_reasons : NULL);
        if (m.foreign_processes >= 0) qb_json_put_int(j, "foreign_processes", m.foreign_processes);
    } else {
        qb_error_clear();
    }
out:
    if (dev) be->close(dev);
    return st;
}

static qb_json *cuda_device_json(int device) {
    char why[256] = "";
    qb_cuda_info info;
    qb_json *j = qb_json_object();
    if (qb_cuda_describe(device, &info, why, sizeof why) != 0) {
        qb_json_put_text(j, "error", why);
        return j;
    }
    char capability[16];
    snprintf(capability, sizeof capability, "%d.%d", info.compute_major, info.compute_minor);
    qb_json_put_text(j, "name", info.name);
    qb_json_put_text(j, "compute_capability", capability);
    qb_json_put_int(j, "memory_bytes", info.memory_bytes);
    qb_json_put_int(j, "free_bytes", info.free_bytes);
    qb_json_put_int(j, "multiprocessors", info.multiprocessors);
    if (measure_device(device, j) != QB_OK) {
        qb_json_put_text(j, "error", qb_error_text());
        qb_error_clear();
    }
    return j;
}

qb_json *qb_cuda_json(void) {
    char why[256] = "";
    qb_json *j = qb_json_object(), *devices = qb_json_array();
    qb_json_put_bool(j, "built", true);
    int n = qb_cuda_count(why, sizeof why);
    for (int i = 0; i < n; i++) qb_json_push(devices, cuda_device_json(i));
    qb_json_put(j, "devices", devices);
    qb_json_put_text(j, "reason", n > 0 ? NULL : why);
    return j;
}
#else
qb_json *qb_cuda_json(void) {
    qb_json *j = qb_json_object();
    qb_json_put_bool(j, "built", false);
    qb_json_put(j, "devices", qb_json_array());
    qb_json_put_text(j, "reason", "built without CUDA");
    return j;
}
#endif
