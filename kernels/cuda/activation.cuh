/* The activation functions, for every kernel that applies one. */
#pragma once

#include "kernels/cuda/cuda.cuh"

namespace qb {

/* A NaN stays one; no form overflows to a NaN. */
__device__ __forceinline__ float activation(qb_activation kind, float x) {
    switch (kind) {
    case QB_ACTIVATION_SILU:
        return x / (1.0f + expf(-x));
    case QB_ACTIVATION_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case QB_ACTIVATION_GELU_TANH:
        /* (1 + tanh u) / 2 = sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
        return x / (1.0f + expf(-1.5957691216057308f * x * (0.044715f * x * x + 1.0f)));
    default:
        return x < 0.0f ? 0.0f : x;
    }
}

} // namespace qb
