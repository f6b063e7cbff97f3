// Causal attention for every shape and format that attention.cu does not take: head sizes up to 256, f32 or bf16 arrays in any
// mix, queries that begin behind cached keys. A warp per query (or per key), sums in f32 in the order of positions.
//
// This is the path of small models and of comparisons in f32, not a fast one: each warp reads its keys alone, so an H100 spends
// about 8·B·NH·T²·HS/2 flop at a few TFLOP/s.
#include "common.cuh"

#define MOST_HS 256
#define WARPS 4

// One of q, k, v or their gradients inside a wider array: element i of head h of row n is at[offset + n·width + h·hs + i].
struct View {
    Array array;
    u64 offset;
    u64 width;
};

struct PlainHeads {
    int b, t, nh, nkv, hs;
    // Rows of keys and values of a sequence, and the position of the first query among them.
    int keys, pos0;
};

__device__ __forceinline__ float at(View v, u64 row, int head, int hs, int i) {
    return load(v.array, v.offset + row * v.width + (u64)head * hs + i);
}

__device__ __forceinline__ void put(View v, u64 row, int head, int hs, int i, float x) {
    store(v.array, v.offset + row * v.width + (u64)head * hs + i, x);
}

// out_t = Σ_{s ≤ pos0 + t} softmax(q·k_s / sqrt(HS)) v_s, and lse where it is asked for. A warp per query and head.
// Grid: ⌈B·NH·T / 4⌉.  q: B·T rows  k, v: B·keys rows  out: (B,T,NH·HS)  lse: (B,NH,T) or null.
extern "C" __global__ void attention_plain(View out, float* lse, View q, View k, View v, PlainHeads h) {
    __shared__ float query[WARPS][MOST_HS];
    __shared__ float weights[WARPS][WARP];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const u64 task = (u64)blockIdx.x * WARPS + warp;
    if (task >= (u64)h.b * h.nh * h.t) {
        return;
    }
    const int t = task % h.t, head = task / h.t % h.nh, b = task / ((u64)h.t * h.nh), kv_head = head / (h.nh / h.nkv);
    const u64 row = (u64)b * h.t + t, key_row = (u64)b * h.keys;
    const float scale = rsqrtf((float)h.hs);
    for (int i = lane; i < h.hs; i += WARP) {
        query[warp][i] = at(q, row, head, h.hs, i);
    }
    __syncwarp();
    float top = -INF, total = 0.0f, sums[MOST_HS / WARP];
#pragma unroll
    for (int j = 0; j < MOST_HS / WARP; j++) {
        sums[j] = 0.0f;
    }
    const int count = h.pos0 + t + 1;
    for (int first = 0; first < count; first += WARP) {
        float score = -INF;
        if (first + lane < count) {
            score = 0.0f;
            for (int i = 0; i < h.hs; i++) {
                score += query[warp][i] * at(k, key_row + first + lane, kv_head, h.hs, i);
            }
            score *= scale;
        }
        const float now = fmaxf(top, warp_max(score)), shrink = expf(top - now);
        const float weight = first + lane < count ? expf(score - now) : 0.0f;
        top = now;
        total = total * shrink + warp_sum(weight);
        weights[warp][lane] = weight;
        __syncwarp();
#pragma unroll
        for (int j = 0; j < MOST_HS / WARP; j++) {
            const int i = lane + j * WARP;
            if (i < h.hs) {
                float sum = sums[j] * shrink;
                for (int s = 0; s < min(WARP, count - first); s++) {
                    sum += weights[warp][s] * at(v, key_row + first + s, kv_head, h.hs, i);
                }
                sums[j] = sum;
            }
        }
        __syncwarp();
    }
#pragma unroll
    for (int j = 0; j < MOST_HS / WARP; j++) {
        const int i = lane + j * WARP;
        if (i < h.hs) {
            put(out, row, head, h.hs, i, sums[j] / total);
        }
    }
    if (lse != nullptr && lane == 0) {
        lse[((u64)b * h.nh + head) * h.t + t] = top + logf(total);
    }
}

