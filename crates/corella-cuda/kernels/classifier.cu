// Softmax, loss and gradient of a chunk of rows in one kernel: a block per row, and the row's logits become their gradient.
#include "common.cuh"

#define WARPS 8

// A maximum and the sum of e^(x − maximum).
struct Total {
    float top, sum;
};

__device__ __forceinline__ Total join(Total a, Total b) {
    const float top = a.top > b.top ? a.top : b.top;
    // Nothing seen yet: both are −∞, and their difference is no number.
    const float x = a.top == top ? 1.0f : expf(a.top - top), y = b.top == top ? 1.0f : expf(b.top - top);
    return Total{top, a.sum * x + b.sum * y};
}

// losses[row] = log Σ_{j<v} e^logits[j] − logits[target].   logits: (rows,ld). Where `scale` is not 0 logits become
// scale·(softmax − onehot), 0 from v on.
extern "C" __global__ void classifier(float* losses, Array logits, const u32* targets, u64 v, u64 ld, float scale) {
    __shared__ float tops[WARPS], sums[WARPS];
    const u64 row = blockIdx.x, at = row * ld, end = at + v;
    const u32 target = targets[row];
    const float right = load(logits, at + target);
    Total mine = {-INF, 0.0f};
    for (u64 i = (u64)threadIdx.x * PACKET; i < v; i += (u64)blockDim.x * PACKET) {
        const Packet x = load8(logits, at + i, end);
        float top = mine.top;
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            top = i + k < v && x.x[k] > top ? x.x[k] : top;
        }
        float sum = mine.top == top ? mine.sum : mine.sum * expf(mine.top - top);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            sum += i + k < v ? expf(x.x[k] - top) : 0.0f;
        }
        mine = Total{top, sum};
    }
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        const Total other = {shuffle_xor(mine.top, mask), shuffle_xor(mine.sum, mask)};
        mine = join(mine, other);
    }
    if (threadIdx.x % WARP == 0) {
        tops[threadIdx.x / WARP] = mine.top;
        sums[threadIdx.x / WARP] = mine.sum;
    }
    // Also: every thread has read the target's logit before one writes.
    __syncthreads();
    Total all = {tops[0], sums[0]};
    for (int i = 1; i < WARPS; i++) {
        all = join(all, Total{tops[i], sums[i]});
    }
    if (threadIdx.x == 0) {
        losses[row] = logf(all.sum) + (all.top - right);
    }
    if (scale == 0.0f) {
        return;
    }
    const float inverse = 1.0f / all.sum;
    for (u64 i = (u64)threadIdx.x * PACKET; i < ld; i += (u64)blockDim.x * PACKET) {
        Packet x = load8(logits, at + i, at + ld);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            const float p = expf(x.x[k] - all.top) * inverse;
            x.x[k] = i + k < v ? scale * (p - (i + k == target ? 1.0f : 0.0f)) : 0.0f;
        }
        store8(logits, at + i, at + ld, x);
    }
}
