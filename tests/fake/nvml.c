/* A stand-in for libnvidia-ml.so.1 with known sensors, for the tests of the program's NVML reader. With
   FAKE_NVML_NO_COUNTER in the environment the device has no energy counter; FAKE_NVML_FOREIGN lists the
   processes by ids of another namespace. The device takes 100 W. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
} process_info;

static int the_device, open_count;

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **device);
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules);
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts);
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts);
int nvmlDeviceGetClockInfo(void *device, unsigned which, unsigned *mhz);
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius);
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *mask);
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_info *infos);
int fake_nvml_open_count(void);

enum { NOT_SUPPORTED = 3, NOT_FOUND = 6 };

int fake_nvml_open_count(void) {
    return open_count;
}
int nvmlInit_v2(void) {
    open_count++;
    return 0;
}
int nvmlShutdown(void) {
    open_count--;
    return 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **device) {
    *device = &the_device;
    return strcmp(bus_id, "0000:17:00.0") ? NOT_FOUND : 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    static unsigned long long counter = 5000;
    (void)device;
    if (getenv("FAKE_NVML_NO_COUNTER")) return NOT_SUPPORTED;
    *millijoules = counter;
    counter += 2500; /* each reading finds 2.5 J more */
    return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    (void)device;
    *milliwatts = 100000;
    return 0;
}
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts) {
    (void)device;
    *milliwatts = 700000;
    return 0;
}
int nvmlDeviceGetClockInfo(void *device, unsigned which, unsigned *mhz) {
    (void)device;
    *mhz = which == 1 ? 1980 : which == 2 ? 3201 : 0;
    return 0;
}
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) {
    (void)device;
    *celsius = 61;
    return sensor == 0 ? 0 : NOT_SUPPORTED;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *mask) {
    (void)device;
    *mask = 0x1 | 0x4 | 0x20; /* idle, power cap, software thermal */
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_info *infos) {
    (void)device;
    if (*count < 2) return 7; /* insufficient size */
    unsigned own = (unsigned)getpid();
    *count = 2;
    infos[0] = (process_info){1, 1u << 30, 0, 0};
    infos[1] = (process_info){getenv("FAKE_NVML_FOREIGN") ? own + 77777 : own, 3u << 20, 0, 0};
    return 0;
}
