// Softmax, loss and gradient of a chunk of rows in one kernel: a block per row, and the row's logits become their gradient.
// A row in bf16 that fits a block's shared memory is read once (classifier_held), others twice.
#include "tensor.cuh"

#define WARPS 8

// Threads of classifier_held, and the logits that they take at once.
#define HOLDERS 512
#define HOLDER_WARPS (HOLDERS / WARP)
#define STEP (HOLDERS * PACKET)

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

__device__ __forceinline__ float half_of(const Sixteen& piece, u32 k) {
    return bits_to_float(k % 2 ? piece.x[k / 2] & 0xffff0000u : piece.x[k / 2] << 16);
}

// Calls f with the logits of the piece at column i that lie before `end`.
template <class F>
__device__ __forceinline__ void each_logit(const Sixteen& piece, u32 i, u32 end, F f) {
    if (i + PACKET <= end) {
#pragma unroll
        for (u32 k = 0; k < PACKET; k++) {
            f(half_of(piece, k));
        }
    } else {
#pragma unroll
        for (u32 k = 0; k < PACKET; k++) {
            if (i + k < end) {
                f(half_of(piece, k));
            }
        }
    }
}

// The same for rows in bf16 that fit the block's shared memory, 2·ld bytes; ld is a multiple of 8. A thread reads only what it has
// copied.
extern "C" __global__ void __launch_bounds__(HOLDERS) classifier_held(float* losses, Array logits, const u32* targets, u64 v,
                                                                      u64 ld, float scale) {
    __shared__ float tops[HOLDER_WARPS], sums[HOLDER_WARPS];
    DYNAMIC_SHARED(memory);
    Sixteen* const held = (Sixteen*)memory;
    bf16* const row = (bf16*)logits.data + blockIdx.x * ld;
    const u32 target = targets[blockIdx.x], lane = threadIdx.x % WARP, end = v, first = threadIdx.x * PACKET;
    const float right = to_float(row[target]);
    for (u32 i = first; i < end; i += STEP) {
        copy16_async(held + i / PACKET, row + i, true);
    }
    copies_end();
    copies_wait<0>();
    float top = -INF;
#pragma unroll 2
    for (u32 i = first; i < end; i += STEP) {
        each_logit(held[i / PACKET], i, end, [&](float x) { top = fmaxf(top, x); });
    }
    top = warp_max(top);
    if (lane == 0) {
        tops[threadIdx.x / WARP] = top;
    }
    // Also: every thread has read the target's logit before one writes.
    __syncthreads();
    top = warp_max(tops[lane % HOLDER_WARPS]);
    const auto power = [&](float x) { return exp2_fast((x - top) * LOG2_E); };
    float sum = 0.0f;
#pragma unroll 2
    for (u32 i = first; i < end; i += STEP) {
        each_logit(held[i / PACKET], i, end, [&](float x) { sum += power(x); });
    }
    sum = warp_sum(sum);
    if (lane == 0) {
        sums[threadIdx.x / WARP] = sum;
    }
    __syncthreads();
    sum = warp_sum(lane < HOLDER_WARPS ? sums[lane] : 0.0f);
    if (threadIdx.x == 0) {
        losses[blockIdx.x] = logf(sum) + (top - right);
    }
    if (scale == 0.0f) {
        return;
    }
    const float factor = scale / sum;
#pragma unroll 2
    for (u32 i = first; i < (u32)ld; i += STEP) {
        Packet y = {};
        if (i < end) {
            const Sixteen piece = held[i / PACKET];
#pragma unroll
            for (u32 k = 0; k < PACKET; k++) {
                y.x[k] = i + k < end ? power(half_of(piece, k)) * factor : 0.0f;
            }
        }
        store8(row + i, y);
    }
    // The thread that has written the target's gradient writes it again.
    if (target / PACKET % HOLDERS == threadIdx.x) {
        row[target] = to_bf16(power(right) * factor - scale);
    }
}
