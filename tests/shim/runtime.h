/* Streams of the shim, for what else queues work (cuBLAS). */
#pragma once

#include "tests/shim/cuda_runtime.h"

namespace shim {

/* Queues work on a stream, or records it where the stream is captured. It runs with device memory open. */
void enqueue(cudaStream_t stream, std::function<void()> work);
/* Runs all that is queued, with what it waits for. */
void drain(cudaStream_t stream);
bool capturing(cudaStream_t stream);
cudaError_t device_fault();

} // namespace shim
