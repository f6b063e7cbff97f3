// Attention of single rows over the paged cache. The positions of a sequence are cut into stretches of 256 at absolute places;
// a block takes one stretch for all query heads of a key head, so that each key is read once, and a second kernel puts the
// stretches together in ascending order. Where no row sees more than one there is nothing to put together, and the first kernel
// writes the result itself, with the same bits. So a row's bits depend on its own sequence alone.
//
// Bound by memory: 2·NKV·HS·2 bytes a position and layer. Llama 8B at 2,048 positions: 8.4 MB a layer, 2.5 µs on an H100,
// 268 MB or 80 µs a token; the FMAs, 4·NH·HS a position, are a tenth of what the card can do meanwhile.
#include "paged.cuh"

#define THREADS 128

// Loads of the cache that a thread has on their way at once. A step of one sequence has a block for each key head, so a block's
// time is that of its loads one after the other: a head of 128 is read in one go, a stretch's values in two.
template <int HEADS>
struct Loads {
    static constexpr int COUNT = HEADS > 4 ? 8 : 16;
};

// What a stretch gives for a query head: Σ exp(score − largest) times values (HS), its largest score, and Σ exp(score − largest).
// partial: (rows listed, NH, stretches, HS + 2).
__device__ __forceinline__ float* partial_at(float* partial, u64 listed, int head, int stretch, QueryHeads h, int stretches) {
    at_activations();
    return partial + ((listed * h.nh + head) * stretches + stretch) * (h.hs + 2);
}

