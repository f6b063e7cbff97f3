// Linear layers for one row, and for few rows that linear_few.cu does not take, such as those in f32: a warp for each row of the
// weights, which is read once for up to eight rows of x. A sum's order depends on the row's length alone.
//
// Bound by memory: what the packed weights take. Llama 8B, bf16: 15.0 GB a token, 4.5 ms on an H100, 3.1 ms on an H200; Q8_0 with
// its scales 8.0 GB, Q4_K 4.2 GB (1.26 ms on an H100). Floats multiply in f32: 2 flop a weight and row, 8·2·7.5 G = 120 GFLOP for
// eight rows, 1.8 ms of an H100's 67 TFLOP/s. Q8_0 and Q4_K take x in signed bytes and multiply four at a time.
#include "weights.cuh"

#define WARPS 4
// Steps of one row whose weights are on their way at once.
#define AHEAD 4
// The same of blocks of Q4_K: arithmetic bounds those, and warps that have fewer registers are more.
#define BLOCKS_AHEAD 1

// Which row of which layer a warp takes; `there` where there is one.
struct Own {
    u32 column, row;
    int layer;
    bool there;
};

__device__ __forceinline__ Own own_row(const Layers& l, u32 total) {
    Own own = {blockIdx.x * WARPS + threadIdx.x / WARP, 0, 0, false};
    own.there = own.column < total;
    own.row = own.there ? own.column : 0;
    own.layer = layer_of(l, own.row);
    return own;
}

// Bytes of the first rows of a launch that are asked for before the kernels before have ended, beyond what registers hold: what
// arrives while a small kernel runs. All of an L2 could be filled, and then be emptied again by what comes after.
#define NEAR (16 << 20)

// Asks for the weights of a warp's row from byte `from` on.
__device__ __forceinline__ void bring_row_near(const Weight& w, const Own& own, u32 row_bytes, u32 from) {
    if (threadIdx.x % WARP == 0 && own.there && from < row_bytes && (u64)own.column * row_bytes < NEAR) {
        bring_near((const u8*)w.data + (u64)own.row * row_bytes + from, row_bytes - from);
    }
}

// Whole steps of a row with one row of x, whose packets are X's: `ahead` holds the weights of the first step, and each step fetches
// those of the next. Adds to `sum`, moves `i` on.
template <class Form, class X>
__device__ __forceinline__ void whole_steps(const Weight& w, u32 row, const void* x, u64 x_first, typename Form::Raw (&ahead)[AHEAD],
                                            u64& i, float& sum) {
    const u64 step = AHEAD * 8 * WARP, last = (AHEAD - 1) * 8 * WARP;
    at_activations();
#pragma unroll 1
    for (; i + last < w.cols; i += step) {
        typename X::Raw b[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            b[j] = X::of(x, x_first + i + j * 8 * WARP);
        }
        const bool more = i + step + last < w.cols;
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const Packet weights = Form::numbers(ahead[j]), numbers = X::numbers(b[j]);
            if (more) {
                ahead[j] = Form::ahead(w, row, i + step + j * 8 * WARP);
            }
#pragma unroll
            for (int k = 0; k < 8; k++) {
                sum += weights.x[k] * numbers.x[k];
            }
        }
    }
}

// x: (N,C) in f32 or bf16. Grid: (⌈Σ rows / 4⌉, ⌈N / ROWS⌉).
template <class Form, int ROWS>
__device__ __forceinline__ void rows_of_floats(Array out, Array x, const Layers& l, u32 total, u32 n) {
    let_next_kernel_start();
    const Own own = own_row(l, total);
    const u32 column = own.column, row = own.row, lane = threadIdx.x % WARP;
    const int layer = own.layer;
    const Weight& w = l.w[layer];
    const u32 first = blockIdx.y * ROWS;
    float sums[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sums[r] = 0.0f;
    }
    // Several loads of the weights on their way at once: a row is short, and waiting for one after the other would bound. The first
    // are on their way while the kernels before still run. Rows of x in whole packets only.
    u64 i = lane * 8;
    const bool whole = ROWS == 1 && l.c % PACKET == 0 && i + (AHEAD - 1) * 8 * WARP < w.cols;
    typename Form::Raw ahead[AHEAD] = {};
    if (whole && own.there) {
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            ahead[j] = Form::ahead(w, row, i + j * 8 * WARP);
        }
    }
    // Not of f32, whose first steps take all registers.
    if (ROWS == 1 && Form::BYTES < 4) {
        bring_row_near(w, own, (u32)w.cols * Form::BYTES, AHEAD * 8 * WARP * Form::BYTES);
    }
    wait_for_kernels_before();
    if (!own.there) {
        return;
    }
    if (whole) {
        const u64 x_first = (u64)first * l.c;
        if (x.is_bf16) {
            whole_steps<Form, InBrain>(w, row, x.data, x_first, ahead, i, sums[0]);
        } else {
            whole_steps<Form, InF32>(w, row, x.data, x_first, ahead, i, sums[0]);
        }
    }
