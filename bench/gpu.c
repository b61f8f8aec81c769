/* GPUs as the driver's own management library shows them. It is opened at run time: a machine without GPU
   needs nothing of it. Prototypes after NVIDIA's public NVML API reference; only calls that have kept their
   signature since 2012. */
#include "bench/machine.h"

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