// Dynamic shared memory: q (HEADS,HSP), weights (HEADS,256), sums (THREADS·8·HEADS) in f32.
// out: (N,NH·HS), written where there is no `partial`, and the grid has one stretch then.
// Grid: (rows listed, NKV·passes, stretches): a pass takes HEADS query heads of the group.
template <int KIND, int HEADS>
__device__ __forceinline__ void decode(Array out, float* partial, Pages pages, Array qkv, Batch batch, const u32* list,
                                       QueryHeads h) {
    constexpr int LOADS = Loads<HEADS>::COUNT;
    const int group = h.nh / h.nkv, passes = (group + HEADS - 1) / HEADS;
    const int kv_head = blockIdx.y / passes, first_head = kv_head * group + blockIdx.y % passes * HEADS;
    const int heads = min(HEADS, (kv_head + 1) * group - first_head);
    let_next_kernel_start();
    const u64 row = list[blockIdx.x];
    const int position = batch.positions[row], first = blockIdx.z * STRETCH;
    const int count = min(STRETCH, position + 1 - first), pieces = pages.hsp / 8, tid = threadIdx.x;
    // Where each position lies, found once: the loops below then have several loads on their way. No kernel writes what is read here.
    __shared__ u64 spots[STRETCH];
    __shared__ float totals[HEADS];
    if (first <= position) {
        const u32 sequence = batch.sequences[row];
        for (int s = tid; s < count; s += THREADS) {
            const u32 page = page_of(batch, pages, sequence, first + s);
            spots[s] = head_first(pages, page, kv_head) + (first + s) % pages.page_len;
            // The first position of each page asks for the head's keys and values on it.
            if (s == 0 || (first + s) % pages.page_len == 0) {
                const u32 bytes = pages.page_len * pages.hsp * (KIND == KV_Q8 ? 1 : 2);
                if (bytes % 16 == 0) {
                    const u64 at = head_first(pages, page, kv_head) / pages.page_len * bytes;
                    bring_near((const u8*)pages.k + at, bytes);
                    bring_near((const u8*)pages.v + at, bytes);
                }
            }
        }
    }
    wait_for_kernels_before();
    if (first > position) {
        if (!partial) {
            for (int i = tid; i < heads * h.hs; i += THREADS) {
                store(out, (row * h.nh + first_head) * h.hs + i, 0.0f);
            }
        }
        return;
    }
    DYNAMIC_SHARED(shared);
    float* const q = (float*)shared;
    float* const weights = q + HEADS * pages.hsp;
    float* const sums = weights + HEADS * STRETCH;
    const float scale = rsqrtf((float)h.hs);
    for (int i = tid; i < HEADS * pages.hsp; i += THREADS) {
        const int head = i / pages.hsp, d = i % pages.hsp;
        const bool valid = head < heads && d < h.hs;
        q[i] = valid ? load(qkv, row * (u64)(h.nh + 2 * h.nkv) * h.hs + (u64)(first_head + head) * h.hs + d) : 0.0f;
    }
    __syncthreads();
    // A thread for each position: its scores with all heads.
    for (int s = tid; s < STRETCH; s += THREADS) {
        float scores[HEADS];
#pragma unroll
        for (int head = 0; head < HEADS; head++) {
            scores[head] = 0.0f;
        }
        if (s < count) {
            const int place = (first + s) % pages.page_len;
            const u64 at = spots[s] - place;
#pragma unroll 1
            for (int first_piece = 0; first_piece < pieces; first_piece += LOADS) {
                CachedRaw keys[LOADS];
#pragma unroll
                for (int j = 0; j < LOADS; j++) {
                    // Those behind the last repeat it, and are not used.
                    const int piece = min(first_piece + j, pieces - 1);
                    keys[j] = cached_raw<KIND>(pages.k, at * pages.hsp + ((u64)piece * pages.page_len + place) * 8);
                }
#pragma unroll
                for (int j = 0; j < LOADS; j++) {
                    if (first_piece + j < pieces) {
                        const Packet key = cached_numbers<KIND>(keys[j]);
#pragma unroll
                        for (int head = 0; head < HEADS; head++) {
                            const Packet query = load8(q + head * pages.hsp + (first_piece + j) * 8);
#pragma unroll
                            for (int i = 0; i < 8; i++) {
                                scores[head] += query.x[i] * key.x[i];
                            }
                        }
                    }
                }
            }
            const float factor = KIND == KV_Q8 ? scale * pages.k_scales[at + place] : scale;
#pragma unroll
            for (int head = 0; head < HEADS; head++) {
                scores[head] *= factor;
            }
        }
#pragma unroll
        for (int head = 0; head < HEADS; head++) {
            weights[head * STRETCH + s] = s < count ? scores[head] : -INF;
        }
    }
    __syncthreads();
    // A warp for each head: scores become weights.
    for (int head = tid / WARP; head < heads; head += THREADS / WARP) {
        float* const w = weights + head * STRETCH;
        float top = -INF, total = 0.0f;
        for (int s = tid % WARP; s < STRETCH; s += WARP) {
            top = fmaxf(top, w[s]);
        }
        top = warp_max(top);
        for (int s = tid % WARP; s < STRETCH; s += WARP) {
            const float weight = s < count ? expf(w[s] - top) : 0.0f;
            w[s] = weight;
            total += weight;
        }
        total = warp_sum(total);
        if (tid % WARP == 0) {
            totals[head] = total;
        }
        if (tid % WARP == 0 && partial) {
            float* const to = partial_at(partial, blockIdx.x, first_head + head, blockIdx.z, h, gridDim.z);
            to[h.hs] = top;
            to[h.hs + 1] = total;
        }
    }
    __syncthreads();
    // A thread for each eight dimensions of every `lines`-th position; then the lines are added up in order.
    const int lines = THREADS / pieces, piece = tid % pieces, line = tid / pieces;
    if (line < lines) {
        float own[HEADS][8];
#pragma unroll
        for (int head = 0; head < HEADS; head++) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                own[head][i] = 0.0f;
            }
        }