// delta = Σ_i dout·out for each query and head: what softmax's gradient takes off. A warp each. Grid: ⌈B·NH·T / 4⌉.
extern "C" __global__ void attention_delta(float* delta, View dout, View out, PlainHeads h) {
    const u64 task = (u64)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (task >= (u64)h.b * h.nh * h.t) {
        return;
    }
    const int t = task % h.t, head = task / h.t % h.nh, b = task / ((u64)h.t * h.nh);
    const u64 row = (u64)b * h.t + t;
    float sum = 0.0f;
    for (int i = threadIdx.x % WARP; i < h.hs; i += WARP) {
        sum += at(dout, row, head, h.hs, i) * at(out, row, head, h.hs, i);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) {
        delta[task] = sum;
    }
}

// The same by packets, for arrays without space between heads: hs / 8 lanes (a power of two up to 32) take a row of a head, and
// add up each its packet, then in pairs.   dout, out: (B·T,NH,HS)
extern "C" __global__ void attention_delta_packets(float* delta, Array dout, Array out, PlainHeads h) {
    const u32 lanes = h.hs / PACKET, total = (u32)h.b * h.t * h.nh;
    const u64 packet = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    const u32 i = packet / lanes;
    float sum = 0.0f;
    if (i < total) {
        const u64 at = packet * PACKET;
        const Raw raw_d = load8_raw(dout, at, at + PACKET), raw_o = load8_raw(out, at, at + PACKET);
        const Packet d = widen(dout, raw_d), o = widen(out, raw_o);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            sum += d.x[k] * o.x[k];
        }
    }
    for (u32 mask = lanes / 2; mask > 0; mask /= 2) {
        sum += shuffle_xor(sum, mask);
    }
    if (i < total && packet % lanes == 0) {
        const u32 head = i % h.nh, row = i / h.nh, b = row / h.t, t = row % h.t;
        delta[((u64)b * h.nh + head) * h.t + t] = sum;
    }
}

// dq = scale · Σ_s p·(dout·v_s − delta)·k_s. A warp per query and head. Grid: ⌈B·NH·T / 4⌉.
extern "C" __global__ void attention_plain_grad_queries(View dq, View dout, View q, View k, View v, const float* lse,
                                                        const float* delta, PlainHeads h) {
    __shared__ float query[WARPS][MOST_HS];
    __shared__ float back[WARPS][MOST_HS];
    __shared__ float slopes[WARPS][WARP];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const u64 task = (u64)blockIdx.x * WARPS + warp;
    if (task >= (u64)h.b * h.nh * h.t) {
        return;
    }
    const int t = task % h.t, head = task / h.t % h.nh, b = task / ((u64)h.t * h.nh), kv_head = head / (h.nh / h.nkv);
    const u64 row = (u64)b * h.t + t, key_row = (u64)b * h.t;
    const float scale = rsqrtf((float)h.hs), log_sum = lse[task], mean = delta[task];
    for (int i = lane; i < h.hs; i += WARP) {
        query[warp][i] = at(q, row, head, h.hs, i);
        back[warp][i] = at(dout, row, head, h.hs, i);
    }
    __syncwarp();
    float sums[MOST_HS / WARP];
#pragma unroll
    for (int j = 0; j < MOST_HS / WARP; j++) {
        sums[j] = 0.0f;
    }
    for (int first = 0; first <= t; first += WARP) {
        float slope = 0.0f;
        if (first + lane <= t) {
            float score = 0.0f, gain = 0.0f;
            for (int i = 0; i < h.hs; i++) {
                score += query[warp][i] * at(k, key_row + first + lane, kv_head, h.hs, i);
                gain += back[warp][i] * at(v, key_row + first + lane, kv_head, h.hs, i);
            }
            slope = expf(score * scale - log_sum) * (gain - mean);
        }
        slopes[warp][lane] = slope;
        __syncwarp();
#pragma unroll
        for (int j = 0; j < MOST_HS / WARP; j++) {
            const int i = lane + j * WARP;
            if (i < h.hs) {
                for (int s = 0; s < min(WARP, t + 1 - first); s++) {
                    sums[j] += slopes[warp][s] * at(k, key_row + first + s, kv_head, h.hs, i);
                }
            }
        }
        __syncwarp();
    }
#pragma unroll
    for (int j = 0; j < MOST_HS / WARP; j++) {
        const int i = lane + j * WARP;
        if (i < h.hs) {
            put(dq, row, head, h.hs, i, sums[j] * scale);
        }
    }
}

