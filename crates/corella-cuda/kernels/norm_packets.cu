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
    // All sums go on together: one shuffle after another would wait for each.
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            x[i] += shuffle_xor(x[i], mask);
        }
    }
    if (threadIdx.x % WARP == 0) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            scratch[threadIdx.x / WARP][i] = x[i];
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        x[i] = scratch[0][i];
    }
    for (u32 warp = 1; warp < blockDim.x / WARP; warp++) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            x[i] += scratch[warp][i];
        }
    }
}

__device__ __forceinline__ Packet packet_of(const float* p, u32 column, bool mine) {
    return p && mine ? load8(p + column) : Packet{};
}

#define FORWARD_ROWS 2

// out = (x − mean)·rstd·w + bias with x = a, or x = sum = a + (b + b_bias) where b is given, rounded to sum's format.
// out, a, b, sum: (N,C)  mean, rstd: (N)  w, bias, b_bias: (C), C a multiple of 8. Without bias: the root mean square takes the place of
// the deviation (rmsnorm), and mean is not written. Grid: ⌈N / 2⌉, a thread for each packet of a row.
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

#define BACK_ROWS 2

// dx += rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = dout·w and x̂ = (x − mean)·rstd; for rmsnorm mean is null and mean(g) left out.
// Beside it, of the chunk's rows: partial[0] = Σ dout·x̂ and, where mean is given, partial[1] = Σ dout and partial[2] = Σ dx as it is
// now; and dx as it is now in bf16, where `image` is given.   dx, x: (N,C) in f32  dout: (N,C) in bf16  partial: (3 or 1, chunks, C)
// image: (N,C).   Grid: chunks, a thread for each packet of a row.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2)
    norm_packets_grad(float* dx, bf16* image, float* partial, const bf16* dout, const float* x, const float* w, const float* mean,
                      const float* rstd, u64 n, u64 c, u32 chunk) {
    // Two, so that the rows that follow need not wait until the last ones' sums are read.
    __shared__ float scratch[2][MOST_WARPS][2 * BACK_ROWS];
    const u32 column = threadIdx.x * PACKET;
    const u64 first = (u64)blockIdx.x * chunk, last = first + chunk < n ? first + chunk : n;
    const bool mine = column < c;
    const float of_row = 1.0f / (float)c;
    const Packet scale = packet_of(w, column, mine);
    Packet dw = {}, db = {}, sum = {};
    u32 turn = 0;
    for (u64 row = first; row < last; row += BACK_ROWS, turn ^= 1) {
        const auto here = [&](int j) { return mine && row + j < last; };
        Sixteen raw[BACK_ROWS] = {};
        Packet v[BACK_ROWS] = {}, now[BACK_ROWS] = {};
        float m[BACK_ROWS] = {}, r[BACK_ROWS] = {};
#pragma unroll
        for (int j = 0; j < BACK_ROWS; j++) {
            const u64 at = (row + j) * c + column;
            if (here(j)) {
                raw[j] = *(const Sixteen*)(dout + at);
                v[j] = load8(x + at);
                now[j] = load8(dx + at);
                m[j] = mean ? mean[row + j] : 0.0f;
                r[j] = rstd[row + j];
            }
        }
        // Σ g, then Σ g·x̂, of each row.
        float sums[2 * BACK_ROWS] = {};
#pragma unroll
        for (int j = 0; j < BACK_ROWS; j++) {
            const Packet d = packet_of_bf16(raw[j]);
#pragma unroll
            for (int k = 0; k < PACKET; k++) {
                v[j].x[k] = (v[j].x[k] - m[j]) * r[j];
                dw.x[k] += d.x[k] * v[j].x[k];
                db.x[k] += d.x[k];
                const float g = d.x[k] * scale.x[k];
                sums[j] += g;
                sums[BACK_ROWS + j] += g * v[j].x[k];
            }
        }
        sum_over_block(sums, scratch[turn]);
#pragma unroll
        for (int j = 0; j < BACK_ROWS; j++) {
            if (here(j)) {
                const Packet d = packet_of_bf16(raw[j]);
                const float g_mean = mean ? sums[j] * of_row : 0.0f, gx_mean = sums[BACK_ROWS + j] * of_row;
#pragma unroll
                for (int k = 0; k < PACKET; k++) {
                    now[j].x[k] += r[j] * (d.x[k] * scale.x[k] - g_mean - v[j].x[k] * gx_mean);
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
