// Operations that look at each element alone. A thread takes packets of eight, blockDim·gridDim packets apart.
#include "gelu.cuh"

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

// out = gelu(x).
extern "C" __global__ void gelu(Array out, Array x, u64 len) {
    take_turn();
    FOR_PACKETS(i, len) {
        Packet v = load8(x, i, len);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            v.x[k] *= gate(v.x[k]);
        }
        store8(out, i, len, v);
    }
}

// dx ← gelu'(x) · dx.
extern "C" __global__ void gelu_grad(Array dx, Array x, u64 len) {
    FOR_PACKETS(i, len) {
        const Raw raw_v = load8_raw(x, i, len), raw_d = load8_raw(dx, i, len);
        const Packet v = widen(x, raw_v);
        Packet d = widen(dx, raw_d);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            d.x[k] *= gelu_slope(v.x[k], gate(v.x[k]));
        }
        store8(dx, i, len, d);
    }
}

// The bias (C) of elements i .. i + 8 of rows of C.
__device__ __forceinline__ Packet bias8(const float* bias, u64 i, u64 c) {
    u64 column = i % c;
    if (column % PACKET == 0 && column + PACKET <= c) {
        return load8(bias + column);
    }
    Packet out;
#pragma unroll
    for (int k = 0; k < PACKET; k++) {
        out.x[k] = bias[column];
        column = column + 1 == c ? 0 : column + 1;
    }
    return out;
}

// pre ← pre + bias, out = gelu(pre), of pre as it is kept.   out, pre: (N,C) with len = N·C.
extern "C" __global__ void bias_gelu(Array out, Array pre, const float* bias, u64 c, u64 len) {
    FOR_PACKETS(i, len) {
        const Packet b = bias8(bias, i, c);
        Packet v = load8(pre, i, len);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            v.x[k] += b.x[k];
            v.x[k] = pre.is_bf16 ? to_float(to_bf16(v.x[k])) : v.x[k];
        }
        store8(pre, i, len, v);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            v.x[k] *= gate(v.x[k]);
        }
        store8(out, i, len, v);
    }
}

// out = residual + y + bias; out may be y.   out, residual, y: (N,C) with len = N·C.
extern "C" __global__ void bias_residual(Array out, Array residual, Array y, const float* bias, u64 c, u64 len) {
    FOR_PACKETS(i, len) {
        const Raw raw_x = load8_raw(residual, i, len), raw_y = load8_raw(y, i, len);
        const Packet b = bias8(bias, i, c), added = widen(y, raw_y);
        Packet x = widen(residual, raw_x);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            x.x[k] += added.x[k] + b.x[k];
        }
        store8(out, i, len, x);
    }
}

// 1/(1 + e^−x): e^−x may be infinite, and the result is then 0.
__device__ __forceinline__ float logistic(float x) {
    return 1.0f / (1.0f + expf(-x));
}

// out = silu(gate) · up.   out: (N,F)  gate_up: (N,2F). Rows are gridDim.y, gridDim.y … apart.
extern "C" __global__ void swiglu(Array out, Array gate_up, u64 n, u64 f) {
    take_turn();
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
