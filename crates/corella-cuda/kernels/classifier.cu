// Softmax, loss and gradient of a chunk of rows in one kernel: a block per row, and the row's logits become their gradient.
// A row in bf16 that fits a block's registers is read once (classifier_held), others twice.
#include "common.cuh"

#define WARPS 8

// Threads of classifier_held, and how many pieces of eight logits each holds.
#define HOLDERS 1024
#define PIECES 7

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

// The same for rows in bf16 of ld ≤ 8·PIECES·HOLDERS, a multiple of 8, which stay packed in registers.
extern "C" __global__ void __launch_bounds__(HOLDERS) classifier_held(float* losses, Array logits, const u32* targets, u64 v,
                                                                      u64 ld, float scale) {
    __shared__ float tops[WARP], sums[WARP];
    bf16* const row = (bf16*)logits.data + blockIdx.x * ld;
    const u32 target = targets[blockIdx.x], lane = threadIdx.x % WARP, end = v, width = ld;
    const float right = to_float(row[target]);
    Sixteen held[PIECES];
#pragma unroll
    for (u32 p = 0; p < PIECES; p++) {
        const u32 i = (threadIdx.x + p * HOLDERS) * PACKET;
        held[p] = Sixteen{{0xff80ff80u, 0xff80ff80u, 0xff80ff80u, 0xff80ff80u}};
        if (i < end) {
            held[p] = *(const Sixteen*)(row + i);
        }
    }
    float top = -INF;
#pragma unroll
    for (u32 p = 0; p < PIECES; p++) {
        const u32 i = (threadIdx.x + p * HOLDERS) * PACKET;
#pragma unroll
        for (u32 k = 0; k < PACKET; k++) {
            u32& pair = held[p].x[k / 2];
            // Columns of padding count as −∞.
            if (i < end && i + PACKET > end && i + k >= end) {
                pair = k % 2 ? (pair & 0xffffu) | 0xff800000u : (pair & 0xffff0000u) | 0xff80u;
            }
            top = fmaxf(top, bits_to_float(k % 2 ? pair & 0xffff0000u : pair << 16));
        }
    }
    top = warp_max(top);
    if (lane == 0) {
        tops[threadIdx.x / WARP] = top;
    }
    // Also: every thread has read the target's logit before one writes.
    __syncthreads();
    top = warp_max(tops[lane]);
    const auto power = [&](float x) { return exp2_fast((x - top) * LOG2_E); };
    float sum = 0.0f;
#pragma unroll
    for (u32 p = 0; p < PIECES; p++) {
        if ((threadIdx.x + p * HOLDERS) * PACKET < end) {
#pragma unroll
            for (u32 k = 0; k < PACKET; k++) {
                const u32 pair = held[p].x[k / 2];
                sum += power(bits_to_float(k % 2 ? pair & 0xffff0000u : pair << 16));
            }
        }
    }
    sum = warp_sum(sum);
    if (lane == 0) {
        sums[threadIdx.x / WARP] = sum;
    }
    __syncthreads();
    sum = warp_sum(sums[lane]);
    if (threadIdx.x == 0) {
        losses[blockIdx.x] = logf(sum) + (top - right);
    }
    if (scale == 0.0f) {
        return;
    }
    const float factor = scale / sum;
#pragma unroll
    for (u32 p = 0; p < PIECES; p++) {
        const u32 i = (threadIdx.x + p * HOLDERS) * PACKET;
        if (i < width) {
            Sixteen out;
#pragma unroll
            for (u32 k = 0; k < PACKET / 2; k++) {
                const u32 pair = held[p].x[k];
                out.x[k] = round_pair(power(bits_to_float(pair << 16)) * factor,
                                      power(bits_to_float(pair & 0xffff0000u)) * factor);
            }
            *(Sixteen*)(row + i) = out;
        }
    }
    // The thread that has written the target's gradient writes it again.
    if (target / PACKET % HOLDERS == threadIdx.x) {
        row[target] = to_bf16(power(right) * factor - scale);
    }
}