#pragma unroll 1
    for (; i < w.cols; i += 8 * WARP) {
        const Packet a = Form::eight(w, row, i);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            // Rows behind the last repeat it; their sums are not stored.
            const u64 at = (u64)min(first + r, n - 1) * l.c;
            const Packet b = load8(x, at + i, at + l.c);
#pragma unroll
            for (int k = 0; k < 8; k++) {
                sums[r] += a.x[k] * b.x[k];
            }
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float sum = warp_sum(sums[r]);
        if (lane == 0 && first + r < n) {
            finish(out, l, layer, row, first + r, column, sum);
        }
    }
}

// Rows of x as signed bytes with a scale for each 32: what rows_of_bytes and rows_of_blocks read.
struct Rounded {
    const signed char* codes;
    const float* scales;
};

// A warp for each 32 numbers: scale max |x| / 127, codes to nearest even. c is a multiple of 32. Grid: ⌈N·C/32 / 4⌉.
extern "C" __global__ void round_rows(signed char* codes, float* scales, Array x, u64 blocks) {
    take_turn();
    const u64 block = (u64)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (block >= blocks) {
        return;
    }
    const u64 at = block * 32 + threadIdx.x % WARP;
    const float value = load(x, at), top = warp_max(fabsf(value));
    const bool tiny = top < 1e-36f;
    codes[at] = (signed char)rintf(value * (tiny ? 0.0f : 127.0f / top));
    if (threadIdx.x % WARP == 0) {
        scales[block] = tiny ? 0.0f : top / 127.0f;
    }
}

__device__ __forceinline__ uint4 as_uint4(Sixteen v) {
    return make_uint4(v.x[0], v.x[1], v.x[2], v.x[3]);
}

__device__ __forceinline__ int dot16(uint4 a, uint4 b, int sum) {
    sum = dot4((int)a.x, (int)b.x, sum);
    sum = dot4((int)a.y, (int)b.y, sum);
    sum = dot4((int)a.z, (int)b.z, sum);
    return dot4((int)a.w, (int)b.w, sum);
}

// Q8_0: a lane takes 16 codes.
template <int ROWS>
__device__ __forceinline__ void rows_of_bytes(Array out, Rounded x, const Layers& l, u32 total, u32 n) {
    let_next_kernel_start();
    const Own own = own_row(l, total);
    const u32 column = own.column, row = own.row, lane = threadIdx.x % WARP;
    const int layer = own.layer;
    const Weight& w = l.w[layer];
    const u32 first = blockIdx.y * ROWS;
    float sums[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sums[r] = 0.0f;
    }
    // As in rows_of_floats.
    u64 i = lane * 16;
    const u64 step = AHEAD * 16 * WARP;
    const auto whole = [&](u64 from) { return from + (AHEAD - 1) * 16 * WARP < w.cols; };
    Sixteen codes_ahead[AHEAD] = {};
    u32 scales_ahead[AHEAD] = {};
    const auto fetch = [&](int j, u64 from) {
        const u64 at = row * w.cols + from + j * 16 * WARP;
        codes_ahead[j] = ahead16((const u8*)w.data + at);
        scales_ahead[j] = ahead2((const u16*)w.scales + at / 32);
    };
    if (ROWS == 1 && own.there && whole(i)) {
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            fetch(j, i);
        }
    }
    if (ROWS == 1) {
        bring_row_near(w, own, (u32)w.cols, AHEAD * 16 * WARP);
    }
    wait_for_kernels_before();
    if (!own.there) {
        return;
    }
    at_activations();
    if (ROWS == 1) {
        for (; whole(i); i += step) {
            uint4 bytes[AHEAD];
            float scales[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const u64 from = first * w.cols + i + j * 16 * WARP;
                bytes[j] = *(const uint4*)(x.codes + from);
                scales[j] = x.scales[from / 32];
            }
            const bool more = whole(i + step);
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const uint4 codes = as_uint4(codes_ahead[j]);
                const float d = half_to_float((u16)scales_ahead[j]);
                if (more) {
                    fetch(j, i + step);
                }
                sums[0] += d * scales[j] * (float)dot16(codes, bytes[j], 0);
            }
        }
    }
#pragma unroll 1
    for (; i < w.cols; i += 16 * WARP) {
        const u64 at = row * w.cols + i;
        const uint4 codes = *(const uint4*)((const u8*)w.data + at);
        const float d = half_to_float(((const u16*)w.scales)[at / 32]);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const u64 from = (u64)min(first + r, n - 1) * w.cols + i;
            sums[r] += d * x.scales[from / 32] * (float)dot16(codes, *(const uint4*)(x.codes + from), 0);
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float sum = warp_sum(sums[r]);
        if (lane == 0 && first + r < n) {
            finish(out, l, layer, row, first + r, column, sum);
        }
    }
}

