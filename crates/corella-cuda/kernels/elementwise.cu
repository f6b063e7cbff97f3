// Operations that look at each element alone. A thread takes packets of eight, blockDim·gridDim packets apart.
#include "common.cuh"

#define FOR_PACKETS(i, len)                                                                       \
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * PACKET, step = (u64)gridDim.x * blockDim.x * PACKET; \
         i < (len); i += step)

// out = a, rounded to out's format.
extern "C" __global__ void cast(Array out, Array a, u64 len) {
    FOR_PACKETS(i, len) {
        store8(out, i, len, load8(a, i, len));
    }
}

// out = a + b; out may be one of them.
extern "C" __global__ void add(Array out, Array a, Array b, u64 len) {
    FOR_PACKETS(i, len) {
        Packet x = load8(a, i, len);
        const Packet y = load8(b, i, len);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            x.x[k] += y.x[k];
        }
        store8(out, i, len, x);
    }
}

#define ROOT_2_OVER_PI 0.7978845608028654f
#define CUBE 0.044715f

// out = ½x(1 + tanh(√(2/π)(x + 0.044715x³))).
extern "C" __global__ void gelu(Array out, Array x, u64 len) {
    FOR_PACKETS(i, len) {
        Packet v = load8(x, i, len);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            const float a = v.x[k];
            v.x[k] = 0.5f * a * (1.0f + tanhf(ROOT_2_OVER_PI * (a + CUBE * a * a * a)));
        }
        store8(out, i, len, v);
    }
}

// dx ← gelu'(x) · dx.
extern "C" __global__ void gelu_grad(Array dx, Array x, u64 len) {
    FOR_PACKETS(i, len) {
        const Packet v = load8(x, i, len);
        Packet d = load8(dx, i, len);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            const float a = v.x[k], t = tanhf(ROOT_2_OVER_PI * (a + CUBE * a * a * a));
            // Far out 1 − t² is 0, and a² may be what no f32 holds.
            const float bend = t * t == 1.0f ? 0.0f : a * (1.0f - t * t) * ROOT_2_OVER_PI * (1.0f + 3.0f * CUBE * a * a);
            d.x[k] *= 0.5f * (1.0f + t + bend);
        }
        store8(dx, i, len, d);
    }
}

// 1/(1 + e^−x): e^−x may be infinite, and the result is then 0.
__device__ __forceinline__ float logistic(float x) {
    return 1.0f / (1.0f + expf(-x));
}

// out = silu(gate) · up.   out: (N,F)  gate_up: (N,2F). Rows are gridDim.y, gridDim.y … apart.
extern "C" __global__ void swiglu(Array out, Array gate_up, u64 n, u64 f) {
    for (u64 row = blockIdx.y; row < n; row += gridDim.y) {
        FOR_PACKETS(i, f) {
            const u64 gate_end = 2 * row * f + f;
            Packet g = load8(gate_up, 2 * row * f + i, gate_end);
            const Packet u = load8(gate_up, gate_end + i, gate_end + f);
#pragma unroll
            for (int k = 0; k < PACKET; k++) {
                g.x[k] = g.x[k] * logistic(g.x[k]) * u.x[k];
            }
            store8(out, row * f + i, row * f + f, g);
        }
    }
}

// dgate = dout · up · s(1 + gate(1 − s)), dup = dout · gate · s, with s = logistic(gate).   dgate_up: (N,2F)  dout: (N,F).
extern "C" __global__ void swiglu_grad(Array dgate_up, Array dout, Array gate_up, u64 n, u64 f) {
    for (u64 row = blockIdx.y; row < n; row += gridDim.y) {
        FOR_PACKETS(i, f) {
            const u64 gate_end = 2 * row * f + f;
            const Packet d = load8(dout, row * f + i, row * f + f);
            Packet g = load8(gate_up, 2 * row * f + i, gate_end);
            Packet u = load8(gate_up, gate_end + i, gate_end + f);
#pragma unroll
            for (int k = 0; k < PACKET; k++) {
                const float s = logistic(g.x[k]), gate = g.x[k];
                g.x[k] = d.x[k] * u.x[k] * s * (1.0f + gate * (1.0f - s));
                u.x[k] = d.x[k] * gate * s;
            }
            store8(dgate_up, 2 * row * f + i, gate_end, g);
            store8(dgate_up, gate_end + i, gate_end + f, u);
        }
    }
}
