// Normalisation of rows and its gradients. A warp takes a row of up to 1024 numbers, a block a wider one, which depends on the
// row's length alone. Lanes take packets of eight, LANES packets apart, and hold the first HELD of them in registers, so that a
// row is read once; what lies beyond (rows of more than 8192) is read again in each pass, from the cache.
#include "common.cuh"

// Threads of a block that takes one row.
#define BLOCK 256
#define HELD 4

// The packets of a lane that stay in registers: packet p begins at column i. Those behind them.
#define FOR_HELD(p, i)                                                                 \
    _Pragma("unroll") for (u32 p = 0, i = lane * PACKET; p < HELD; p++, i += LANES * PACKET) \
        if (i < c)
#define FOR_REST(i) for (u32 i = (HELD * LANES + lane) * PACKET; LANES == BLOCK && i < c; i += LANES * PACKET)

// Σ over the lanes of a row, the same bits in each. `scratch` is for one sum.
template <u32 LANES>
__device__ __forceinline__ float row_sum(float x, float* scratch) {
    return LANES == WARP ? warp_sum(x) : block_sum(x, scratch);
}

// x as an array holds it.
__device__ __forceinline__ float rounded(Array a, float x) {
    return a.is_bf16 ? to_float(to_bf16(x)) : x;
}

// a + b, rounded to sum's format; or, where b is nothing, a itself.
__device__ __forceinline__ Packet summed(Array sum, Array a, Array b, Raw raw_a, Raw raw_b) {
    Packet x = widen(a, raw_a);
    if (b.data) {
        const Packet y = widen(b, raw_b);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            x.x[k] = rounded(sum, x.x[k] + y.x[k]);
        }
    }
    return x;
}

struct Rows {
    Array out;
    float *mean, *rstd;
    Array sum, a, b;
    const float *w, *bias;
    u32 c;
    float eps;
};

// x − mean, 0 behind the row's end.
__device__ __forceinline__ Packet centred(Packet x, float mean, u32 left) {
#pragma unroll
    for (u32 k = 0; k < PACKET; k++) {
        x.x[k] = k < left ? x.x[k] - mean : 0.0f;
    }
    return x;
}

__device__ __forceinline__ float add_up(float sum, Packet x) {
#pragma unroll
    for (int k = 0; k < PACKET; k++) {
        sum += x.x[k];
    }
    return sum;
}

__device__ __forceinline__ float add_squares(float sum, Packet x) {
#pragma unroll
    for (int k = 0; k < PACKET; k++) {
        sum += x.x[k] * x.x[k];
    }
    return sum;
}

// out = d·rstd·w + bias for the columns from i on.
__device__ __forceinline__ void finish(const Rows& r, u64 at, u32 i, Packet d, float rstd) {
    const Packet w = load8(Array{(void*)r.w, 0, 0}, i, r.c);
    Packet bias = {};
    if (r.bias) {
        bias = load8(Array{(void*)r.bias, 0, 0}, i, r.c);
    }
#pragma unroll
    for (int k = 0; k < PACKET; k++) {
        d.x[k] = d.x[k] * rstd * w.x[k] + bias.x[k];
    }
    store8(r.out, at + i, at + r.c, d);
}

template <u32 LANES>
__device__ __forceinline__ void norm_row(const Rows& r, u64 row, u32 lane, float (*scratch)[BLOCK / WARP]) {
    const u32 c = r.c;
    const u64 at = row * c, end = at + c;
    Raw a[HELD] = {}, b[HELD] = {};
    FOR_HELD(p, i) {
        a[p] = load8_raw(r.a, at + i, end);
        if (r.b.data) {
            b[p] = load8_raw(r.b, at + i, end);
        }
    }
    Packet x[HELD] = {};
    FOR_HELD(p, i) {
        x[p] = summed(r.sum, r.a, r.b, a[p], b[p]);
        if (r.b.data) {
            store8(r.sum, at + i, end, x[p]);
        }
    }
    const auto again = [&](u32 i) {
        return summed(r.sum, r.a, r.b, load8_raw(r.a, at + i, end), r.b.data ? load8_raw(r.b, at + i, end) : Raw{});
    };
    float mean = 0.0f;
    if (r.bias) {
        FOR_HELD(p, i) {
            mean = add_up(mean, x[p]);
        }
        FOR_REST(i) {
            mean = add_up(mean, again(i));
        }
        mean = row_sum<LANES>(mean, scratch[0]) / (float)c;
    }
    float squares = 0.0f;
    FOR_HELD(p, i) {
        x[p] = centred(x[p], mean, c - i);
        squares = add_squares(squares, x[p]);
    }
    FOR_REST(i) {
        squares = add_squares(squares, centred(again(i), mean, c - i));
    }
    const float rstd = 1.0f / sqrtf(row_sum<LANES>(squares, scratch[1]) / (float)c + r.eps);
    FOR_HELD(p, i) {
        finish(r, at, i, x[p], rstd);
    }
    FOR_REST(i) {
        const Packet rest = again(i);
        if (r.b.data) {
            store8(r.sum, at + i, end, rest);
        }
        finish(r, at, i, centred(rest, mean, c - i), rstd);
    }
    if (lane == 0) {
        r.rstd[row] = rstd;
        if (r.bias) {
            r.mean[row] = mean;
        }
    }
}

