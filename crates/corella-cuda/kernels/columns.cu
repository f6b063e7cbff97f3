// Sums over rows, column by column: gradients of biases and of norms. First each block adds up its chunk of rows, then the
// chunks are added in their order, so a sum has one order, which depends on the shape only.
#include "common.cuh"

// Warps of a block; warp w takes rows w, w + WARPS, … of the chunk.
#define WARPS 8
#define COLUMNS (WARP * PACKET)

// Adds the warps' packets up in shared memory, in their order, and writes them to the chunk's row of `partial` (chunks,c).
__device__ __forceinline__ void write_partial(float* partial, Packet sum, u64 column, u64 c) {
    __shared__ float tile[WARPS][COLUMNS];
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < PACKET; k++) {
        tile[warp][k * WARP + lane] = sum.x[k];
    }
    __syncthreads();
    // Thread `warp`, `lane` finishes element `warp` of the packet that lane `lane` of each warp holds.
    const u64 at = column + lane * PACKET + warp;
    if (at < c) {
        float total = 0.0f;
        for (int i = 0; i < WARPS; i++) {
            total += tile[i][warp * WARP + lane];
        }
        partial[(u64)blockIdx.y * c + at] = total;
    }
}

// partial[chunk,:] = Σ dout over the chunk's rows.   Grid: (⌈c / 256⌉, chunks), blocks of 256 threads.
extern "C" __global__ void column_sums(float* partial, Array dout, u64 n, u64 c, u32 chunk) {
    const u64 column = (u64)blockIdx.x * COLUMNS, mine = column + threadIdx.x % WARP * PACKET;
    const u64 first = (u64)blockIdx.y * chunk, last = first + chunk < n ? first + chunk : n;
    Packet sum = {};
    for (u64 row = first + threadIdx.x / WARP; row < last && mine < c; row += WARPS) {
        const Packet d = load8(dout, row * c + mine, row * c + c);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            sum.x[k] += d.x[k];
        }
    }
    write_partial(partial, sum, column, c);
}

// Partial sums of a norm's gradients: dw = Σ dout·x̂ and, where `partial_b` is given, db = Σ dout.
extern "C" __global__ void norm_column_sums(float* partial_w, float* partial_b, Array dout, Array x, const float* mean,
                                            const float* rstd, u64 n, u64 c, u32 chunk) {
    const u64 column = (u64)blockIdx.x * COLUMNS, mine = column + threadIdx.x % WARP * PACKET;
    const u64 first = (u64)blockIdx.y * chunk, last = first + chunk < n ? first + chunk : n;
    Packet dw = {}, db = {};
    for (u64 row = first + threadIdx.x / WARP; row < last && mine < c; row += WARPS) {
        const Packet d = load8(dout, row * c + mine, row * c + c), v = load8(x, row * c + mine, row * c + c);
        const float m = mean ? mean[row] : 0.0f, r = rstd[row];
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            dw.x[k] += d.x[k] * (v.x[k] - m) * r;
            db.x[k] += d.x[k];
        }
    }
    write_partial(partial_w, dw, column, c);
    if (partial_b) {
        write_partial(partial_b, db, column, c);
    }
}

// out (=, +=) Σ of the chunks, in their order.   A thread per column.
extern "C" __global__ void add_chunks(float* out, const float* partial, u32 chunks, u64 c, u32 adds) {
    const u64 column = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= c) {
        return;
    }
    float sum = 0.0f;
#pragma unroll 4
    for (u32 i = 0; i < chunks; i++) {
        sum += partial[i * c + column];
    }
    out[column] = adds ? out[column] + sum : sum;
}