#pragma unroll 1
        for (int s0 = line; s0 < count; s0 += LOADS * lines) {
            CachedRaw values[LOADS];
            float factors[LOADS];
#pragma unroll
            for (int j = 0; j < LOADS; j++) {
                const u64 at = spots[min(s0 + j * lines, count - 1)];
                values[j] = cached_raw<KIND>(pages.v, at * pages.hsp + piece * 8);
                factors[j] = KIND == KV_Q8 ? pages.v_scales[at] : 1.0f;
            }
#pragma unroll
            for (int j = 0; j < LOADS; j++) {
                const int s = s0 + j * lines;
                if (s < count) {
                    const Packet value = cached_numbers<KIND>(values[j]);
#pragma unroll
                    for (int head = 0; head < HEADS; head++) {
                        const float weight = weights[head * STRETCH + s] * factors[j];
#pragma unroll
                        for (int i = 0; i < 8; i++) {
                            own[head][i] += weight * value.x[i];
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int head = 0; head < HEADS; head++) {
            Packet all;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                all.x[i] = own[head][i];
            }
            store8(sums + (line * HEADS + head) * pages.hsp + piece * 8, all);
        }
    }
    __syncthreads();
    for (int i = tid; i < heads * h.hs; i += THREADS) {
        const int head = i / h.hs, d = i % h.hs;
        float sum = 0.0f;
        for (int l = 0; l < lines; l++) {
            sum += sums[(l * HEADS + head) * pages.hsp + d];
        }
        if (partial) {
            partial_at(partial, blockIdx.x, first_head + head, blockIdx.z, h, gridDim.z)[d] = sum;
        } else {
            store(out, (row * h.nh + first_head + head) * h.hs + d, sum / totals[head]);
        }
    }
}

#define DECODE(name, KIND, HEADS)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        name(Array out, float* partial, Pages pages, Array qkv, Batch batch, const u32* list, QueryHeads h) {            \
        decode<KIND, HEADS>(out, partial, pages, qkv, batch, list, h);                                                   \
    }
DECODE(paged_decode_f16_1, KV_F16, 1)
DECODE(paged_decode_f16_4, KV_F16, 4)
DECODE(paged_decode_f16_8, KV_F16, 8)
DECODE(paged_decode_bf16_1, KV_BF16, 1)
DECODE(paged_decode_bf16_4, KV_BF16, 4)
DECODE(paged_decode_bf16_8, KV_BF16, 8)
DECODE(paged_decode_q8_1, KV_Q8, 1)
DECODE(paged_decode_q8_4, KV_Q8, 4)
DECODE(paged_decode_q8_8, KV_Q8, 8)

// out = Σ over stretches of exp(top_s − top)·sums_s / Σ exp(top_s − top)·total_s. A warp for each listed row and head.
// out: (N,NH·HS). Grid: ⌈count·NH / 4⌉, blocks of four warps.
extern "C" __global__ void paged_combine(Array out, float* partial, Batch batch, const u32* list, QueryHeads h, u32 count,
                                         int stretches) {
    take_turn();
    const u64 task = (u64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (task >= (u64)count * h.nh) {
        return;
    }
    const u64 listed = task / h.nh, row = list[listed];
    const int head = task % h.nh, position = batch.positions[row], used = position < 0 ? 0 : position / STRETCH + 1;
    float top = -INF, total = 0.0f;
    for (int s = 0; s < used; s++) {
        top = fmaxf(top, partial_at(partial, listed, head, s, h, stretches)[h.hs]);
    }
    for (int s = 0; s < used; s++) {
        const float* const from = partial_at(partial, listed, head, s, h, stretches);
        total += expf(from[h.hs] - top) * from[h.hs + 1];
    }
    for (int d = threadIdx.x % WARP; d < h.hs; d += WARP) {
        float sum = 0.0f;
        for (int s = 0; s < used; s++) {
            const float* const from = partial_at(partial, listed, head, s, h, stretches);
            sum += expf(from[h.hs] - top) * from[d];
        }
        store(out, (row * h.nh + head) * h.hs + d, used > 0 ? sum / total : 0.0f);
    }
}
