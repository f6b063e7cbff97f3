// Causal attention for training on tensor cores: bf16 in and out, sums in f32, heads of 64 or 128, grouped queries.
// Online softmax over tiles of keys (Milakov and Gimelshein, arXiv 1805.02867; Dao, arXiv 2307.08691).
//
// qkv: (B,T,(NH+2·NKV)·HS), heads of q, then k, then v.  out, dout: (B,T,NH·HS).  lse, delta: (B,NH,T).
//
// What it should take on an H100 (989 TFLOP/s, 3.35 TB/s), for B·T = 65,536, T = 1,024, 12 heads of 64, causal half only:
//   forward   4·B·NH·T²·HS/2 = 103 GFLOP, 0.10 ms at the peak, and about 0.17 ms at the rate of mma.sync (60 % of wgmma's);
//             (3 + 1)·B·T·NH·HS·2 bytes = 0.40 GB, 0.12 ms. The exponentials, B·NH·T²/2 = 4·10⁸, take 0.10 ms (16 a cycle and SM).
//   backward  14·B·NH·T²·HS/2 = 361 GFLOP (five products, and the two that the second pass computes again): 0.6 ms with mma.sync.
//             One pass for dk and dv, one for dq: no sum is shared between blocks, so there are no atomics and one order.
#include "softmax.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;

struct Heads {
    int t, nh, nkv;
};

template <int HS>
struct Row {
    // Numbers between one position and the next in qkv and in out.
    static __device__ __forceinline__ u64 qkv(Heads h) {
        return (u64)(h.nh + 2 * h.nkv) * HS;
    }
    static __device__ __forceinline__ u64 out(Heads h) {
        return (u64)h.nh * HS;
    }
};

// Two neighbours in bf16.
__device__ __forceinline__ void store_pair(bf16* to, float x, float y) {
    *(u32*)to = round_pair(x, y);
}

// A block takes 64·MT queries of one head, a warp 16·MT of them; keys pass by in tiles of KEYS, two in flight.
// Grid: (⌈T / (64·MT)⌉, NH, B). The tiles with most keys begin first.
template <int HS, int MT, int KEYS>
__device__ __forceinline__ void forward(bf16* out, float* lse, const bf16* qkv, Heads h) {
    constexpr int QUERIES = WARPS * 16 * MT, NT = KEYS / 8;
    DYNAMIC_SHARED(shared);
    const Tile<HS> q{(bf16*)shared};
    const Stages<HS, KEYS> k{q.data + QUERIES * HS}, v{k.data + 2 * KEYS * HS};
    const int lane = threadIdx.x % WARP, row = threadIdx.x / WARP * 16 * MT;
    const int first = (gridDim.x - 1 - blockIdx.x) * QUERIES, head = blockIdx.y, b = blockIdx.z;
    const u64 width = Row<HS>::qkv(h);
    const bf16* const base = qkv + (u64)b * h.t * width;
    const bf16* const keys = base + (h.nh + head / (h.nh / h.nkv)) * HS;
    const bf16* const values = keys + h.nkv * HS;
    const int tiles = (min(h.t, first + QUERIES) + KEYS - 1) / KEYS;
    q.template fill<QUERIES, THREADS>(base + first * width + head * HS, width, h.t - first);
    k[0].template fill<KEYS, THREADS>(keys, width, h.t);
    v[0].template fill<KEYS, THREADS>(values, width, h.t);
    copies_end();

    const float scale = LOG2_E * rsqrtf((float)HS);
    float sums[MT][HS / 8][4], top[MT][2], total[MT][2];
    clear(sums);
#pragma unroll
    for (int m = 0; m < MT; m++) {
        top[m][0] = top[m][1] = -INF;
        total[m][0] = total[m][1] = 0.0f;
    }
    for (int tile = 0; tile < tiles; tile++) {
        const int key = tile * KEYS;
        if (tile + 1 < tiles) {
            const int next = key + KEYS;
            k[(tile + 1)].template fill<KEYS, THREADS>(keys + next * width, width, h.t - next);
            v[(tile + 1)].template fill<KEYS, THREADS>(values + next * width, width, h.t - next);
            copies_end();
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        // A warp whose queries all stand before the tile has nothing to see in it.
        if (key < first + row + 16 * MT) {
            float scores[MT][NT][4];
            clear(scores);
            multiply_rows(scores, q, row, k[tile]);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                if (key + KEYS > first + row + 16 * m) {
                    hide(scores[m], key, first + row + 16 * m);
                }
                const float shrink[2] = {soften(scores[m], 0, top[m], total[m], scale), soften(scores[m], 1, top[m], total[m], scale)};
                scale_rows(sums[m], shrink);
            }
            multiply_columns(sums, scores, v[tile]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int query = first + row + 16 * m + lane / 4 + 8 * half;
            const float sum = quad_sum(total[m][half]), inverse = 1.0f / sum;
            if (query >= h.t) {
                continue;
            }
            bf16* const to = out + ((u64)b * h.t + query) * Row<HS>::out(h) + head * HS + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < HS / 8; n++) {
                store_pair(to + 8 * n, sums[m][n][2 * half] * inverse, sums[m][n][2 * half + 1] * inverse);
            }
            if (lane % 4 == 0) {
                lse[((u64)b * h.nh + head) * h.t + query] = top[m][half] / LOG2_E + logf(sum);
            }
        }
    }
}

