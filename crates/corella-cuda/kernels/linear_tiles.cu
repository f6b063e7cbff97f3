// Linear layers for many rows (prompts): tiles of the weights become bf16 in shared memory, and tensor cores multiply them with
// rows of x in bf16, sums in f32. A sum's order depends on the row's length alone, so a row comes out the same in any batch.
//
// Bound by arithmetic from some 300 rows on: 2·7.5 G flop a row for Llama 8B, 31 TFLOP for a prompt of 2,048: 31 ms at an H100's
// peak; this kernel, with mma.sync and plain loads of the weights, should reach a third to a half of that. For fewer rows the
// weights' bytes count, as in linear_rows.cu.
#include "weights.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;
// A block's rows of x and of the weights, and the columns of a step.
constexpr int ROWS = 128;
constexpr int OUTPUTS = 64;
constexpr int STEP = 64;
constexpr int MT = 2;
constexpr int NT = OUTPUTS / 8;

__device__ __forceinline__ void put8(bf16* to, Packet from) {
    store8(to, from);
}

// x: (N,C) in bf16, C a multiple of 8. Grid: (⌈Σ rows / 64⌉, ⌈N / 128⌉).
// Dynamic shared memory: two tiles of x (128,64), two of weights (64,64).
template <class Form>
__device__ __forceinline__ void tiles(Array out, const bf16* x, const Layers& l, u32 total, u32 n) {
    DYNAMIC_SHARED(shared);
    const Stages<STEP, ROWS> left{(bf16*)shared};
    const Stages<STEP, OUTPUTS> right{left.data + 2 * ROWS * STEP};
    const u32 first_row = blockIdx.y * ROWS, first_output = blockIdx.x * OUTPUTS;
    const u64 cols = l.w[0].cols;
    const int lane = threadIdx.x % WARP, line = threadIdx.x / WARP * 16 * MT, steps = (int)((cols + STEP - 1) / STEP);
    // A thread unpacks half a row of the weights' tile.
    const int own_row = threadIdx.x / 2, own_column = threadIdx.x % 2 * 32;
    u32 weight_row = first_output + own_row;
    const bool has_weight = weight_row < total;
    const int layer = layer_of(l, weight_row);
    const Weight w = l.w[layer];
    auto fetch = [&](int step) {
        const u64 column = (u64)step * STEP;
        const Tile<STEP> a = left[step], b = right[step];
#pragma unroll
        for (int i = threadIdx.x; i < ROWS * STEP / 8; i += THREADS) {
            const int row = i / (STEP / 8), piece = i % (STEP / 8);
            const bool valid = first_row + row < n && column + piece * 8 < cols;
            copy16_async(a.piece(row, piece), valid ? x + (u64)(first_row + row) * cols + column + piece * 8 : x, valid);
        }
        copies_end();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            Packet eight = {};
            if (has_weight && column + own_column + 8 * i < cols) {
                eight = Form::eight(w, weight_row, column + own_column + 8 * i);
            }
            put8(b.piece(own_row, own_column / 8 + i), eight);
        }
    };
    float sums[MT][NT][4];
    clear(sums);
    fetch(0);
    for (int step = 0; step < steps; step++) {
        copies_wait<0>();
        __syncthreads();
        // The other stage was read before the barrier.
        if (step + 1 < steps) {
            fetch(step + 1);
        }
        multiply_rows(sums, left[step], line, right[step]);
    }
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const u32 column = first_output + 8 * nt + lane % 4 * 2 + i;
            if (column >= total) {
                continue;
            }
            u32 there = column;
            const int of = layer_of(l, there);
#pragma unroll
            for (int m = 0; m < MT; m++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const u32 row = first_row + line + 16 * m + lane / 4 + 8 * half;
                    if (row < n) {
                        finish(out, l, of, there, row, column, sums[m][nt][2 * half + i]);
                    }
                }
            }
        }
    }
}

#define TILES(name, Form)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) name(Array out, const bf16* x, Layers l, u32 total, u32 n) {   \
        tiles<Form>(out, x, l, total, n);                                                                                \
    }
TILES(tiles_f32, InF32)
TILES(tiles_f16, InHalf)
TILES(tiles_bf16, InBrain)
TILES(tiles_q8, Bytes8)
TILES(tiles_q4k, Blocks4)
TILES(tiles_wide, Wide)
