// The online softmax over tiles of keys (Milakov and Gimelshein, arXiv 1805.02867; Dao, arXiv 2307.08691).
#pragma once

#include "tensor.cuh"

// A row of a tile's scores (16 × 8·NT, a C fragment; −∞ where nothing is seen; the rows lane / 4 and lane / 4 + 8 are its halves)
// becomes weights 2^(scale·score − top), where `top` is the largest scale·score until now, and `total` gets this lane's part of
// Σ weights. Returns by what the sums until now shrink. At least one score of each row has been finite.
template <int NT>
__device__ __forceinline__ float soften(float (&scores)[NT][4], int half, float (&top)[2], float (&total)[2], float scale) {
    float highest = -INF;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        highest = fmaxf(highest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
    }
    const float now = fmaxf(top[half], quad_max(highest) * scale), shrink = exp2_fast(top[half] - now);
    float sum = 0.0f;
    top[half] = now;
#pragma unroll
    for (int n = 0; n < NT; n++) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; i++) {
            // Where a score is not a number, so are all sums.
            scores[n][i] = exp2_fast(fmaf(scores[n][i], scale, -now));
            sum += scores[n][i];
        }
    }
    total[half] = total[half] * shrink + sum;
    return shrink;
}

// Multiplies both halves of the rows.
template <int NT>
__device__ __forceinline__ void scale_rows(float (&sums)[NT][4], const float (&by)[2]) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sums[n][i] *= by[i / 2];
        }
    }
}

// Scores of a C fragment of keys `key` .. behind a row's query become −∞: row r of the fragment has query `query` + r.
template <int NT>
__device__ __forceinline__ void hide(float (&scores)[NT][4], int key, int query) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int n = 0; n < NT; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (key + 8 * n + lane % 4 * 2 + i % 2 > query + lane / 4 + i / 2 * 8) {
                scores[n][i] = -INF;
            }
        }
    }
}
