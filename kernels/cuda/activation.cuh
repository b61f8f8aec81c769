/* The activation functions, for every kernel that applies one. */
#pragma once

#include "kernels/cuda/cuda.cuh"

namespace qb {

/* A NaN stays one; no form overflows to a NaN. */
__device__ __forceinline__ float activation(qb_activation kind, float x) {
    switch (kind) {
    case QB_ACTIVATION_SILU:
        return x / (1.0f + expf(-x));
    case QB_ACTIVATION_GELU: /* 1 + erf would cancel below zero */
        return 0.5f * x * erfcf(-0.70710678118654752f * x);
    case QB_ACTIVATION_GELU_TANH:
        /* (1 + tanh u) / 2 = sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
        return x / (1.0f + expf(-1.5957691216057308f * x * (0.044715f * x * x + 1.0f)));
    case QB_ACTIVATION_RELU2:
        return x < 0.0f ? 0.0f : x * x;
    case QB_ACTIVATION_QUICK_GELU:
        return x / (1.0f + expf(-1.702f * x));
    case QB_ACTIVATION_SIGMOID:
        return 1.0f / (1.0f + expf(-x));
    default: /* QB_ACTIVATION_RELU; gated forms of their own are `gated`'s */
        return x < 0.0f ? 0.0f : x;
    }
}

/* act(gate) up, by whatever the pair's form is. */
__device__ __forceinline__ float gated(const qb_activate_attr &a, float gate, float up) {
    if (a.kind != QB_ACTIVATION_SWIGLU_OSS) return activation(a.kind, gate) * up;
    const float g = gate > a.limit ? a.limit : gate; /* comparisons that leave a NaN alone */
    const float u = up > a.limit ? a.limit : up < -a.limit ? -a.limit : up;
    return (u + 1.0f) * (g / (1.0f + expf(-a.alpha * g)));
}

} // namespace qb