// Q4_K: a lane takes 16 bytes, halves of two stretches of 32 weights: scale·Σ code·x − minimum·Σ x for each. Eight lanes share a
// block, so that a warp has four of them at a time.
template <int ROWS>
__device__ __forceinline__ void rows_of_blocks(Array out, Rounded x, const Layers& l, u32 total, u32 n) {
    let_next_kernel_start();
    const Own own = own_row(l, total);
    const u32 column = own.column, row = own.row, lane = threadIdx.x % WARP;
    const int layer = own.layer;
    const Weight& w = l.w[layer];
    const u32 first = blockIdx.y * ROWS;
    const uint4 ones = make_uint4(0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u);
    float sums[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sums[r] = 0.0f;
    }
    // Blocks on their way, as in rows_of_floats; slot j takes every BLOCKS_AHEAD-th of the lane's.
    const u32 piece = lane % 8;
    const u32 blocks = w.cols / 256, step = WARP / 8;
    Sixteen heads_ahead[BLOCKS_AHEAD] = {}, codes_ahead[BLOCKS_AHEAD] = {};
    const auto fetch = [&](int j, u32 block) {
        if (block < blocks) {
            const u8* const at = Blocks4::block(w, row, (u64)block * 256);
            heads_ahead[j] = ahead16(at);
            codes_ahead[j] = ahead16(at + 16 + piece * 16);
        }
    };
    if (ROWS == 1 && own.there) {
#pragma unroll
        for (int j = 0; j < BLOCKS_AHEAD; j++) {
            fetch(j, lane / 8 + j * step);
        }
    }
    if (ROWS == 1) {
        bring_row_near(w, own, blocks * 144, BLOCKS_AHEAD * (WARP / 8) * 144);
    }
    wait_for_kernels_before();
    if (!own.there) {
        return;
    }
    const auto use = [&](u32 block, uint4 head, uint4 raw) {
        // The lower halves, then the upper ones: each is done with all rows before the next is unpacked.
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32 shift = 4 * half;
            const uint4 codes = make_uint4(raw.x >> shift & 0x0f0f0f0fu, raw.y >> shift & 0x0f0f0f0fu,
                                           raw.z >> shift & 0x0f0f0f0fu, raw.w >> shift & 0x0f0f0f0fu);
            float scale, minimum;
            stretch_of_q4k(head, piece / 2 * 2 + half, scale, minimum);
            const u32 inside = block * 256 + piece / 2 * 64 + 32 * half + piece % 2 * 16;
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const u64 from = (u64)min(first + r, n - 1) * w.cols + inside;
                const uint4 bytes = *(const uint4*)(x.codes + from);
                const float product = scale * (float)dot16(codes, bytes, 0), part = (float)dot16(ones, bytes, 0);
                sums[r] += x.scales[from / 32] * (product - minimum * part);
            }
        }
    };
    u32 block = lane / 8;
    if (ROWS == 1) {
#pragma unroll 1
        for (; block < blocks; block += BLOCKS_AHEAD * step) {
#pragma unroll
            for (int j = 0; j < BLOCKS_AHEAD; j++) {
                const uint4 head = as_uint4(heads_ahead[j]), raw = as_uint4(codes_ahead[j]);
                fetch(j, block + (j + BLOCKS_AHEAD) * step);
                if (block + j * step < blocks) {
                    use(block + j * step, head, raw);
                }
            }
        }
    }
#pragma unroll 1
    for (; block < blocks; block += step) {
        const u8* const at = Blocks4::block(w, row, (u64)block * 256);
        use(block, *(const uint4*)at, *(const uint4*)(at + 16 + piece * 16));
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float sum = warp_sum(sums[r]);
        if (lane == 0 && first + r < n) {
            finish(out, l, layer, row, first + r, column, sum);
        }
    }
}

#define FLOATS(name, Form, ROWS)                                                                                         \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) name(Array out, Array x, Layers l, u32 total, u32 n) {    \
        rows_of_floats<Form, ROWS>(out, x, l, total, n);                                                                 \
    }
#define CODES(name, body, ROWS)                                                                                          \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) name(Array out, Rounded x, Layers l, u32 total, u32 n) {  \
        body<ROWS>(out, x, l, total, n);                                                                                 \
    }
FLOATS(linear_f32_1, InF32, 1)
FLOATS(linear_f32_8, InF32, 8)
FLOATS(linear_f16_1, InHalf, 1)
FLOATS(linear_f16_8, InHalf, 8)
FLOATS(linear_bf16_1, InBrain, 1)
FLOATS(linear_bf16_8, InBrain, 8)
FLOATS(linear_wide_1, Wide, 1)
FLOATS(linear_wide_8, Wide, 8)
CODES(linear_q8_1, rows_of_bytes, 1)
CODES(linear_q8_8, rows_of_bytes, 8)
CODES(linear_q4k_1, rows_of_blocks, 1)
CODES(linear_q4k_8, rows_of_blocks, 8)
