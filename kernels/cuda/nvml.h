/* Sensors of one NVIDIA device through the driver's management library, opened at run time: a machine without
   it needs nothing of it. Functions and numbers after NVIDIA's NVML API reference. */
#pragma once

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qb_nvml qb_nvml;

/* Opens the library (NULL: libnvidia-ml.so.1 of the driver) and the device with that PCI bus address
   ("0000:17:00.0"). QB_ERR_NOT_FOUND without library or device, QB_ERR_UNSUPPORTED when the library lacks a
   basic call. A device without energy counter has its power sampled by a thread of this handle from here on.
 */
qb_status qb_nvml_open(const char *library, const char *pci_bus_id, qb_nvml **out) QB_NODISCARD;
void qb_nvml_close(qb_nvml *nvml); /* takes NULL */
/* Reads every sensor that the device has; the others are NaN or -1. */
void qb_nvml_read(qb_nvml *nvml, qb_monitor *out);

#ifdef __cplusplus
}
#endif
