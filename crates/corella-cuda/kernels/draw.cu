// Tokens from rows of logits, to the bit as corella-infer's sampler draws them: weights are whole numbers, whose sums do not
// depend on their order, so integer atomics are allowed here; every filter keeps the likeliest tokens down to a cut.
//
// Three kernels: single logits are changed and the largest is found; every token gets its weight, spread over the card, because
// cards for games have few units for f64; a block per draw makes the cuts and picks. The last reads 12 bytes a token seven times
// for each cut, from the L2 cache: some 70 µs for 128,256 tokens, where one row of logits takes 40 µs over PCIe before the
// processor begins.
#include "common.cuh"

#define THREADS 512
#define WARPS (THREADS / WARP)
#define BINS 2048
// Weight of the likeliest token.
#define ONE (1ull << 44)
// So many times the temperature below the largest logit a token has no weight.
#define DEEPEST 32.0f
// The token of a row that is not numbers; also more than every token.
#define NO_TOKEN 0xffffffffu

// As struct Draw of src/infer/draw.rs.
struct Draw {
    // Row of the logits, and how many of its first tokens may be drawn.
    u32 row, tokens;
    // 0: the likeliest.
    float temperature;
    // No filter: as many as there are tokens.
    u32 top_k;
    // No filter: 1.
    double top_p;
    // Smallest weight that min-p keeps.
    u64 least;
    u64 bits;
    // Its edits.
    u32 first_edit, edits;
};

// As struct Edit of src/infer/draw.rs.
struct Edit {
    u32 id;
    // Whether the bias is added, the penalty taken, or the token impossible.
    u32 kinds;
    float bias, repetition, taken;
};

template <class T>
__device__ __forceinline__ T from_lane(T x, int mask) {
    return __shfl_xor_sync(0xffffffffu, x, mask);
}

// Σ over the block, the same in every thread.
__device__ __forceinline__ u64 block_total(u64 x, u64* sums) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        x += from_lane(x, mask);
    }
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
        sums[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    u64 total = 0;
    for (int i = 0; i < WARPS; i++) {
        total += sums[i];
    }
    return total;
}

// ---- logits are changed, and the largest found ---------------------------------------------------------------------

// A block per draw. tops: the largest logits, not a number where the first logit is not: what all of them come from makes each
// of them one. tokens: of greedy draws the first with it.
extern "C" __global__ void __launch_bounds__(THREADS)
    draw_prepare(u32* tokens, float* tops, float* logits, const Draw* draws, const Edit* edits, u64 v) {
    __shared__ float largest[WARPS];
    __shared__ u32 first[WARPS];
    const Draw d = draws[blockIdx.x];
    float* const row = logits + d.row * v;
    const float before = row[0];
    __syncthreads();
    for (u32 i = threadIdx.x; i < d.edits; i += THREADS) {
        const Edit e = edits[d.first_edit + i];
        float x = row[e.id];
        if (e.kinds & 1u) {
            x = __fadd_rn(x, e.bias);
        }
        if (e.kinds & 2u) {
            x = __fadd_rn(x > 0.0f ? x / e.repetition : __fmul_rn(x, e.repetition), -e.taken);
        }
        row[e.id] = e.kinds & 4u ? -INF : x;
    }
    __syncthreads();
    // What is not a number is not the largest.
    float top = -INF;
    for (u32 i = threadIdx.x; i < d.tokens; i += THREADS) {
        top = row[i] > top ? row[i] : top;
    }
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        const float other = from_lane(top, mask);
        top = other > top ? other : top;
    }
    if (threadIdx.x % WARP == 0) {
        largest[threadIdx.x / WARP] = top;
    }
    __syncthreads();
    for (int i = 0; i < WARPS; i++) {
        top = largest[i] > top ? largest[i] : top;
    }
    const bool broken = before != before;
    if (threadIdx.x == 0) {
        tops[blockIdx.x] = broken ? before : top;
    }
    if (d.temperature != 0.0f) {
        return;
    }
    u32 id = NO_TOKEN;
    for (u32 i = threadIdx.x; i < d.tokens; i += THREADS) {
        id = row[i] == top && i < id ? i : id;
    }
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        const u32 other = from_lane(id, mask);
        id = other < id ? other : id;
    }
    if (threadIdx.x % WARP == 0) {
        first[threadIdx.x / WARP] = id;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < WARPS; i++) {
            id = first[i] < id ? first[i] : id;
        }
        tokens[blockIdx.x] = broken ? NO_TOKEN : id == NO_TOKEN ? 0 : id;
    }
}

