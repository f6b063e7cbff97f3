// Attention of many rows of a sequence over the paged cache, on tensor cores: q in bf16, keys and values in bf16 or f16, heads
// of 64 or 128. A block takes 64 lines, each a query with one of the heads that share a key head, so that a key is read once
// for the whole group. Tiles of 64 positions begin at multiples of 64, so a row's bits depend on its own sequence alone.
//
// Bound by arithmetic: 4·NH·HS flop a pair of query and position. Llama 8B, a prompt of 2,048: 34 GFLOP a layer, 1.1 TFLOP in
// all, 1.1 ms at an H100's peak and about 1.8 ms at the rate of mma.sync, beside some 45 ms for the products.
#include "paged.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;
constexpr int LINES = 16 * WARPS;
constexpr int KEYS = 64;
constexpr int NT = KEYS / 8;

// Rows of one sequence at consecutive positions.
struct Chunk {
    u32 row, rows, sequence, position;
};

// Begins to copy keys and values of positions key .. key + 64 of a sequence; zeros from `end` on.
template <int HS>
__device__ __forceinline__ void fetch(Tile<HS> k, Tile<HS> v, const Pages& pages, const Batch& batch, u32 sequence,
                                      int head, int key, int end) {
    constexpr int PIECES = HS / 8;
#pragma unroll
    for (int first = 0; first < KEYS * PIECES; first += THREADS) {
        const int i = first + (int)threadIdx.x;
        // Neighbouring threads take neighbouring positions of keys, and neighbouring pieces of values.
        const int key_row = i % KEYS, key_piece = i / KEYS, value_row = i / PIECES, value_piece = i % PIECES;
        const bool has_key = key + key_row < end, has_value = key + value_row < end;
        const bf16* from_k = (const bf16*)pages.k;
        const bf16* from_v = (const bf16*)pages.v;
        if (has_key) {
            const u64 at = head_first(pages, page_of(batch, pages, sequence, key + key_row), head) * HS;
            from_k += at + ((u64)key_piece * pages.page_len + (key + key_row) % pages.page_len) * 8;
        }
        if (has_value) {
            const u64 at = head_first(pages, page_of(batch, pages, sequence, key + value_row), head) * HS;
            from_v += at + (u64)((key + value_row) % pages.page_len) * HS + value_piece * 8;
        }
        copy16_async(k.piece(key_row, key_piece), from_k, has_key);
        copy16_async(v.piece(value_row, value_piece), from_v, has_value);
    }
    copies_end();
}

// out: (N,NH·HS)  qkv: (N,(NH+2·NKV)·HS), both bf16. Grid: (chunks, NKV); a chunk has at most 64 / (NH/NKV) rows.
// Dynamic shared memory: tiles of 64 × HS: q, two of keys, two of values.
template <class F, int HS>
__device__ __forceinline__ void prefill(bf16* out, Pages pages, const bf16* qkv, Batch batch, const Chunk* chunks,
                                        QueryHeads h) {
    DYNAMIC_SHARED(shared);
    const Tile<HS> q{(bf16*)shared};
    const Stages<HS, KEYS> k{q.data + LINES * HS}, v{k.data + 2 * KEYS * HS};
    const Chunk chunk = chunks[blockIdx.x];
    const int group = h.nh / h.nkv, head = blockIdx.y, lane = threadIdx.x % WARP, line0 = threadIdx.x / WARP * 16;
    const int lines = chunk.rows * group, end = chunk.position + chunk.rows, tiles = (end + KEYS - 1) / KEYS;
    fetch(k[0], v[0], pages, batch, chunk.sequence, head, 0, end);
    for (int i = threadIdx.x; i < LINES * HS / 2; i += THREADS) {
        const int line = i / (HS / 2), d = i % (HS / 2) * 2;
        u32 pair = 0;
        if (line < lines) {
            const bf16* const from =
                qkv + (u64)(chunk.row + line / group) * (h.nh + 2 * h.nkv) * HS + (head * group + line % group) * HS + d;
            pair = F::pair(to_float(from[0]), to_float(from[1]));
        }
        *(u32*)(q.piece(line, d / 8) + d % 8) = pair;
    }
    const float scale = LOG2_E * rsqrtf((float)HS);
    float sums[1][HS / 8][4], top[2] = {-INF, -INF}, total[2] = {0.0f, 0.0f};
    clear(sums);
    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) {
            fetch(k[tile + 1], v[tile + 1], pages, batch, chunk.sequence, head, (tile + 1) * KEYS, end);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        float scores[1][NT][4];
        clear(scores);
        multiply_rows<F>(scores, q, line0, k[tile]);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int position = chunk.position + (line0 + lane / 4 + 8 * half) / group;
            float highest = top[half];
#pragma unroll
            for (int n = 0; n < NT; n++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float& score = scores[0][n][2 * half + i];
                    score = tile * KEYS + 8 * n + lane % 4 * 2 + i <= position ? score * scale : -INF;
                    highest = fmaxf(highest, score);
                }
            }
            const float now = quad_max(highest), shrink = exp2_fast(top[half] - now);
            float sum = 0.0f;
            top[half] = now;
#pragma unroll
            for (int n = 0; n < NT; n++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float& score = scores[0][n][2 * half + i];
                    score = exp2_fast(score - now);
                    sum += score;
                }
            }
            total[half] = total[half] * shrink + sum;
#pragma unroll
            for (int n = 0; n < HS / 8; n++) {
                sums[0][n][2 * half] *= shrink;
                sums[0][n][2 * half + 1] *= shrink;
            }
        }
        multiply_columns<F>(sums, scores, v[tile]);
        __syncthreads();
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int line = line0 + lane / 4 + 8 * half;
        const float inverse = 1.0f / quad_sum(total[half]);
        if (line < lines) {
            bf16* const to =
                out + (u64)(chunk.row + line / group) * h.nh * HS + (head * group + line % group) * HS + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < HS / 8; n++) {
                *(u32*)(to + 8 * n) = round_pair(sums[0][n][2 * half] * inverse, sums[0][n][2 * half + 1] * inverse);
            }
        }
    }
}

#define PREFILL(name, F, HS)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        name(bf16* out, Pages pages, const bf16* qkv, Batch batch, const Chunk* chunks, QueryHeads h) {                  \
        prefill<F, HS>(out, pages, qkv, batch, chunks, h);                                                               \
    }
PREFILL(paged_prefill_f16_64, InF16, 64)
PREFILL(paged_prefill_f16_128, InF16, 128)
PREFILL(paged_prefill_bf16_64, InBf16, 64)
PREFILL(paged_prefill_bf16_128, InBf16, 128)
