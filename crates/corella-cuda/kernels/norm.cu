// Normalisation of rows and its gradients. A warp takes a row: its lanes take packets of eight, 32 packets apart, and go over
// the row again for each pass, which finds it in the cache.
#include "common.cuh"

#define FOR_ROW_PACKETS(i, lane, c) for (u64 i = (u64)(lane) * PACKET; i < (c); i += WARP * PACKET)

// x as an array holds it.
__device__ __forceinline__ float rounded(Array a, float x) {
    return a.is_bf16 ? to_float(to_bf16(x)) : x;
}

// sum = a + b, rounded to sum's format; or, where b is nothing, a itself.
__device__ __forceinline__ Packet summed(Array sum, Array a, Array b, u64 i, u64 end) {
    Packet x = load8(a, i, end);
    if (b.data) {
        const Packet y = load8(b, i, end);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            x.x[k] = rounded(sum, x.x[k] + y.x[k]);
        }
    }
    return x;
}

// out = (x − mean)·rstd·w + bias with x = a, or x = sum = a + b where b is given.   out, a, b, sum: (N,C)  mean, rstd: (N).
// Without bias: the root mean square takes the place of the deviation (rmsnorm), and mean is not written.
extern "C" __global__ void norm_rows(Array out, float* mean_out, float* rstd_out, Array sum, Array a, Array b, const float* w,
                                const float* bias, u64 n, u64 c, float eps) {
    const u64 row = (u64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    const u32 lane = threadIdx.x % WARP;
    if (row >= n) {
        return;
    }
    const u64 at = row * c, end = at + c;
    float mean = 0.0f;
    if (bias) {
        FOR_ROW_PACKETS(i, lane, c) {
            const Packet x = summed(sum, a, b, at + i, end);
#pragma unroll
            for (int k = 0; k < PACKET; k++) {
                mean += x.x[k];
            }
        }
        mean = warp_sum(mean) / (float)c;
    }
    float squares = 0.0f;
    FOR_ROW_PACKETS(i, lane, c) {
        const Packet x = summed(sum, a, b, at + i, end);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            const float d = i + k < c ? x.x[k] - mean : 0.0f;
            squares += d * d;
        }
    }
    const float rstd = 1.0f / sqrtf(warp_sum(squares) / (float)c + eps);
    FOR_ROW_PACKETS(i, lane, c) {
        Packet x = summed(sum, a, b, at + i, end);
        if (b.data) {
            store8(sum, at + i, end, x);
        }
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            if (i + k < c) {
                x.x[k] = (x.x[k] - mean) * rstd * w[i + k] + (bias ? bias[i + k] : 0.0f);
            }
        }
        store8(out, at + i, end, x);
    }
    if (lane == 0) {
        rstd_out[row] = rstd;
        if (bias) {
            mean_out[row] = mean;
        }
    }
}

// dx += rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = dout·w and x̂ = (x − mean)·rstd. For rmsnorm mean is null and mean(g) left
// out.   dx: (N,C) in f32.
extern "C" __global__ void norm_grad(float* dx, Array dout, Array x, const float* w, const float* mean, const float* rstd,
                                     u64 n, u64 c) {
    const u64 row = (u64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    const u32 lane = threadIdx.x % WARP;
    if (row >= n) {
        return;
    }
    const u64 at = row * c, end = at + c;
    const float m = mean ? mean[row] : 0.0f, r = rstd[row];
    float g_sum = 0.0f, gx_sum = 0.0f;
    FOR_ROW_PACKETS(i, lane, c) {
        const Packet d = load8(dout, at + i, end), v = load8(x, at + i, end);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            if (i + k < c) {
                const float g = d.x[k] * w[i + k];
                g_sum += g;
                gx_sum += g * (v.x[k] - m) * r;
            }
        }
    }
    const float g_mean = mean ? warp_sum(g_sum) / (float)c : 0.0f, gx_mean = warp_sum(gx_sum) / (float)c;
    const Array out = {dx, 0, 0};
    FOR_ROW_PACKETS(i, lane, c) {
        const Packet d = load8(dout, at + i, end), v = load8(x, at + i, end);
        Packet s = load8(out, at + i, end);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            if (i + k < c) {
                s.x[k] += r * (d.x[k] * w[i + k] - g_mean - (v.x[k] - m) * r * gx_mean);
            }
        }
        store8(out, at + i, end, s);
    }
}
