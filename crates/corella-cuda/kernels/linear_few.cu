// Linear layers for few rows of x in bf16 (generation): tensor cores multiply 16 rows of the weights with 8·NT rows of x, and
// the weights go from memory to registers once, without shared memory. A sum over k may be taken in any order, so a lane's part
// of a fragment is what lies side by side in memory: columns 8t .. 8t+8 of each stretch of 32. Codes of Q8_0 and Q4_K become
// bf16 exactly, scales multiply a stretch's sum: nothing is rounded but sums in f32.
//
// A row's sums have one order, whatever NT: chunks of columns go to four warps in turn, whose sums are added in their order.
//
// Bound by memory: what the packed weights take (bf16 15.0 GB, Q8_0 8.0, Q4_K 4.2 GB a step of Llama 8B; 3.1 ms for bf16 at an
// H200's 4.8 TB/s). A warp keeps DEPTH chunks of 2 KB (of Q4_K 1.1 KB) on their way. x comes from the caches, once for each
// 16·WARPS_M rows of the weights. For 64 rows of x beside Q4_K products and their sums of x take longer than the weights.
#include "weights.cuh"

// Warps that share a row of the weights.
constexpr int PARTS = 4;
// Rows of the weights of a warp.
constexpr int TILE_ROWS = 16;
// Columns of a stretch: two products.
constexpr int STRETCH = 32;
// Tiles of 8 rows of x whose sums go through shared memory at once.
constexpr int ROUND = 4;

// A lane's two rows of the weights, g and g + 8 of its warp's 16. Rows behind the last repeat it.
struct Source {
    const u8* data[2];
    const u16* scales[2];
    u32 cols;
    // The lane's first column in a stretch.
    u32 inside;
};

// sums += a · b for a stretch, where a lane has eight neighbours of two rows of A in bf16, and of one row of x.
__device__ __forceinline__ void add_product(float (&sums)[4], const u32 (&a)[2][4], const Sixteen& b) {
    multiply_add(sums, a[0], b.x[0], b.x[1]);
    multiply_add(sums, a[1], b.x[2], b.x[3]);
}

__device__ __forceinline__ void write_product(float (&sums)[4], const u32 (&a)[2][4], const Sixteen& b) {
    multiply(sums, a[0], b.x[0], b.x[1]);
    multiply_add(sums, a[1], b.x[2], b.x[3]);
}

// Each form: what a lane reads of a chunk (`load`), and the product of one of its stretches. `Opened` is what all stretches of a
// chunk have in common.
struct FewBrain {
    static constexpr u32 CHUNK = 64;
    // Tiles of x at once.
    template <int NT>
    static constexpr int GROUP = NT < 4 ? NT : 4;
    Sixteen raw[2][2];

    static __device__ __forceinline__ void place(Source& s, int i, const Weight& w, u32 row) {
        s.data[i] = (const u8*)w.data + ((u64)row * w.cols + s.inside) * 2;
    }
    __device__ __forceinline__ void load(const Source& s, u32 chunk) {
#pragma unroll
        for (int stretch = 0; stretch < 2; stretch++) {
            const u32 column = chunk * CHUNK + stretch * STRETCH;
            const bool valid = column + s.inside < s.cols;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                raw[i][stretch] = valid ? stream16(s.data[i] + (u64)column * 2) : Sixteen{};
            }
        }
    }

    struct Opened {
        __device__ __forceinline__ Opened(const FewBrain&, u32) {}
    };
    template <int NT, int GROUP>
    __device__ __forceinline__ void product(float (&sums)[NT][4], int nt, const Opened&, int stretch,
                                            const Sixteen (&b)[GROUP]) const {
        u32 a[2][4];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            a[i / 4][i % 4] = raw[i % 2][stretch].x[i / 2];
        }
#pragma unroll
        for (int j = 0; j < GROUP; j++) {
            add_product(sums[nt + j], a, b[j]);
        }
    }
};

struct FewBytes {
    static constexpr u32 CHUNK = 128;
    template <int NT>
    static constexpr int GROUP = NT < 2 ? NT : 2;
    uint2 raw[2][4];
    // Of stretch `lane % 4`, for both rows.
    u32 scales;

