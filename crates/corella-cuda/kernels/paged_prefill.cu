// Attention of many rows of a sequence over the paged cache, on tensor cores: q in bf16, keys and values in bf16 or f16, heads
// of 64 or 128. A block takes 64 lines, each a query with one of the heads that share a key head, so that a key is read once
// for the whole group. Tiles of 64 positions begin at multiples of 64, so a row's bits depend on its own sequence alone.
//
// Bound by arithmetic: 4·NH·HS flop a pair of query and position. Llama 8B, a prompt of 2,048: 34 GFLOP a layer, 1.1 TFLOP in
// all, 1.1 ms at an H100's peak and about 1.8 ms at the rate of mma.sync, beside some 45 ms for the products.
#include "paged.cuh"
#include "softmax.cuh"
#include "warpgroup.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;
constexpr int LINES = 16 * WARPS;
constexpr int KEYS = 64;
constexpr int NT = KEYS / 8;

// Rows of one sequence at consecutive positions.
struct Chunk {
    u32 row, rows, sequence, position;
};

// A tile of 64 rows of HS numbers: a part for each 64 of them, as the warps of a block multiply them together.
template <int HS>
struct Wide {
    bf16* data;

    __device__ __forceinline__ Tile<64> operator[](int part) const {
        return Tile<64>{data + part * 64 * 64};
    }
    __device__ __forceinline__ bf16* piece(int row, int piece) const {
        return (*this)[piece / 8].piece(row, piece % 8);
    }
    // The tile behind it.
    __device__ __forceinline__ Wide next(int tiles) const {
        return Wide{data + tiles * 64 * HS};
    }
};

// Where the keys of a position begin, and its place in the page; finding them takes divisions and a look into the table.
struct Spot {
    u64 first;
    int place, valid;
};

__device__ __forceinline__ void find(Spot* spots, const Pages& pages, const Batch& batch, u32 sequence, int head, int key, int end) {
    const int row = threadIdx.x, position = key + row;
    if (row < KEYS) {
        spots[row].valid = position < end;
        if (position < end) {
            spots[row].first = head_first(pages, page_of(batch, pages, sequence, position), head);
            spots[row].place = position % pages.page_len;
        }
    }
}

// Begins to copy keys and values of a tile's positions; zeros where there is none.
template <int HS>
__device__ __forceinline__ void fetch(Wide<HS> k, Wide<HS> v, const Pages& pages, const Spot* spots) {
    constexpr int PIECES = HS / 8;
    const Spot key = spots[threadIdx.x % KEYS];
    const bf16* const key_at = (const bf16*)pages.k + (key.valid ? key.first * HS + key.place * 8 : 0);
#pragma unroll
    for (int first = 0; first < KEYS * PIECES; first += THREADS) {
        const int i = first + (int)threadIdx.x;
        // Neighbouring threads take neighbouring positions of keys, and neighbouring pieces of values.
        const int key_piece = i / KEYS, value_row = i / PIECES, value_piece = i % PIECES;
        const Spot value = spots[value_row];
        const bf16* const value_at = (const bf16*)pages.v + (value.valid ? (value.first + value.place) * HS + value_piece * 8 : 0);
        copy16_async(k.piece(threadIdx.x % KEYS, key_piece), key.valid ? key_at + (u64)key_piece * pages.page_len * 8 : key_at,
                     key.valid);
        copy16_async(v.piece(value_row, value_piece), value_at, value.valid);
    }
    copies_end();
}

// out: (N,NH·HS)  qkv: (N,(NH+2·NKV)·HS), both bf16. Grid: (chunks, NKV); a chunk has at most 64 / (NH/NKV) rows.
// Dynamic shared memory: tiles of 64 × HS: q, two of keys, two of values.
template <class F, int HS>
__device__ __forceinline__ void prefill(bf16* out, Pages pages, const bf16* qkv, Batch batch, const Chunk* chunks,
                                        QueryHeads h) {
    DYNAMIC_SHARED_AT(shared, TILE_PLACE);
    constexpr int PARTS = HS / 64;
    const Wide<HS> q{(bf16*)shared}, k = q.next(1), v = k.next(2);
    __shared__ Spot spots[2][KEYS];
    // The last rows see most keys: they begin first.
    const Chunk chunk = chunks[gridDim.x - 1 - blockIdx.x];
    const int group = h.nh / h.nkv, head = blockIdx.y, lane = threadIdx.x % WARP, line0 = threadIdx.x / WARP * 16;
    const int lines = chunk.rows * group, end = chunk.position + chunk.rows, tiles = (end + KEYS - 1) / KEYS;
    find(spots[0], pages, batch, chunk.sequence, head, 0, end);
    find(spots[1], pages, batch, chunk.sequence, head, KEYS, end);
    __syncthreads();
    fetch(k, v, pages, spots[0]);
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
    float sums[PARTS][1][8][4], top[2] = {-INF, -INF}, total[2] = {0.0f, 0.0f};
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        clear(sums[part]);
    }
    for (int tile = 0; tile < tiles; tile++) {
        const int key = tile * KEYS, stage = tile & 1;
        if (tile + 1 < tiles) {
            fetch(k.next(1 - stage), v.next(1 - stage), pages, spots[1 - stage]);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        writes_end();
        __syncthreads();
        // This tile's were read before the barrier.
        find(spots[stage], pages, batch, chunk.sequence, head, key + 2 * KEYS, end);
        float scores[1][NT][4];
        products_begin();
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            block_rows<F>(scores, q[part], k.next(stage)[part], part > 0);
        }
        products_end();
        hold(scores);
        // The first lines may not see the tile's last keys.
        if (key + KEYS > chunk.position + line0 / group) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int position = chunk.position + (line0 + lane / 4 + 8 * half) / group;
#pragma unroll
                for (int n = 0; n < NT; n++) {
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        if (key + 8 * n + lane % 4 * 2 + i > position) {
                            scores[0][n][2 * half + i] = -INF;
                        }
                    }
                }
            }
        }
        const float shrink[2] = {soften(scores[0], 0, top, total, scale), soften(scores[0], 1, top, total, scale)};
        const LeftFactor<F> weights(scores);
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            scale_rows(sums[part][0], shrink);
            hold(sums[part]);
        }
        products_begin();
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            block_columns(sums[part], weights, v.next(stage)[part]);
        }
        products_end();
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            hold(sums[part]);
        }
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
                const float(&sum)[4] = sums[n / 8][0][n % 8];
                *(u32*)(to + 8 * n) = round_pair(sum[2 * half] * inverse, sum[2 * half + 1] * inverse);
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
