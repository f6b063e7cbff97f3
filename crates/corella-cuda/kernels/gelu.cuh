// GELU with tanh, and its slope.
#pragma once

#include "common.cuh"

#define ROOT_2_OVER_PI 0.7978845608028654f
#define CUBE 0.044715f

// ½(1 + tanh(√(2/π)(x + 0.044715x³))), which is 1/(1 + e^−2u): GELU is x times it.
__device__ __forceinline__ float gate(float x) {
    const float u = ROOT_2_OVER_PI * (x + CUBE * x * x * x);
    return __fdividef(1.0f, 1.0f + exp2_fast(-2.0f * LOG2_E * u));
}

// GELU's slope, from the gate at x.
__device__ __forceinline__ float gelu_slope(float x, float g) {
    const float bend = g * (1.0f - g);
    // Far out the bend is 0, and x² may be what no f32 holds.
    return g + (bend == 0.0f ? 0.0f : 2.0f * x * bend * ROOT_2_OVER_PI * (1.0f + 3.0f * CUBE * x * x));
}