// Queries of one head, with their dout, lse and delta; keys and values pass by in tiles of KEYS.
// dq = scale · Σ_s p·(dout·v_s − delta)·k_s.  Grid as forward's.
template <int HS, int MT, int KEYS>
__device__ __forceinline__ void backward_queries(bf16* dqkv, const bf16* dout, const bf16* qkv, const float* lse,
                                                 const float* delta, Heads h) {
    constexpr int QUERIES = WARPS * 16 * MT, NT = KEYS / 8;
    DYNAMIC_SHARED(shared);
    const Tile<HS> q{(bf16*)shared}, d{q.data + QUERIES * HS};
    const Stages<HS, KEYS> k{d.data + QUERIES * HS}, v{k.data + 2 * KEYS * HS};
    const int lane = threadIdx.x % WARP, row = threadIdx.x / WARP * 16 * MT;
    const int first = (gridDim.x - 1 - blockIdx.x) * QUERIES, head = blockIdx.y, b = blockIdx.z;
    const u64 width = Row<HS>::qkv(h), out_width = Row<HS>::out(h);
    const bf16* const base = qkv + (u64)b * h.t * width;
    const bf16* const keys = base + (h.nh + head / (h.nh / h.nkv)) * HS;
    const bf16* const values = keys + h.nkv * HS;
    const int tiles = (min(h.t, first + QUERIES) + KEYS - 1) / KEYS;
    q.template fill<QUERIES, THREADS>(base + first * width + head * HS, width, h.t - first);
    d.template fill<QUERIES, THREADS>(dout + ((u64)b * h.t + first) * out_width + head * HS, out_width, h.t - first);
    k[0].template fill<KEYS, THREADS>(keys, width, h.t);
    v[0].template fill<KEYS, THREADS>(values, width, h.t);
    copies_end();

    const float scale = rsqrtf((float)HS);
    float sums[MT][HS / 8][4], log_sum[MT][2], mean[MT][2];
    clear(sums);
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int query = first + row + 16 * m + lane / 4 + 8 * half;
            const u64 at = ((u64)b * h.nh + head) * h.t + query;
            // p = 0 behind the last query.
            log_sum[m][half] = query < h.t ? lse[at] * LOG2_E : INF;
            mean[m][half] = query < h.t ? delta[at] : 0.0f;
        }
    }
    for (int tile = 0; tile < tiles; tile++) {
        const int key = tile * KEYS;
        if (tile + 1 < tiles) {
            const int next = key + KEYS;
            k[(tile + 1)].template fill<KEYS, THREADS>(keys + next * width, width, h.t - next);
            v[(tile + 1)].template fill<KEYS, THREADS>(values + next * width, width, h.t - next);
            copies_end();
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        if (key < first + row + 16 * MT) {
            float scores[MT][NT][4], slopes[MT][NT][4];
            clear(scores);
            clear(slopes);
            multiply_rows(scores, q, row, k[tile]);
            multiply_rows(slopes, d, row, v[tile]);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                if (key + KEYS > first + row + 16 * m) {
                    hide(scores[m], key, first + row + 16 * m);
                }
#pragma unroll
                for (int n = 0; n < NT; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const float p = exp2_fast(fmaf(scores[m][n][i], scale * LOG2_E, -log_sum[m][i / 2]));
                        slopes[m][n][i] = p * (slopes[m][n][i] - mean[m][i / 2]);
                    }
                }
            }
            multiply_columns(sums, slopes, k[tile]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int query = first + row + 16 * m + lane / 4 + 8 * half;
            if (query >= h.t) {
                continue;
            }
            bf16* const to = dqkv + ((u64)b * h.t + query) * width + head * HS + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < HS / 8; n++) {
                store_pair(to + 8 * n, sums[m][n][2 * half] * scale, sums[m][n][2 * half + 1] * scale);
            }
        }
    }
}