// dv = Σ p·dout, dk = scale · Σ p·(dout·v − delta)·q over the queries behind a key and the heads that read it, in the order of
// heads, then positions. A warp per key and key head. Grid: ⌈B·NKV·T / 4⌉.
extern "C" __global__ void attention_plain_grad_keys(View dk, View dv, View dout, View q, View k, View v, const float* lse,
                                                     const float* delta, PlainHeads h) {
    __shared__ float key[WARPS][MOST_HS];
    __shared__ float value[WARPS][MOST_HS];
    __shared__ float weights[WARPS][WARP];
    __shared__ float slopes[WARPS][WARP];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const u64 task = (u64)blockIdx.x * WARPS + warp;
    if (task >= (u64)h.b * h.nkv * h.t) {
        return;
    }
    const int s = task % h.t, kv_head = task / h.t % h.nkv, b = task / ((u64)h.t * h.nkv), group = h.nh / h.nkv;
    const u64 base = (u64)b * h.t;
    const float scale = rsqrtf((float)h.hs);
    for (int i = lane; i < h.hs; i += WARP) {
        key[warp][i] = at(k, base + s, kv_head, h.hs, i);
        value[warp][i] = at(v, base + s, kv_head, h.hs, i);
    }
    __syncwarp();
    float key_sums[MOST_HS / WARP], value_sums[MOST_HS / WARP];
#pragma unroll
    for (int j = 0; j < MOST_HS / WARP; j++) {
        key_sums[j] = value_sums[j] = 0.0f;
    }
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (int first = s; first < h.t; first += WARP) {
            float weight = 0.0f, slope = 0.0f;
            if (first + lane < h.t) {
                const u64 of_query = ((u64)b * h.nh + head) * h.t + first + lane;
                float score = 0.0f, gain = 0.0f;
                for (int i = 0; i < h.hs; i++) {
                    score += key[warp][i] * at(q, base + first + lane, head, h.hs, i);
                    gain += value[warp][i] * at(dout, base + first + lane, head, h.hs, i);
                }
                weight = expf(score * scale - lse[of_query]);
                slope = weight * (gain - delta[of_query]);
            }
            weights[warp][lane] = weight;
            slopes[warp][lane] = slope;
            __syncwarp();
#pragma unroll
            for (int j = 0; j < MOST_HS / WARP; j++) {
                const int i = lane + j * WARP;
                if (i < h.hs) {
                    for (int n = 0; n < min(WARP, h.t - first); n++) {
                        key_sums[j] += slopes[warp][n] * at(q, base + first + n, head, h.hs, i);
                        value_sums[j] += weights[warp][n] * at(dout, base + first + n, head, h.hs, i);
                    }
                }
            }
            __syncwarp();
        }
    }
#pragma unroll
    for (int j = 0; j < MOST_HS / WARP; j++) {
        const int i = lane + j * WARP;
        if (i < h.hs) {
            put(dk, base + s, kv_head, h.hs, i, key_sums[j] * scale);
            put(dv, base + s, kv_head, h.hs, i, value_sums[j]);
        }
    }
}