    static __device__ __forceinline__ void place(Source& s, int i, const Weight& w, u32 row) {
        s.data[i] = (const u8*)w.data + (u64)row * w.cols + s.inside;
        s.scales[i] = (const u16*)w.scales + (u64)row * (w.cols / STRETCH) + threadIdx.x % 4;
    }
    __device__ __forceinline__ void load(const Source& s, u32 chunk) {
        const u32 first = chunk * CHUNK;
#pragma unroll
        for (int stretch = 0; stretch < 4; stretch++) {
            const u32 column = first + stretch * STRETCH;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                raw[i][stretch] = column < s.cols ? stream8(s.data[i] + column) : uint2{};
            }
        }
        scales = 0;
        if (first + threadIdx.x % 4 * STRETCH < s.cols) {
            const u32 low = fetch2(s.scales[0] + first / STRETCH), high = fetch2(s.scales[1] + first / STRETCH);
            scales = low | high << 16;
        }
    }

    // Two signed bytes in the lower halves of 16 bits as bf16: 128 + their low seven bits, and −128 or, where they are negative,
    // −256.
    static __device__ __forceinline__ u32 widen(u32 bytes) {
        return add_bf16((bytes & 0x007f007fu) | 0x43004300u, (bytes & 0x00800080u) | 0xc300c300u);
    }

    struct Opened {
        __device__ __forceinline__ Opened(const FewBytes&, u32) {}
    };
    template <int NT, int GROUP>
    __device__ __forceinline__ void product(float (&sums)[NT][4], int nt, const Opened&, int stretch,
                                            const Sixteen (&b)[GROUP]) const {
        u32 a[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const u32 selector = half ? 0x4342u : 0x4140u;
                a[0][i + 2 * half] = widen(permute(raw[i][stretch].x, 0, selector));
                a[1][i + 2 * half] = widen(permute(raw[i][stretch].y, 0, selector));
            }
        }
        const u32 both = shuffle_from(scales, threadIdx.x % WARP / 4 * 4 + stretch);
        const float d[2] = {half_to_float((u16)both), half_to_float((u16)(both >> 16))};
#pragma unroll
        for (int j = 0; j < GROUP; j++) {
            float part[4];
            write_product(part, a, b[j]);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sums[nt + j][i] += d[i / 2] * part[i];
            }
        }
    }
};

// Half a block of Q4_K.
struct FewBlocks {
    static constexpr u32 CHUNK = 128;
    template <int NT>
    static constexpr int GROUP = NT == 2 || NT == 4 ? 2 : 1;
    // Word `lane % 4` of the block's first 16 bytes.
    u32 head[2];
    uint2 raw[2][2];