// A block takes 64·MT keys of one key head; the queries of all heads that read it pass by in tiles of QUERIES, transposed:
// pᵀ and dscoreᵀ have a row for each key, so that both lie in registers as the left factor of the next product.
// dv = Σ p·dout, dk = scale · Σ p·(dout·v − delta)·q.  Grid: (⌈T / (64·MT)⌉, NKV, B).
template <int HS, int MT, int QUERIES>
__device__ __forceinline__ void backward_keys(bf16* dqkv, const bf16* dout, const bf16* qkv, const float* lse,
                                              const float* delta, Heads h) {
    constexpr int KEYS = WARPS * 16 * MT, NT = QUERIES / 8;
    static_assert(QUERIES <= THREADS, "a thread for each query");
    DYNAMIC_SHARED(shared);
    const Tile<HS> k{(bf16*)shared}, v{k.data + KEYS * HS};
    const Stages<HS, QUERIES> q{v.data + KEYS * HS}, d{q.data + 2 * QUERIES * HS};
    // For both tiles in flight their queries' lse, scaled, and delta.
    float* const rows = (float*)(d.data + 2 * QUERIES * HS);
    const int lane = threadIdx.x % WARP, row = threadIdx.x / WARP * 16 * MT;
    const int first = blockIdx.x * KEYS, kv_head = blockIdx.y, b = blockIdx.z, group = h.nh / h.nkv;
    const u64 width = Row<HS>::qkv(h), out_width = Row<HS>::out(h);
    const bf16* const base = qkv + (u64)b * h.t * width;
    const u64 key_at = (u64)(h.nh + kv_head) * HS;
    k.template fill<KEYS, THREADS>(base + first * width + key_at, width, h.t - first);
    v.template fill<KEYS, THREADS>(base + first * width + key_at + (u64)h.nkv * HS, width, h.t - first);
    // Tiles of queries at or behind the first key, for each head of the group.
    const int first_tile = first / QUERIES, tiles = (h.t + QUERIES - 1) / QUERIES - first_tile;
    auto fetch = [&](int step) {
        const int head = kv_head * group + step / tiles, query = (first_tile + step % tiles) * QUERIES;
        q[step].template fill<QUERIES, THREADS>(base + query * width + head * HS, width, h.t - query);
        d[step].template fill<QUERIES, THREADS>(dout + ((u64)b * h.t + query) * out_width + head * HS, out_width,
                                                    h.t - query);
        copies_end();
        if (threadIdx.x < QUERIES) {
            const bool valid = query + (int)threadIdx.x < h.t;
            const u64 at = ((u64)b * h.nh + head) * h.t + query + threadIdx.x;
            // p = 0 behind the last query.
            rows[(step & 1) * 2 * QUERIES + threadIdx.x] = valid ? lse[at] * LOG2_E : INF;
            rows[((step & 1) * 2 + 1) * QUERIES + threadIdx.x] = valid ? delta[at] : 0.0f;
        }
    };
    fetch(0);

    const float scale = rsqrtf((float)HS);
    float dk[MT][HS / 8][4], dv[MT][HS / 8][4];
    clear(dk);
    clear(dv);
    for (int step = 0; step < group * tiles; step++) {
        if (step + 1 < group * tiles) {
            fetch(step + 1);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        const int query = (first_tile + step % tiles) * QUERIES;
        // A warp whose keys all stand behind the tile is not seen from it.
        if (query + QUERIES > first + row) {
            const float* const log_sum = rows + (step & 1) * 2 * QUERIES;
            const float* const mean = log_sum + QUERIES;
            float weights[MT][NT][4], slopes[MT][NT][4];
            clear(weights);
            multiply_rows(weights, k, row, q[step]);
#pragma unroll
            for (int n = 0; n < NT; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int column = 8 * n + lane % 4 * 2 + i % 2;
#pragma unroll
                    for (int m = 0; m < MT; m++) {
                        const bool seen = first + row + 16 * m + lane / 4 + i / 2 * 8 <= query + column;
                        const float p = exp2_fast(weights[m][n][i] * (scale * LOG2_E) - log_sum[column]);
                        weights[m][n][i] = seen ? p : 0.0f;
                    }
                }
            }
            multiply_columns(dv, weights, d[step]);
            clear(slopes);
            multiply_rows(slopes, v, row, d[step]);
#pragma unroll
            for (int n = 0; n < NT; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float mean_here = mean[8 * n + lane % 4 * 2 + i % 2];
#pragma unroll
                    for (int m = 0; m < MT; m++) {
                        slopes[m][n][i] = weights[m][n][i] * (slopes[m][n][i] - mean_here);
                    }
                }
            }
            multiply_columns(dk, slopes, q[step]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int key = first + row + 16 * m + lane / 4 + 8 * half;
            if (key >= h.t) {
                continue;
            }
            bf16* const to = dqkv + ((u64)b * h.t + key) * width + key_at + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < HS / 8; n++) {
                store_pair(to + 8 * n, dk[m][n][2 * half] * scale, dk[m][n][2 * half + 1] * scale);
                store_pair(to + (u64)h.nkv * HS + 8 * n, dv[m][n][2 * half], dv[m][n][2 * half + 1]);
            }
        }
    }
}

#define FORWARD(name, HS, MT, KEYS)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS) name(bf16* out, float* lse, const bf16* qkv, Heads h) {        \
        forward<HS, MT, KEYS>(out, lse, qkv, h);                                                                         \
    }
#define BACKWARD(name, body, HS, MT, TILE)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        name(bf16* dqkv, const bf16* dout, const bf16* qkv, const float* lse, const float* delta, Heads h) {             \
        body<HS, MT, TILE>(dqkv, dout, qkv, lse, delta, h);                                                              \
    }

// The shapes of tiles stand in src/attention.rs too, where launches are computed.
FORWARD(attention_64, 64, 2, 64)
FORWARD(attention_128, 128, 1, 64)
BACKWARD(attention_grad_queries_64, backward_queries, 64, 2, 32)
BACKWARD(attention_grad_queries_128, backward_queries, 128, 1, 32)
BACKWARD(attention_grad_keys_64, backward_keys, 64, 1, 64)
BACKWARD(attention_grad_keys_128, backward_keys, 128, 1, 32)
