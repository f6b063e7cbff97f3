// Causal attention for training as in attention.cu, for heads of 64 on cards where the four warps of a block multiply together
// (wgmma): a block has 64 queries, or 64 keys, and tiles of 64 of the others pass by, two in flight. Several blocks share a
// multiprocessor, so that one's products run beside another's exponentials.
//
// qkv: (B,T,(NH+2·NKV)·64), heads of q, then k, then v.  out, dout: (B,T,NH·64).  lse, delta: (B,NH,T).
//
// What it should take on an H200, for B·T = 16,384, T = 1,024, 12 heads (causal half: 26 GFLOP forward, 90 backward): by mma.sync
// 141 µs and 445 µs were measured; wgmma has 1.6 times its rate and does not load factors into registers.
#include "softmax.cuh"
#include "warpgroup.cuh"

constexpr int HS = 64;
constexpr int THREADS = 128;
constexpr int SIDE = 64;
constexpr int NT = SIDE / 8;

// Blocks that share a processor, where the registers that this leaves are enough. Other cards do not run these kernels.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
#define TOGETHER(blocks) __launch_bounds__(THREADS, blocks)
#else
#define TOGETHER(blocks) __launch_bounds__(THREADS, 2)
#endif

struct Heads {
    int t, nh, nkv;
};

// Two neighbours in bf16.
__device__ __forceinline__ void store_pair(bf16* to, float x, float y) {
    *(u32*)to = round_pair(x, y);
}

// Where the heads of a block stand.
struct Place {
    int first, head, kv_head, b, row, lane;
    // Numbers from one position to the next in qkv and in out.
    u64 width, out_width;
    const bf16* base;

    // `row`: the warp's first row of the block's 64.
    __device__ __forceinline__ Place(const bf16* qkv, Heads h, int first, bool of_queries)
        : first(first), head(blockIdx.y), kv_head(of_queries ? blockIdx.y / (h.nh / h.nkv) : blockIdx.y), b(blockIdx.z),
          row(threadIdx.x / WARP * 16), lane(threadIdx.x % WARP), width((u64)(h.nh + 2 * h.nkv) * HS),
          out_width((u64)h.nh * HS), base(qkv + (u64)blockIdx.z * h.t * width) {}
};

// to[column] = factor · Σ of the block's rows before `valid`, for the bias that the columns had. `tile` is 1 KB of shared memory that
// nobody reads any more; the next use needs a barrier before it.
__device__ __forceinline__ void sum_rows(float* to, const float (&x)[HS / 8][4], float factor, const Place& p, int valid,
                                         float (*tile)[HS]) {
#pragma unroll
    for (int n = 0; n < HS / 8; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum = p.row + p.lane / 4 < valid ? x[n][i] : 0.0f;
            sum += p.row + p.lane / 4 + 8 < valid ? x[n][2 + i] : 0.0f;
            sum += shuffle_xor(sum, 4);
            sum += shuffle_xor(sum, 8);
            sum += shuffle_xor(sum, 16);
            if (p.lane < 4) {
                tile[threadIdx.x / WARP][8 * n + p.lane * 2 + i] = sum;
            }
        }
    }
    __syncthreads();
    if (threadIdx.x < HS) {
        float sum = 0.0f;
#pragma unroll
        for (int warp = 0; warp < THREADS / WARP; warp++) {
            sum += tile[warp][threadIdx.x];
        }
        to[threadIdx.x] = sum * factor;
    }
}

