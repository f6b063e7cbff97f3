// Sums over rows, column by column: gradients of biases and of norms, and the way back through GELU with those of its bias. First each block adds up its chunk of rows, then the
// chunks are added in their order, so a sum has one order, which depends on the shape only.
#include "gelu.cuh"

// Warps of a block; warp w takes rows w, w + WARPS, … of the chunk.
#define WARPS 8
#define COLUMNS (WARP * PACKET)
// Rows whose loads a warp has under way at once.
#define AHEAD 4
// Rows whose loads gelu_back has under way: it reads and writes two arrays.
#define GELU_AHEAD 2
// Groups of chunks, and columns, of a block of add_chunks.
#define GROUPS 32
#define GROUP_COLUMNS 8

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

// dx ← gelu'(x)·dx and act = gelu(x), which backward needs again; partial[chunk,:] = Σ dx, as it is stored, over the chunk's rows, for
// the bias that x had.   dx, act, x: (N,C).
extern "C" __global__ void gelu_back(Array dx, Array act, Array x, float* partial, u64 n, u64 c, u32 chunk) {
    const u64 column = (u64)blockIdx.x * COLUMNS, mine = column + threadIdx.x % WARP * PACKET;
    const u64 first = (u64)blockIdx.y * chunk, last = first + chunk < n ? first + chunk : n;
    __shared__ float tile[WARPS][COLUMNS];
    Packet sum = {};
    for (u64 row = first + threadIdx.x / WARP; row < last && mine < c; row += WARPS * GELU_AHEAD) {
        Raw raw_v[GELU_AHEAD] = {}, raw_d[GELU_AHEAD] = {};
#pragma unroll
        for (int j = 0; j < GELU_AHEAD; j++) {
            const u64 at = row + j * WARPS;
            if (at < last) {
                raw_v[j] = load8_raw(x, at * c + mine, at * c + c);
                raw_d[j] = load8_raw(dx, at * c + mine, at * c + c);
            }
        }
#pragma unroll
        for (int j = 0; j < GELU_AHEAD; j++) {
            const u64 at = row + j * WARPS;
            Packet v = widen(x, raw_v[j]), d = widen(dx, raw_d[j]);
#pragma unroll
            for (int k = 0; k < PACKET; k++) {
                const float g = gate(v.x[k]);
                d.x[k] *= gelu_slope(v.x[k], g);
                d.x[k] = dx.is_bf16 ? to_float(to_bf16(d.x[k])) : d.x[k];
                v.x[k] *= g;
                sum.x[k] += d.x[k];
            }
            if (at < last) {
                store8(dx, at * c + mine, at * c + c, d);
                store8(act, at * c + mine, at * c + c, v);
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

// Sums of the chunks (chunks,c), to `first` from those that `partial` begins with and, in a grid of two, to `second` from those behind:
// GROUPS groups each add theirs in order, then the groups in order. A block for 8 columns.
extern "C" __global__ void add_chunks(float* first, u32 first_adds, float* second, u32 second_adds, const float* partial, u32 chunks,
                                      u64 c) {
    __shared__ float sums[GROUPS][GROUP_COLUMNS];
    const u32 group = threadIdx.x / GROUP_COLUMNS, mine = threadIdx.x % GROUP_COLUMNS;
    const u64 column = (u64)blockIdx.x * GROUP_COLUMNS + mine;
    partial += (u64)blockIdx.y * chunks * c;
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
        float* const out = blockIdx.y ? second : first;
        out[column] = (blockIdx.y ? second_adds : first_adds) ? out[column] + total : total;
    }
}
