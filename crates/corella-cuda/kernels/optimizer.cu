// The norm of the gradients, and AdamW.
#include "common.cuh"

#define THREADS 256

// Σ over the block in a fixed order; the result is thread 0's.
__device__ __forceinline__ double block_sum_f64(double x) {
    __shared__ double sums[THREADS];
    sums[threadIdx.x] = x;
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            sums[threadIdx.x] += sums[threadIdx.x + half];
        }
    }
    return sums[0];
}

// Tensors of a launch; block `first[i]` is the first of tensor i, and there is none behind the last. As in src/optimizer.rs.
#define SQUARES 128
#define UPDATES 64

// The tensor that a block belongs to: the last of `count` whose first block is not behind it.
__device__ __forceinline__ u32 tensor_of(const u32* first, u32 count, u32 block) {
    u32 low = 0, high = count;
    while (high - low > 1) {
        const u32 middle = (low + high) / 2;
        if (first[middle] <= block) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

struct Squares {
    const float* g[SQUARES];
    u64 len[SQUARES];
    u32 first[SQUARES];
    u32 count, chunk;
};

// partial[block] = Σ g² over the block's share, `chunk` (a multiple of 8) elements of a tensor.
extern "C" __global__ void square_sums(double* partial, const __grid_constant__ Squares t) {
    const u32 tensor = tensor_of(t.first, t.count, blockIdx.x);
    const u64 len = t.len[tensor], first = (u64)(blockIdx.x - t.first[tensor]) * t.chunk;
    const u64 end = first + t.chunk < len ? first + t.chunk : len;
    const Array array = {(void*)t.g[tensor], 0, 0};
    double sum = 0.0;
#pragma unroll 4
    for (u64 i = first + threadIdx.x * PACKET; i < end; i += THREADS * PACKET) {
        const Packet x = load8(array, i, end);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            sum += (double)x.x[k] * (double)x.x[k];
        }
    }
    sum = block_sum_f64(sum);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

// out[0] = Σ of `count` numbers. One block.
extern "C" __global__ void total(double* out, const double* partial, u32 count) {
    double sum = 0.0;
#pragma unroll 8
    for (u32 i = threadIdx.x; i < count; i += THREADS) {
        sum += partial[i];
    }
    sum = block_sum_f64(sum);
    if (threadIdx.x == 0) {
        out[0] = sum;
    }
}

struct AdamW {
    // Learning rate; decays of the moments; 1/(1 − β^step) of each; added to the root.
    float lr, beta1, beta2, correct1, correct2, eps, grad_scale;
};

struct Updates {
    float* value[UPDATES];
    // Their image in bf16, or null.
    bf16* image[UPDATES];
    // Null where it is 0.
    const float* g[UPDATES];
    float* m[UPDATES];
    float* v[UPDATES];
    u64 len[UPDATES];
    u32 first[UPDATES];
    float weight_decay[UPDATES];
    u32 count, chunk;
};

// One update of many tensors, a block for each `chunk` (a multiple of 8) elements. The bf16 image of the values, where there is
// one, is written in the same pass.
extern "C" __global__ void adamw(const __grid_constant__ Updates t, AdamW h) {
    const u32 tensor = tensor_of(t.first, t.count, blockIdx.x);
    const u64 len = t.len[tensor], begin = (u64)(blockIdx.x - t.first[tensor]) * t.chunk;
    const u64 end = begin + t.chunk < len ? begin + t.chunk : len;
    const Array values = {t.value[tensor], 0, 0}, images = {t.image[tensor], 1, 0}, grads = {(void*)t.g[tensor], 0, 0};
    const Array firsts = {t.m[tensor], 0, 0}, seconds = {t.v[tensor], 0, 0};
    const float weight_decay = t.weight_decay[tensor];
    for (u64 i = begin + threadIdx.x * PACKET; i < end; i += THREADS * PACKET) {
        Packet p = load8(values, i, end), first = load8(firsts, i, end), second = load8(seconds, i, end), grad = {};
        if (grads.data) {
            grad = load8(grads, i, end);
        }
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            const float d = h.grad_scale * grad.x[k];
            first.x[k] = h.beta1 * first.x[k] + (1.0f - h.beta1) * d;
            second.x[k] = h.beta2 * second.x[k] + (1.0f - h.beta2) * d * d;
            const float step = first.x[k] * h.correct1 / (sqrtf(second.x[k] * h.correct2) + h.eps);
            p.x[k] -= h.lr * (step + weight_decay * p.x[k]);
        }
        store8(values, i, end, p);
        store8(firsts, i, end, first);
        store8(seconds, i, end, second);
        if (images.data) {
            store8(images, i, end, p);
        }
    }
}