// Grid: (⌈T / 64⌉, NH, B). The tiles with most keys begin first. Dynamic shared memory: tiles of 64 × 64: q, two of keys, two of
// values.
extern "C" __global__ void TOGETHER(5) attention_blocks(bf16* out, float* lse, const bf16* qkv, Heads h) {
    DYNAMIC_SHARED_AT(shared, TILE_PLACE);
    const Tile<HS> q{(bf16*)shared};
    const Stages<HS, SIDE> k{q.data + SIDE * HS}, v{k.data + 2 * SIDE * HS};
    const Place p(qkv, h, (gridDim.x - 1 - blockIdx.x) * SIDE, true);
    const bf16* const keys = p.base + (h.nh + p.kv_head) * HS;
    const bf16* const values = keys + h.nkv * HS;
    const int tiles = (int)(gridDim.x - blockIdx.x);
    q.fill<SIDE, THREADS>(p.base + p.first * p.width + p.head * HS, p.width, h.t - p.first);
    k[0].fill<SIDE, THREADS>(keys, p.width, h.t);
    v[0].fill<SIDE, THREADS>(values, p.width, h.t);
    copies_end();

    const float scale = LOG2_E * rsqrtf((float)HS);
    float sums[1][HS / 8][4], top[2] = {-INF, -INF}, total[2] = {0.0f, 0.0f};
    clear(sums);
    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) {
            const int next = (tile + 1) * SIDE;
            k[tile + 1].fill<SIDE, THREADS>(keys + next * p.width, p.width, h.t - next);
            v[tile + 1].fill<SIDE, THREADS>(values + next * p.width, p.width, h.t - next);
            copies_end();
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        writes_end();
        __syncthreads();
        float scores[1][NT][4];
        products_begin();
        block_rows(scores, q, k[tile]);
        products_end();
        hold(scores);
        if (tile + 1 == tiles) {
            hide(scores[0], tile * SIDE, p.first + p.row);
        }
        const float shrink[2] = {soften(scores[0], 0, top, total, scale), soften(scores[0], 1, top, total, scale)};
        scale_rows(sums[0], shrink);
        const LeftFactor<> weights(scores);
        hold(sums);
        products_begin();
        block_columns(sums, weights, v[tile]);
        products_end();
        hold(sums);
        __syncthreads();
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int query = p.first + p.row + p.lane / 4 + 8 * half;
        const float sum = quad_sum(total[half]), inverse = 1.0f / sum;
        if (query >= h.t) {
            continue;
        }
        bf16* const to = out + ((u64)p.b * h.t + query) * p.out_width + p.head * HS + p.lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < HS / 8; n++) {
            store_pair(to + 8 * n, sums[0][n][2 * half] * inverse, sums[0][n][2 * half + 1] * inverse);
        }
        if (p.lane % 4 == 0) {
            lse[((u64)p.b * h.nh + p.head) * h.t + query] = top[half] / LOG2_E + logf(sum);
        }
    }
}

