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

// partial[block] = Σ g² over the block's share, `chunk` (a multiple of 8) elements.
extern "C" __global__ void square_sums(double* partial, const float* g, u64 len, u64 chunk) {
    const u64 first = blockIdx.x * chunk, end = first + chunk < len ? first + chunk : len;
    const Array array = {(void*)g, 0, 0};
    double sum = 0.0;
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
    float lr, beta1, beta2, correct1, correct2, eps, weight_decay, grad_scale;
};

// One update; g is 0 where it is null. The bf16 image of the values, where there is one, is written in the same pass.
extern "C" __global__ void adamw(float* value, bf16* image, const float* g, float* m, float* v, u64 len, AdamW h) {
    const Array values = {value, 0, 0}, images = {image, 1, 0}, grads = {(void*)g, 0, 0}, firsts = {m, 0, 0}, seconds = {v, 0, 0};
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * PACKET; i < len; i += (u64)gridDim.x * blockDim.x * PACKET) {
        Packet p = load8(values, i, len), first = load8(firsts, i, len), second = load8(seconds, i, len), grad = {};
        if (g) {
            grad = load8(grads, i, len);
        }
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            const float d = h.grad_scale * grad.x[k];
            first.x[k] = h.beta1 * first.x[k] + (1.0f - h.beta1) * d;
            second.x[k] = h.beta2 * second.x[k] + (1.0f - h.beta2) * d * d;
            const float step = first.x[k] * h.correct1 / (sqrtf(second.x[k] * h.correct2) + h.eps);
            p.x[k] -= h.lr * (step + h.weight_decay * p.x[k]);
        }
        store8(values, i, len, p);
        store8(firsts, i, len, first);
        store8(seconds, i, len, second);
        if (image) {
            store8(images, i, len, p);
        }
    }
}