    static __device__ __forceinline__ void place(Source& s, int i, const Weight& w, u32 row) {
        s.data[i] = (const u8*)w.data + (u64)row * (w.cols / 256 * 144);
    }
    // Blocks begin in the midst of 32 bytes that memory gives at once: what two loads share must stay in the cache between.
    __device__ __forceinline__ void load(const Source& s, u32 chunk) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const u8* const at = s.data[i] + (u64)(chunk / 2) * 144;
            head[i] = fetch4(at + threadIdx.x % 4 * 4);
#pragma unroll
            for (int j = 0; j < 2; j++) {
                raw[i][j] = fetch8(at + 16 + chunk % 2 * 64 + 32 * j + s.inside);
            }
        }
    }

    // Four scales and minima for each row, a byte each, as in stretch_of_q4k.
    struct Opened {
        float d[2], dmin[2];
        u32 scales[2], minima[2];

        __device__ __forceinline__ Opened(const FewBlocks& of, u32 chunk) {
            const int lane = threadIdx.x % WARP / 4 * 4;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 both = shuffle_from(of.head[i], lane), y = shuffle_from(of.head[i], lane + 1);
                const u32 z = shuffle_from(of.head[i], lane + 2), w = shuffle_from(of.head[i], lane + 3);
                d[i] = half_to_float((u16)both);
                dmin[i] = half_to_float((u16)(both >> 16));
                const bool first = chunk % 2 == 0;
                scales[i] = first ? y & 0x3f3f3f3fu : (w & 0x0f0f0f0fu) | (y >> 2 & 0x30303030u);
                minima[i] = first ? z & 0x3f3f3f3fu : (w >> 4 & 0x0f0f0f0fu) | (z >> 2 & 0x30303030u);
            }
        }
        // factor · byte, rounded once: the byte as the last of 2²³ + byte.
        static __device__ __forceinline__ float times(float factor, u32 bytes, int byte) {
            const float with = bits_to_float(permute(bytes, 0x4b000000u, 0x7650u | byte));
            return fmaf(factor, with, -8388608.0f * factor);
        }
    };

    // Two codes as bf16: 128 + code − 128.
    static __device__ __forceinline__ u32 widen(u32 codes) {
        return add_bf16((codes & 0x000f000fu) | 0x43004300u, 0xc300c300u);
    }

    template <int NT, int GROUP>
    __device__ __forceinline__ void product(float (&sums)[NT][4], int nt, const Opened& o, int stretch,
                                            const Sixteen (&b)[GROUP]) const {
        const u32 ones[2][4] = {{0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u},
                                {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u}};
        const int shift = stretch % 2 * 4;
        u32 a[2][4];
        float scale[2], minimum[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            // Neighbours come to lie 16 bits apart.
            const u32 low = permute(raw[i][stretch / 2].x, 0, 0x3120u), high = permute(raw[i][stretch / 2].y, 0, 0x3120u);
            a[0][i] = widen(low >> shift);
            a[0][i + 2] = widen(low >> shift >> 8);
            a[1][i] = widen(high >> shift);
            a[1][i + 2] = widen(high >> shift >> 8);
            scale[i] = Opened::times(o.d[i], o.scales[i], stretch);
            minimum[i] = Opened::times(o.dmin[i], o.minima[i], stretch);
        }
#pragma unroll
        for (int j = 0; j < GROUP; j++) {
            float part[4], all[4];
            write_product(part, a, b[j]);
            write_product(all, ones, b[j]);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sums[nt + j][i] = sums[nt + j][i] + scale[i / 2] * part[i] - minimum[i / 2] * all[i];
            }
        }
    }
};

