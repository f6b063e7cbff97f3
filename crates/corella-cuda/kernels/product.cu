// The matrix product for every shape and format that cuBLASLt does not take, and where there is no cuBLASLt.
#include "common.cuh"

#define TILE 32

// A matrix: element (i, k) is at[i·row + k·inner].
struct Operand {
    Array at;
    u64 row, inner;
};

// out(i,j) = Σ_k a(i,k)·b(j,k) + bias(j) + addend(i,j), k in its order; bias and addend may be nothing.   out, addend: rows of
// `ld` numbers. Grid: (⌈n / 32⌉, ⌈m / 32⌉), blocks of 256 threads.
extern "C" __global__ void product(Array out, Operand a, Operand b, const float* bias, Array addend, u64 m, u64 n, u64 k,
                                   u64 ld) {
    __shared__ float left[TILE][TILE + 1], right[TILE][TILE + 1];
    const u32 column = threadIdx.x % TILE, row = threadIdx.x / TILE;
    const u64 j = (u64)blockIdx.x * TILE + column;
    for (u64 block = blockIdx.y; block * TILE < m; block += gridDim.y) {
        float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (u64 first = 0; first < k; first += TILE) {
            __syncthreads();
#pragma unroll
            for (int r = 0; r < 4; r++) {
                // Neighbouring threads read neighbours in memory, whichever index that is.
                const u32 slow = row + 8 * r;
                const u32 ai = a.inner == 1 ? slow : column, ak = a.inner == 1 ? column : slow;
                const u32 bj = b.inner == 1 ? slow : column, bk = b.inner == 1 ? column : slow;
                const u64 i = block * TILE + ai, jj = (u64)blockIdx.x * TILE + bj;
                left[ai][ak] = i < m && first + ak < k ? load(a.at, i * a.row + (first + ak) * a.inner) : 0.0f;
                right[bj][bk] = jj < n && first + bk < k ? load(b.at, jj * b.row + (first + bk) * b.inner) : 0.0f;
            }
            __syncthreads();
#pragma unroll 8
            for (int x = 0; x < TILE; x++) {
                const float y = right[column][x];
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    sums[r] += left[row + 8 * r][x] * y;
                }
            }
        }
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const u64 i = block * TILE + row + 8 * r;
            if (i < m && j < n) {
                float sum = sums[r];
                sum += bias ? bias[j] : 0.0f;
                sum += addend.data ? load(addend, i * ld + j) : 0.0f;
                store(out, i * ld + j, sum);
            }
        }
    }
}