// How norm_rows begins: with the weights, which come last, on their way. They may be what a kernel before still writes.
__device__ __forceinline__ void take_turn_with(const float* w, u64 c) {
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        bring_near(w, (u32)c / 4 * 16);
    }
    take_turn();
}

// out = (x − mean)·rstd·w + bias with x = a, or x = sum = a + b where b is given.   out, a, b, sum: (N,C)  mean, rstd: (N).
// Without bias: the root mean square takes the place of the deviation (rmsnorm), and mean is not written.
extern "C" __global__ void norm_rows(Array out, float* mean, float* rstd, Array sum, Array a, Array b, const float* w,
                                     const float* bias, u64 n, u64 c, float eps) {
    take_turn_with(w, c);
    const u64 row = (u64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row < n) {
        norm_row<WARP>(Rows{out, mean, rstd, sum, a, b, w, bias, (u32)c, eps}, row, threadIdx.x % WARP, nullptr);
    }
}

// The same for rows that a block takes.
extern "C" __global__ void norm_rows_wide(Array out, float* mean, float* rstd, Array sum, Array a, Array b, const float* w,
                                          const float* bias, u64 n, u64 c, float eps) {
    take_turn_with(w, c);
    __shared__ float scratch[2][BLOCK / WARP];
    norm_row<BLOCK>(Rows{out, mean, rstd, sum, a, b, w, bias, (u32)c, eps}, blockIdx.x, threadIdx.x, scratch);
}

struct Grads {
    float* dx;
    Array dout, x;
    const float *w, *mean, *rstd;
    u32 c;
};

template <u32 LANES>
__device__ __forceinline__ void norm_grad_row(const Grads& a, u64 row, u32 lane, float (*scratch)[BLOCK / WARP]) {
    const u32 c = a.c;
    const u64 at = row * c, end = at + c;
    const Array dx = {a.dx, 0, 0}, w = {(void*)a.w, 0, 0};
    Raw raw_d[HELD] = {}, raw_x[HELD] = {};
    FOR_HELD(p, i) {
        raw_d[p] = load8_raw(a.dout, at + i, end);
        raw_x[p] = load8_raw(a.x, at + i, end);
    }
    const float m = a.mean ? a.mean[row] : 0.0f, r = a.rstd[row];
    // g = dout·w, 0 behind the row's end, and x̂.
    const auto slope = [&](u32 i, Raw raw) {
        Packet g = widen(a.dout, raw);
        const Packet scale = load8(w, i, c);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            g.x[k] *= scale.x[k];
        }
        return g;
    };
    const auto normed = [&](Raw raw) {
        Packet v = widen(a.x, raw);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            v.x[k] = (v.x[k] - m) * r;
        }
        return v;
    };
    float g_sum = 0.0f, gx_sum = 0.0f;
    const auto add = [&](const Packet& g, const Packet& v) {
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            g_sum += g.x[k];
            gx_sum += g.x[k] * v.x[k];
        }
    };
    Packet g[HELD] = {}, v[HELD] = {};
    FOR_HELD(p, i) {
        g[p] = slope(i, raw_d[p]);
        v[p] = normed(raw_x[p]);
        add(g[p], v[p]);
    }
    FOR_REST(i) {
        add(slope(i, load8_raw(a.dout, at + i, end)), normed(load8_raw(a.x, at + i, end)));
    }
    const float g_mean = a.mean ? row_sum<LANES>(g_sum, scratch[0]) / (float)c : 0.0f;
    const float gx_mean = row_sum<LANES>(gx_sum, scratch[1]) / (float)c;
    const auto finish = [&](u32 i, Packet sum, const Packet& g, const Packet& v) {
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            sum.x[k] += r * (g.x[k] - g_mean - v.x[k] * gx_mean);
        }
        store8(dx, at + i, end, sum);
    };
    Packet sums[HELD] = {};
    FOR_HELD(p, i) {
        sums[p] = load8(dx, at + i, end);
    }
    FOR_HELD(p, i) {
        finish(i, sums[p], g[p], v[p]);
    }
    FOR_REST(i) {
        const Packet g = slope(i, load8_raw(a.dout, at + i, end)), v = normed(load8_raw(a.x, at + i, end));
        finish(i, load8(dx, at + i, end), g, v);
    }
}

// dx += rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = dout·w and x̂ = (x − mean)·rstd. For rmsnorm mean is null and mean(g) left
// out.   dx: (N,C) in f32.
extern "C" __global__ void __launch_bounds__(128) norm_grad(float* dx, Array dout, Array x, const float* w, const float* mean,
                                                            const float* rstd, u64 n, u64 c) {
    const u64 row = (u64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row < n) {
        norm_grad_row<WARP>(Grads{dx, dout, x, w, mean, rstd, (u32)c}, row, threadIdx.x % WARP, nullptr);
    }
}

// The same for rows that a block takes.
extern "C" __global__ void __launch_bounds__(BLOCK) norm_grad_wide(float* dx, Array dout, Array x, const float* w,
                                                                   const float* mean, const float* rstd, u64 n, u64 c) {
    __shared__ float scratch[2][BLOCK / WARP];
    norm_grad_row<BLOCK>(Grads{dx, dout, x, w, mean, rstd, (u32)c}, blockIdx.x, threadIdx.x, scratch);
}