// dq = scale · Σ_s p·(dout·v_s − delta)·k_s, and of each block the sums of its rows, column by column: (B·⌈T / 64⌉, (NH+2·NKV)·64).
// Writes delta = Σ dout·out of each query and head as well, which the keys want next.
// Grid as above. Dynamic shared memory: q, dout, two tiles of keys, two of values.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_blocks_grad_queries(bf16* dqkv, float* row_sums, float* delta, const bf16* dout, const bf16* out, const bf16* qkv,
                                  const float* lse, Heads h) {
    DYNAMIC_SHARED_AT(shared, TILE_PLACE);
    __shared__ float means[SIDE];
    const Tile<HS> q{(bf16*)shared}, d{q.data + SIDE * HS};
    const Stages<HS, SIDE> k{d.data + SIDE * HS}, v{k.data + 2 * SIDE * HS};
    const Place p(qkv, h, (gridDim.x - 1 - blockIdx.x) * SIDE, true);
    const bf16* const keys = p.base + (h.nh + p.kv_head) * HS;
    const bf16* const values = keys + h.nkv * HS;
    const int tiles = (int)(gridDim.x - blockIdx.x);
    q.fill<SIDE, THREADS>(p.base + p.first * p.width + p.head * HS, p.width, h.t - p.first);
    d.fill<SIDE, THREADS>(dout + ((u64)p.b * h.t + p.first) * p.out_width + p.head * HS, p.out_width, h.t - p.first);
    k[0].fill<SIDE, THREADS>(keys, p.width, h.t);
    v[0].fill<SIDE, THREADS>(values, p.width, h.t);
    copies_end();

    // Two threads for each query, with half of its head each.
    {
        const int query = p.first + threadIdx.x / 2;
        float sum = 0.0f;
        if (query < h.t) {
            const u64 at = ((u64)p.b * h.t + query) * p.out_width + p.head * HS + threadIdx.x % 2 * (HS / 2);
#pragma unroll
            for (int i = 0; i < HS / 2; i += PACKET) {
                const Packet x = load8(dout + at + i), y = load8(out + at + i);
#pragma unroll
                for (int j = 0; j < PACKET; j++) {
                    sum += x.x[j] * y.x[j];
                }
            }
        }
        sum += shuffle_xor(sum, 1);
        if (threadIdx.x % 2 == 0) {
            means[threadIdx.x / 2] = sum;
            if (query < h.t) {
                delta[((u64)p.b * h.nh + p.head) * h.t + query] = sum;
            }
        }
    }
    __syncthreads();

    const float scale = rsqrtf((float)HS);
    float sums[1][HS / 8][4], log_sum[2], mean[2];
    clear(sums);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int query = p.first + p.row + p.lane / 4 + 8 * half;
        const u64 at = ((u64)p.b * h.nh + p.head) * h.t + query;
        // p = 0 behind the last query.
        log_sum[half] = query < h.t ? lse[at] * LOG2_E : INF;
        mean[half] = means[p.row + p.lane / 4 + 8 * half];
    }
    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) {
            const int next = (tile + 1) * SIDE;
            k[tile + 1].fill<SIDE, THREADS>(keys + next * p.width, p.width, h.t - next);
            v[tile + 1].fill<SIDE, THREADS>(values + next * p.width, p.width, h.t - next);
            copies_end();
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        writes_end();
        __syncthreads();
        float scores[1][NT][4], slopes[1][NT][4];
        products_begin();
        block_rows(scores, q, k[tile]);
        block_rows(slopes, d, v[tile]);
        products_end();
        hold(scores);
        hold(slopes);
        if (tile + 1 == tiles) {
            hide(scores[0], tile * SIDE, p.first + p.row);
        }
#pragma unroll
        for (int n = 0; n < NT; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float weight = exp2_fast(fmaf(scores[0][n][i], scale * LOG2_E, -log_sum[i / 2]));
                slopes[0][n][i] = weight * (slopes[0][n][i] - mean[i / 2]);
            }
        }
        const LeftFactor<> left(slopes);
        hold(sums);
        products_begin();
        block_columns(sums, left, k[tile]);
        products_end();
        hold(sums);
        __syncthreads();
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int query = p.first + p.row + p.lane / 4 + 8 * half;
        if (query >= h.t) {
            continue;
        }
        bf16* const to = dqkv + ((u64)p.b * h.t + query) * p.width + p.head * HS + p.lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < HS / 8; n++) {
            store_pair(to + 8 * n, sums[0][n][2 * half] * scale, sums[0][n][2 * half + 1] * scale);
        }
    }
    float* const mine = row_sums + ((u64)p.b * gridDim.x + p.first / SIDE) * p.width;
    sum_rows(mine + p.head * HS, sums[0], scale, p, h.t - p.first, (float (*)[HS])shared);
}

