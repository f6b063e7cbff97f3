// Norms of rows that have a packet for each thread of a block, and their gradients in one pass: what the rows, the weights, the biases
// and the layer before want is summed from one reading. A block takes several rows at once, so that their loads are under way
// together and the threads of a row wait for each other once for all of them.
#include "common.cuh"

// Threads of a block at most: rows of up to 2048 numbers.
#define MOST_THREADS 256
#define MOST_WARPS (MOST_THREADS / WARP)

// Sums over the block of COUNT numbers, the same bits in every thread. `scratch` may be used again after the next __syncthreads.
template <int COUNT>
__device__ __forceinline__ void sum_over_block(float (&x)[COUNT], float (*scratch)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        x[i] = warp_sum(x[i]);
        if (threadIdx.x % WARP == 0) {
            scratch[threadIdx.x / WARP][i] = x[i];
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        float sum = 0.0f;
        for (u32 warp = 0; warp < blockDim.x / WARP; warp++) {
            sum += scratch[warp][i];
        }
        x[i] = sum;
    }
}

__device__ __forceinline__ Packet packet_of(const float* p, u32 column, bool mine) {
    return p && mine ? load8(p + column) : Packet{};
}

#define FORWARD_ROWS 4

// out = (x − mean)·rstd·w + bias with x = a, or x = sum = a + (b + b_bias) where b is given, rounded to sum's format.
// out, a, b, sum: (N,C)  mean, rstd: (N)  w, bias, b_bias: (C), C a multiple of 8. Without bias: the root mean square takes the place of
// the deviation (rmsnorm), and mean is not written. Grid: ⌈N / 4⌉, a thread for each packet of a row.
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
    norm_packets(Array out, float* mean, float* rstd, Array sum, Array a, Array b, const float* b_bias, const float* w,
                 const float* bias, u64 n, u64 c, float eps) {
    __shared__ float scratch[2][MOST_WARPS][FORWARD_ROWS];
    take_turn();
    const u32 column = threadIdx.x * PACKET;
    const u64 first = (u64)blockIdx.x * FORWARD_ROWS;
    const bool mine = column < c;
    const auto here = [&](int j) { return mine && first + j < n; };
    Raw raw_a[FORWARD_ROWS] = {}, raw_b[FORWARD_ROWS] = {};
#pragma unroll
    for (int j = 0; j < FORWARD_ROWS; j++) {
        const u64 at = (first + j) * c;
        if (here(j)) {
            raw_a[j] = load8_raw(a, at + column, at + c);
            if (b.data) {
                raw_b[j] = load8_raw(b, at + column, at + c);
            }
        }
    }
    const Packet scale = packet_of(w, column, mine), shift = packet_of(bias, column, mine), added = packet_of(b_bias, column, mine);
    Packet x[FORWARD_ROWS];
    float means[FORWARD_ROWS] = {}, squares[FORWARD_ROWS] = {};
#pragma unroll
    for (int j = 0; j < FORWARD_ROWS; j++) {
        x[j] = widen(a, raw_a[j]);
        if (b.data) {
            const Packet y = widen(b, raw_b[j]);
#pragma unroll
            for (int k = 0; k < PACKET; k++) {
                x[j].x[k] += y.x[k] + added.x[k];
                x[j].x[k] = sum.is_bf16 ? to_float(to_bf16(x[j].x[k])) : x[j].x[k];
            }
            if (here(j)) {
                store8(sum, (first + j) * c + column, (first + j) * c + c, x[j]);
            }
        }
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            means[j] += mine ? x[j].x[k] : 0.0f;
        }
    }
    if (bias) {
        sum_over_block(means, scratch[0]);
    }
#pragma unroll
    for (int j = 0; j < FORWARD_ROWS; j++) {
        means[j] = bias ? means[j] / (float)c : 0.0f;
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            x[j].x[k] -= means[j];
            squares[j] += mine ? x[j].x[k] * x[j].x[k] : 0.0f;
        }
    }
    sum_over_block(squares, scratch[1]);