// ---- weights ---------------------------------------------------------------------------------------------------------

__device__ __forceinline__ double minus(double x, double y) {
    return __dadd_rn(x, -y);
}

// e^x, 0 below −708, capped at 1: corella-ops' cpu/draw.rs, rounding for rounding (no product is contracted with a sum).
__device__ __forceinline__ double exp_exactly(double x) {
    const double ROUND = 6755399441055744.0;
    const double clamped = x < -708.0 ? -708.0 : x > 0.0 ? 0.0 : x;
    const double shifted = __dadd_rn(__dmul_rn(clamped, 1.4426950408889634), ROUND), n = minus(shifted, ROUND);
    const double r = minus(minus(clamped, __dmul_rn(n, 0.6931471803691238)), __dmul_rn(n, 1.9082149292705877e-10));
    const double terms[10] = {1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0,
                              1.0 / 24.0,     1.0 / 6.0,     1.0 / 2.0,    1.0,         1.0};
    double p = 1.0 / 3628800.0;
#pragma unroll
    for (int i = 0; i < 10; i++) {
        p = __dadd_rn(__dmul_rn(p, r), terms[i]);
    }
    const u64 exponent = (u64)__double_as_longlong(shifted) - (u64)__double_as_longlong(ROUND) + 1023;
    const double power = __longlong_as_double((long long)(exponent << 52));
    return x >= -708.0 ? __dmul_rn(p, power) : 0.0;
}

// weights[draw,i] = round(2⁴⁴ · e^((logits[i] − top) / temperature)).   weights: (draws,v). Grid: (some, draws).
extern "C" __global__ void draw_weights(u64* weights, const float* logits, const float* tops, const Draw* draws, u64 v) {
    const Draw d = draws[blockIdx.y];
    if (d.temperature == 0.0f) {
        return;
    }
    const double INTO_MANTISSA = 4503599627370496.0;
    const double top = (double)tops[blockIdx.y], inverse = __ddiv_rn(1.0, (double)d.temperature);
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < d.tokens; i += gridDim.x * blockDim.x) {
        const double x = __dmul_rn(minus((double)logits[d.row * v + i], top), inverse);
        const double scaled = __dadd_rn(__dmul_rn(exp_exactly(x), (double)ONE), INTO_MANTISSA);
        weights[blockIdx.y * v + i] = (u64)__double_as_longlong(scaled) - (u64)__double_as_longlong(INTO_MANTISSA);
    }
}

// ---- cuts ------------------------------------------------------------------------------------------------------------

// Keys are in the order of likelihood: the larger logit, then the lower id.
__device__ __forceinline__ u64 key_of(float logit, u32 id) {
    const u32 bits = float_to_bits(logit), ordered = bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
    return (u64)ordered << 32 | (0xffffffffu - id);
}

struct Row {
    const float* logits;
    const u64* weights;
    u32 tokens;
    float top, bins_per_logit;
    // What filters have left: keys from `cut` on with weights from `least` on. Never a token without weight.
    u64 cut, least;

    __device__ __forceinline__ u64 left(u32 id) const {
        const u64 weight = weights[id];
        return weight >= least && key_of(logits[id], id) >= cut ? weight : 0;
    }
    __device__ __forceinline__ u64 total(u64* sums) const {
        u64 sum = 0;
        for (u32 id = threadIdx.x; id < tokens; id += THREADS) {
            sum += left(id);
        }
        return block_total(sum, sums);
    }
};