// Transposed, as in attention.cu: pᵀ and dscoreᵀ have a row for each key.
// dv = Σ p·dout, dk = scale · Σ p·(dout·v − delta)·q, and the sums of rows as above.  Grid: (⌈T / 64⌉, NKV, B). Dynamic shared memory: keys, values, two tiles of q, two of
// dout, and for both tiles in flight their queries' lse, scaled, and delta.
extern "C" __global__ void TOGETHER(3)
    attention_blocks_grad_keys(bf16* dqkv, float* row_sums, const bf16* dout, const bf16* qkv, const float* lse, const float* delta,
                               Heads h) {
    DYNAMIC_SHARED_AT(shared, TILE_PLACE);
    const Tile<HS> k{(bf16*)shared}, v{k.data + SIDE * HS};
    const Stages<HS, SIDE> q{v.data + SIDE * HS}, d{q.data + 2 * SIDE * HS};
    float* const rows = (float*)(d.data + 2 * SIDE * HS);
    const Place p(qkv, h, blockIdx.x * SIDE, false);
    const int group = h.nh / h.nkv, first_tile = blockIdx.x, tiles = (int)(gridDim.x - blockIdx.x);
    const u64 key_at = (u64)(h.nh + p.kv_head) * HS;
    k.fill<SIDE, THREADS>(p.base + p.first * p.width + key_at, p.width, h.t - p.first);
    v.fill<SIDE, THREADS>(p.base + p.first * p.width + key_at + (u64)h.nkv * HS, p.width, h.t - p.first);
    // Tiles of queries at or behind the first key, for each head of the group.
    auto fetch = [&](int step) {
        const int head = p.kv_head * group + step / tiles, query = (first_tile + step % tiles) * SIDE;
        q[step].fill<SIDE, THREADS>(p.base + query * p.width + head * HS, p.width, h.t - query);
        d[step].fill<SIDE, THREADS>(dout + ((u64)p.b * h.t + query) * p.out_width + head * HS, p.out_width, h.t - query);
        copies_end();
        if (threadIdx.x < SIDE) {
            const bool valid = query + (int)threadIdx.x < h.t;
            const u64 at = ((u64)p.b * h.nh + head) * h.t + query + threadIdx.x;
            // p = 0 behind the last query.
            rows[(step & 1) * 2 * SIDE + threadIdx.x] = valid ? lse[at] * LOG2_E : INF;
            rows[((step & 1) * 2 + 1) * SIDE + threadIdx.x] = valid ? delta[at] : 0.0f;
        }
    };
    fetch(0);

    const float scale = rsqrtf((float)HS);
    float dk[1][HS / 8][4], dv[1][HS / 8][4];
    clear(dk);
    clear(dv);
    for (int step = 0; step < group * tiles; step++) {
        if (step + 1 < group * tiles) {
            fetch(step + 1);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        writes_end();
        __syncthreads();
        const float* const log_sum = rows + (step & 1) * 2 * SIDE;
        const float* const mean = log_sum + SIDE;
        float weights[1][NT][4], slopes[1][NT][4];
        products_begin();
        block_rows(weights, k, q[step]);
        block_rows(slopes, v, d[step]);
        products_end();
        hold(weights);
        hold(slopes);
        // The first tile of each head has the block's own positions.
        const bool diagonal = step % tiles == 0;
#pragma unroll
        for (int n = 0; n < NT; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int column = 8 * n + p.lane % 4 * 2 + i % 2;
                const float weight = exp2_fast(fmaf(weights[0][n][i], scale * LOG2_E, -log_sum[column]));
                const bool hidden = diagonal && p.row + p.lane / 4 + i / 2 * 8 > column;
                weights[0][n][i] = hidden ? 0.0f : weight;
                slopes[0][n][i] = weights[0][n][i] * (slopes[0][n][i] - mean[column]);
            }
        }
        const LeftFactor<> of_values(weights), of_keys(slopes);
        hold(dv);
        hold(dk);
        products_begin();
        block_columns(dv, of_values, d[step]);
        block_columns(dk, of_keys, q[step]);
        products_end();
        hold(dv);
        hold(dk);
        __syncthreads();
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int key = p.first + p.row + p.lane / 4 + 8 * half;
        if (key >= h.t) {
            continue;
        }
        bf16* const to = dqkv + ((u64)p.b * h.t + key) * p.width + key_at + p.lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < HS / 8; n++) {
            store_pair(to + 8 * n, dk[0][n][2 * half] * scale, dk[0][n][2 * half + 1] * scale);
            store_pair(to + (u64)h.nkv * HS + 8 * n, dv[0][n][2 * half], dv[0][n][2 * half + 1]);
        }
    }
    float* const mine = row_sums + ((u64)p.b * gridDim.x + p.first / SIDE) * p.width + key_at;
    sum_rows(mine, dk[0], scale, p, h.t - p.first, (float (*)[HS])shared);
    sum_rows(mine + h.nkv * HS, dv[0], 1.0f, p, h.t - p.first, (float (*)[HS])shared + THREADS / WARP);
}