// x: (N,C) in bf16, C a multiple of 8. Grid: (⌈Σ rows / 16·WARPS_M⌉, ⌈N / 8·NT⌉), a warp for each part of each 16 rows.
template <class Form, int NT, int WARPS_M, int DEPTH>
__device__ __forceinline__ void few(Array out, const bf16* x, const Layers& l, u32 total, u32 n) {
    constexpr int GROUP = Form::template GROUP<NT>;
    // Stretches whose x is asked for at once.
    constexpr int AHEAD = NT < 4 ? 2 : 1;
    __shared__ float shared[WARPS_M][PARTS][NT < ROUND ? NT : ROUND][4][WARP];
    const int lane = threadIdx.x % WARP, part = threadIdx.x / WARP % PARTS, m = threadIdx.x / (WARP * PARTS);
    const u32 first_row = (blockIdx.x * WARPS_M + m) * TILE_ROWS + lane / 4, first_n = blockIdx.y * 8 * NT;
    Source source;
    source.cols = (u32)l.w[0].cols;
    source.inside = lane % 4 * 8;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        u32 row = min(first_row + 8 * i, total - 1);
        const int layer = layer_of(l, row);
        Form::place(source, i, l.w[layer], row);
    }
    // Where the lane's row of each tile of x begins. Rows behind the last repeat it; their sums are not stored.
    u32 begin[NT];
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
        begin[nt] = min(first_n + 8 * nt + lane / 4, n - 1) * source.cols + source.inside;
    }
    float sums[1][NT][4];
    clear(sums);
    const u32 chunks = (source.cols + Form::CHUNK - 1) / Form::CHUNK;
    Form ring[DEPTH];
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
        if (part + d * PARTS < chunks) {
            ring[d].load(source, part + d * PARTS);
        }
    }
    for (u32 first = part; first < chunks; first += DEPTH * PARTS) {
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            const u32 chunk = first + d * PARTS;
            if (chunk >= chunks) {
                break;
            }
            const typename Form::Opened opened(ring[d], chunk);
#pragma unroll
            for (int stretch = 0; stretch < (int)Form::CHUNK / STRETCH; stretch += AHEAD) {
                // This end, and that of tiles of x, also keep the compiler from having more in hand than there are registers for.
                if (chunk * Form::CHUNK + stretch * STRETCH >= source.cols) {
                    break;
                }
#pragma unroll
                for (int nt = 0; nt < NT; nt += GROUP) {
                    if (nt > 0 && first_n + 8 * nt >= n) {
                        break;
                    }
                    Sixteen b[AHEAD][GROUP];
#pragma unroll
                    for (int s = 0; s < AHEAD; s++) {
                        const u32 column = chunk * Form::CHUNK + (stretch + s) * STRETCH;
                        const bool valid = column + source.inside < source.cols;
#pragma unroll
                        for (int j = 0; j < GROUP; j++) {
                            b[s][j] = valid ? fetch16(x + begin[nt + j] + column) : Sixteen{};
                        }
                    }
#pragma unroll
                    for (int s = 0; s < AHEAD; s++) {
                        ring[d].product(sums[0], nt, opened, stretch + s, b[s]);
                    }
                }
            }
            if (chunk + DEPTH * PARTS < chunks) {
                ring[d].load(source, chunk + DEPTH * PARTS);
            }
        }
    }
    // Number `part` of each lane's four sums of a tile is added up and written by this warp.
    const u32 column = first_row + part / 2 * 8;
    u32 row = min(column, total - 1);
    const int layer = layer_of(l, row);
#pragma unroll
    for (int round = 0; round < NT; round += ROUND) {
        if (round > 0) {
            __syncthreads();
        }
#pragma unroll
        for (int nt = 0; nt < NT && nt < ROUND; nt++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                shared[m][part][nt][i][lane] = sums[0][round + nt][i];
            }
        }
        __syncthreads();
#pragma unroll
        for (int nt = 0; nt < NT && nt < ROUND; nt++) {
            float sum = shared[m][0][nt][part][lane];
#pragma unroll
            for (int from = 1; from < PARTS; from++) {
                sum += shared[m][from][nt][part][lane];
            }
            const u32 to = first_n + 8 * (round + nt) + lane % 4 * 2 + part % 2;
            if (column < total && to < n) {
                finish(out, l, layer, row, to, column, sum);
            }
        }
    }
}

// Blocks: those that a multiprocessor should hold at least, for registers.
#define FEW(name, Form, NT, WARPS_M, DEPTH, BLOCKS)                                                                      \
    extern "C" __global__ void __launch_bounds__(WARPS_M * PARTS * WARP, BLOCKS)                                         \
        name(Array out, const bf16* x, Layers l, u32 total, u32 n) {                                                     \
        few<Form, NT, WARPS_M, DEPTH>(out, x, l, total, n);                                                              \
    }
FEW(few_bf16_8, FewBrain, 1, 1, 4, 4)
FEW(few_bf16_16, FewBrain, 2, 2, 3, 2)
FEW(few_bf16_32, FewBrain, 4, 2, 3, 2)
FEW(few_bf16_64, FewBrain, 8, 4, 3, 1)
FEW(few_q8_8, FewBytes, 1, 1, 3, 4)
FEW(few_q8_16, FewBytes, 2, 2, 3, 2)
FEW(few_q8_32, FewBytes, 4, 2, 2, 2)
FEW(few_q8_64, FewBytes, 8, 4, 1, 1)
FEW(few_q4k_8, FewBlocks, 1, 1, 4, 4)
FEW(few_q4k_16, FewBlocks, 2, 2, 2, 2)
FEW(few_q4k_32, FewBlocks, 4, 2, 2, 2)
FEW(few_q4k_64, FewBlocks, 8, 4, 1, 1)