#pragma unroll
    for (int j = 0; j < FORWARD_ROWS; j++) {
        const float r = 1.0f / sqrtf(squares[j] / (float)c + eps);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            x[j].x[k] = x[j].x[k] * r * scale.x[k] + shift.x[k];
        }
        if (here(j)) {
            store8(out, (first + j) * c + column, (first + j) * c + c, x[j]);
        }
        if (threadIdx.x == 0 && first + j < n) {
            rstd[first + j] = r;
            if (bias) {
                mean[first + j] = means[j];
            }
        }
    }
}

// dx += rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = dout·w and x̂ = (x − mean)·rstd; for rmsnorm mean is null and mean(g) left out.
// Beside it, of the chunk's rows: partial[0] = Σ dout·x̂ and, where mean is given, partial[1] = Σ dout and partial[2] = Σ dx as it is
// now; and dx as it is now in bf16, where `image` is given.   dx: (N,C) in f32  partial: (3 or 1, chunks, C)  image: (N,C).
// Grid: chunks, a thread for each packet of a row.
template <int ROWS>
__device__ __forceinline__ void grad(float* dx, bf16* image, float* partial, Array dout, Array x, const float* w, const float* mean,
                                     const float* rstd, u64 n, u64 c, u32 chunk) {
    // Two, so that the rows that follow need not wait until the last ones' sums are read.
    __shared__ float scratch[2][MOST_WARPS][2 * ROWS];
    const u32 column = threadIdx.x * PACKET;
    const u64 first = (u64)blockIdx.x * chunk, last = first + chunk < n ? first + chunk : n;
    const bool mine = column < c;
    const Packet scale = packet_of(w, column, mine);
    Packet dw = {}, db = {}, sum = {};
    u32 turn = 0;
    for (u64 row = first; row < last; row += ROWS, turn ^= 1) {
        const auto here = [&](int j) { return mine && row + j < last; };
        Raw raw_d[ROWS] = {}, raw_x[ROWS] = {};
        Packet now[ROWS] = {};
        float m[ROWS] = {}, r[ROWS] = {};
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            const u64 at = (row + j) * c;
            if (here(j)) {
                raw_d[j] = load8_raw(dout, at + column, at + c);
                raw_x[j] = load8_raw(x, at + column, at + c);
                now[j] = load8(dx + at + column);
                m[j] = mean ? mean[row + j] : 0.0f;
                r[j] = rstd[row + j];
            }
        }
        // Σ g, then Σ g·x̂, of each row.
        float sums[2 * ROWS] = {};
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            const Packet d = widen(dout, raw_d[j]), v = widen(x, raw_x[j]);
#pragma unroll
            for (int k = 0; k < PACKET; k++) {
                const float normed = (v.x[k] - m[j]) * r[j];
                dw.x[k] += d.x[k] * normed;
                db.x[k] += d.x[k];
                sums[j] += d.x[k] * scale.x[k];
                sums[ROWS + j] += d.x[k] * scale.x[k] * normed;
            }
        }
        sum_over_block(sums, scratch[turn]);
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            if (here(j)) {
                const Packet d = widen(dout, raw_d[j]), v = widen(x, raw_x[j]);
                const float g_mean = mean ? sums[j] / (float)c : 0.0f, gx_mean = sums[ROWS + j] / (float)c;
#pragma unroll
                for (int k = 0; k < PACKET; k++) {
                    now[j].x[k] += r[j] * (d.x[k] * scale.x[k] - g_mean - (v.x[k] - m[j]) * r[j] * gx_mean);
                    sum.x[k] += now[j].x[k];
                }
                const u64 at = (row + j) * c + column;
                store8(dx + at, now[j]);
                if (image) {
                    store8(image + at, now[j]);
                }
            }
        }
    }
    if (mine) {
        const u64 at = (u64)blockIdx.x * c + column, next = (u64)gridDim.x * c;
        store8(partial + at, dw);
        if (mean) {
            store8(partial + next + at, db);
            store8(partial + 2 * next + at, sum);
        }
    }
}

#define GRAD(ROWS)                                                                                                             \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS)                                                                 \
        norm_packets_grad_##ROWS(float* dx, bf16* image, float* partial, Array dout, Array x, const float* w, const float* mean, \
                                 const float* rstd, u64 n, u64 c, u32 chunk) {                                                 \
        grad<ROWS>(dx, image, partial, dout, x, w, mean, rstd, n, c, chunk);                                                   \
    }
GRAD(4)
// Rows of more than 1024: so many threads leave fewer registers.
GRAD(2)
