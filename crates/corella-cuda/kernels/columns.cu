// Sums over rows, column by column: gradients of biases and of norms. First each block adds up its chunk of rows, then the
// chunks are added in their order, so a sum has one order, which depends on the shape only.
#include "common.cuh"

// Warps of a block; warp w takes rows w, w + WARPS, … of the chunk.
#define WARPS 8
#define COLUMNS (WARP * PACKET)
// Rows whose loads a warp has under way at once.
#define AHEAD 4
// Groups of chunks, and columns, of a block of add_chunks.
#define GROUPS 16
#define GROUP_COLUMNS 16

// Adds the warps' packets up in shared memory, in their order, and writes them to the chunk's row of `partial` (chunks,c).
__device__ __forceinline__ void write_partial(float (*tile)[COLUMNS], float* partial, Packet sum, u64 column, u64 c) {
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
    __shared__ float tile[WARPS][COLUMNS];
    Packet sum = {};
    for (u64 row = first + threadIdx.x / WARP; row < last && mine < c; row += WARPS * AHEAD) {
        Raw raw[AHEAD] = {};
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const u64 at = row + j * WARPS;
            if (at < last) {
                raw[j] = load8_raw(dout, at * c + mine, at * c + c);
            }
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const Packet d = widen(dout, raw[j]);
#pragma unroll
            for (int k = 0; k < PACKET; k++) {
                sum.x[k] += d.x[k];
            }
        }
    }
    write_partial(tile, partial, sum, column, c);
}

// Partial sums of a norm's gradients: dw = Σ dout·x̂ and, where `partial_b` is given, db = Σ dout.
extern "C" __global__ void norm_column_sums(float* partial_w, float* partial_b, Array dout, Array x, const float* mean,
                                            const float* rstd, u64 n, u64 c, u32 chunk) {
    const u64 column = (u64)blockIdx.x * COLUMNS, mine = column + threadIdx.x % WARP * PACKET;
    const u64 first = (u64)blockIdx.y * chunk, last = first + chunk < n ? first + chunk : n;
    __shared__ float tile[WARPS][COLUMNS];
    Packet dw = {}, db = {};
    for (u64 row = first + threadIdx.x / WARP; row < last && mine < c; row += WARPS * AHEAD) {
        Raw raw_d[AHEAD] = {}, raw_x[AHEAD] = {};
        float m[AHEAD] = {}, r[AHEAD] = {};
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const u64 at = row + j * WARPS;
            if (at < last) {
                raw_d[j] = load8_raw(dout, at * c + mine, at * c + c);
                raw_x[j] = load8_raw(x, at * c + mine, at * c + c);
                m[j] = mean ? mean[at] : 0.0f;
                r[j] = rstd[at];
            }
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const Packet d = widen(dout, raw_d[j]), v = widen(x, raw_x[j]);
#pragma unroll
            for (int k = 0; k < PACKET; k++) {
                dw.x[k] += d.x[k] * (v.x[k] - m[j]) * r[j];
                db.x[k] += d.x[k];
            }
        }
    }
    write_partial(tile, partial_w, dw, column, c);
    if (partial_b) {
        write_partial(tile, partial_b, db, column, c);
    }
}

// out (=, +=) Σ of the chunks: GROUPS groups each add theirs in order, then the groups in order. A block for 16 columns.
extern "C" __global__ void add_chunks(float* out, const float* partial, u32 chunks, u64 c, u32 adds) {
    __shared__ float sums[GROUPS][GROUP_COLUMNS];
    const u32 group = threadIdx.x / GROUP_COLUMNS, mine = threadIdx.x % GROUP_COLUMNS;
    const u64 column = (u64)blockIdx.x * GROUP_COLUMNS + mine;
    float sum = 0.0f;
    if (column < c) {
#pragma unroll 8
        for (u32 i = group; i < chunks; i += GROUPS) {
            sum += partial[i * c + column];
        }
    }
    sums[group][mine] = sum;
    __syncthreads();
    if (group == 0 && column < c) {
        float total = 0.0f;
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            total += sums[i][mine];
        }
        out[column] = adds ? out[column] + total : total;
    }
}