// The key of the last token, from the likeliest on, with which their weights (or, if `counts`, their number) reach `goal`; the
// row's cut where they never do. First by how far logits lie below the largest, then by the digits of keys.
__device__ __forceinline__ u64 cut_at(const Row& row, bool counts, u64 goal, u64* bins, u64* found) {
    u64 prefix = 0;
    u32 depth = 0;
#pragma unroll 1
    for (int level = 0; level < 7; level++) {
        const int shift = max(64 - 11 * level, 0), above = max(64 - 11 * (level - 1), 0), width = above - shift;
        for (u32 i = threadIdx.x; i < BINS; i += THREADS) {
            bins[i] = 0;
        }
        __syncthreads();
        for (u32 id = threadIdx.x; id < row.tokens; id += THREADS) {
            const u64 weight = row.left(id);
            if (weight == 0) {
                continue;
            }
            const u64 key = key_of(row.logits[id], id);
            const u32 deep = (u32)fminf((row.top - row.logits[id]) * row.bins_per_logit, (float)(BINS - 1));
            if (level == 0) {
                atomicAdd(&bins[deep], counts ? 1 : weight);
            } else if (deep == depth && (level == 1 || key >> above == prefix)) {
                atomicAdd(&bins[(1 << width) - 1 - (int)(key >> shift & ((1u << width) - 1))], counts ? 1 : weight);
            }
        }
        __syncthreads();
        // The first warp finds the bin: each lane adds up its share of them, and the one in which the goal lies looks closer.
        if (threadIdx.x < WARP) {
            const u32 first = threadIdx.x * (BINS / WARP);
            u64 own = 0;
            for (u32 i = 0; i < BINS / WARP; i++) {
                own += bins[first + i];
            }
            u64 before = 0;
            for (int lane = 0; lane < WARP; lane++) {
                const u64 other = __shfl_sync(0xffffffffu, own, lane);
                before += lane < (int)threadIdx.x ? other : 0;
            }
            if (threadIdx.x == WARP - 1 && before + own < goal) {
                found[0] = BINS;
            }
            if (before < goal && before + own >= goal) {
                u32 i = first;
                while (before + bins[i] < goal) {
                    before += bins[i];
                    i++;
                }
                found[0] = i;
                found[1] = before;
            }
        }
        __syncthreads();
        const u64 bin = found[0];
        if (bin == BINS) {
            return row.cut;
        }
        goal -= found[1];
        if (level == 0) {
            depth = (u32)bin;
        } else {
            prefix = prefix << width | ((1u << width) - 1 - (u32)bin);
        }
        // `found` is read by all before it is written again: barriers of the next level lie between.
    }
    return prefix;
}

// A block per draw: cuts, then the token whose weights, added up in the order of ids, reach the random place.
// There is one block for each draw: left alone, the compiler spills for the sake of three a multiprocessor.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    draw_select(u32* tokens, const float* logits, const u64* weights, const float* tops, const Draw* draws, u64 v) {
    __shared__ u64 bins[BINS];
    __shared__ u64 sums[WARPS];
    __shared__ u64 found[2];
    const Draw d = draws[blockIdx.x];
    if (d.temperature == 0.0f) {
        return;
    }
    Row row = {logits + d.row * v, weights + blockIdx.x * v, d.tokens, tops[blockIdx.x], BINS / (DEEPEST * d.temperature), 0, 1};
    u64 total = row.total(sums);
    if (total > 0 && d.top_k < d.tokens) {
        row.cut = cut_at(row, true, d.top_k, bins, found);
        total = row.total(sums);
    }
    if (total > 0 && d.top_p < 1.0) {
        const u64 goal = (u64)ceil(__dmul_rn(d.top_p, (double)total));
        row.cut = cut_at(row, false, goal < 1 ? 1 : goal > total ? total : goal, bins, found);
        total = row.total(sums);
    }
    if (total > 0 && d.least > 1) {
        row.least = d.least;
        total = row.total(sums);
    }
    // Nothing has any weight: every logit is −∞, or none is a number.
    if (total == 0) {
        if (threadIdx.x == 0) {
            tokens[blockIdx.x] = row.top != row.top ? NO_TOKEN : 0;
        }
        return;
    }
    const u64 place = __umul64hi(d.bits, total);
    // A warp for each stretch of ids.
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, share = (d.tokens + THREADS - 1) / THREADS * WARP;
    const u32 first = min(warp * share, d.tokens), last = min(first + share, d.tokens);
    u64 own = 0;
    for (u32 id = first + lane; id < last; id += WARP) {
        own += row.left(id);
    }
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        own += from_lane(own, mask);
    }
    __syncthreads();
    if (lane == 0) {
        sums[warp] = own;
    }
    __syncthreads();
    u64 before = 0;
    for (u32 i = 0; i < warp; i++) {
        before += sums[i];
    }
    if (place < before || place >= before + own) {
        return;
    }
    for (u32 base = first; base < last; base += WARP) {
        const u64 weight = base + lane < last ? row.left(base + lane) : 0;
        u64 sum = weight;
#pragma unroll
        for (int by = 1; by < WARP; by *= 2) {
            const u64 other = __shfl_up_sync(0xffffffffu, sum, by);
            sum += (int)lane >= by ? other : 0;
        }
        if (place >= before + sum - weight && place < before + sum) {
            tokens[blockIdx.x] = base + lane;
        }
        before += __shfl_sync(0xffffffffu, sum, WARP - 1);
    }
}
