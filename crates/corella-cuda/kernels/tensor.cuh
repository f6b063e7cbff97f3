// Matrix products of a warp (tensor cores), the loads that feed them, and asynchronous copies into shared memory.
//
// Fragments are those of mma.m16n8k16 (PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type"). With g = lane / 4
// and t = lane % 4, a lane holds
//   A (16×16): a[0] = (g, 2t..2t+1), a[1] = (g+8, 2t..), a[2] = (g, 2t+8..), a[3] = (g+8, 2t+8..)
//   B (16×8):  b0 = (k 2t..2t+1, n g), b1 = (k 2t+8.., n g)
//   C (16×8):  c[0..1] = (g, 2t..2t+1), c[2..3] = (g+8, 2t..2t+1)
#pragma once

#include "common.cuh"

#ifdef CORELLA_EMULATED

#include "warp_products.h"
#define DYNAMIC_SHARED_AT(name, place) u8* const name = (u8*)emulated::dynamic_shared

#else

// What a kernel declares beside it is padded up to `place`, and counts.
#define DYNAMIC_SHARED_AT(name, place) extern __shared__ __align__(place) u8 name[]

__device__ __forceinline__ u32 shared_address(const void* p) {
    return (u32)__cvta_generic_to_shared(p);
}

// 16 bytes from global to shared memory without a register; zeros where not `valid`.
__device__ __forceinline__ void copy16_async(void* to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}

// Ends a group of copies.
__device__ __forceinline__ void copies_end() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until all but the last LEFT groups of this thread have arrived. Others see them behind the next barrier.
template <int LEFT>
__device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Four 8×8 matrices of 16-bit numbers; lane 8i + r gives the address of row r of matrix i. A lane gets (g, 2t..2t+1) of each.
__device__ __forceinline__ void load_matrices(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, transposed: a lane gets (2t..2t+1, g) of each.
__device__ __forceinline__ void load_matrices_transposed(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// c += a · b in bf16 with sums in f32.
__device__ __forceinline__ void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c = a · b.
__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%10, %10, %10, %10};"
                 : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

// The same as multiply_add in f16.
__device__ __forceinline__ void multiply_add_f16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ⌊Σ of four products of signed bytes⌋ + sum.
__device__ __forceinline__ int dot4(int a, int b, int sum) {
    int y;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(sum));
    return y;
}

__device__ __forceinline__ float half_to_float(u16 bits) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(bits));
    return y;
}

__device__ __forceinline__ u16 float_to_half(float x) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

#endif

// Shared memory whose size the launch states.
#define DYNAMIC_SHARED(name) DYNAMIC_SHARED_AT(name, 128)

// The two 16-bit formats of products.
struct InBf16 {
    static constexpr bool HALF = false;
    static __device__ __forceinline__ void product(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        multiply_add(c, a, b0, b1);
    }
    static __device__ __forceinline__ u32 pair(float low, float high) {
        return round_pair(low, high);
    }
};

struct InF16 {
    static constexpr bool HALF = true;
    static __device__ __forceinline__ void product(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        multiply_add_f16(c, a, b0, b1);
    }
    static __device__ __forceinline__ u32 pair(float low, float high) {
        return (u32)float_to_half(low) | (u32)float_to_half(high) << 16;
    }
};

// A tile of rows of HS numbers of 16 bits in shared memory. The 16-byte pieces of a row are exchanged by the row's number, so that
// the eight rows that one matrix load reads lie in different banks.
template <int HS>
struct Tile {
    static constexpr int PIECES = HS / 8;
    bf16* data;

    __device__ __forceinline__ bf16* piece(int row, int piece) const {
        return data + (row * PIECES + (piece ^ (row & 7))) * 8;
    }

    // Begins to copy `count` (≤ ROWS) rows, `stride` numbers apart in global memory; the rows behind them become 0.
    template <int ROWS, int THREADS>
    __device__ __forceinline__ void fill(const bf16* from, u64 stride, int count) const {
#pragma unroll
        for (int first = 0; first < ROWS * PIECES; first += THREADS) {
            const int i = first + (int)threadIdx.x, row = i / PIECES, p = i % PIECES;
            if (ROWS * PIECES % THREADS == 0 || row < ROWS) {
                const bool valid = row < count;
                copy16_async(piece(row, p), valid ? from + row * stride + p * 8 : from, valid);
            }
        }
    }

    // Rows `row` .. +16, columns 16·step .. +16, as an A fragment.
    __device__ __forceinline__ void load_a(u32 (&a)[4], int row, int step) const {
        const int lane = threadIdx.x % WARP;
        load_matrices(a, piece(row + lane % 16, 2 * step + lane / 16));
    }

    // Rows n = `row` .. +16, columns k = 16·step .. +16: B fragments of columns n .. +8 in b[0..1] and n+8 .. in b[2..3].
    __device__ __forceinline__ void load_b(u32 (&b)[4], int row, int step) const {
        const int lane = threadIdx.x % WARP;
        load_matrices(b, piece(row + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2));
    }

    // Rows k = 16·step .. +16, columns n = `column` .. +16, as B fragments in the same order.
    __device__ __forceinline__ void load_b_transposed(u32 (&b)[4], int step, int column) const {
        const int lane = threadIdx.x % WARP;
        load_matrices_transposed(b, piece(16 * step + lane % 16, column / 8 + lane / 16));
    }
};

// Two tiles of ROWS rows: one is read while the next one arrives.
template <int HS, int ROWS>
struct Stages {
    bf16* data;

    __device__ __forceinline__ Tile<HS> operator[](int step) const {
        return Tile<HS>{data + (step & 1) * ROWS * HS};
    }
};

// c[m] += (rows of a) · (rows of b)ᵀ over HS columns: MT tiles of 16 rows from `row` on, NT tiles of 8 rows of b.
template <class F = InBf16, int MT, int NT, int HS>
__device__ __forceinline__ void multiply_rows(float (&c)[MT][NT][4], Tile<HS> a, int row, Tile<HS> b) {
#pragma unroll
    for (int step = 0; step < HS / 16; step++) {
        u32 left[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
            a.load_a(left[m], row + 16 * m, step);
        }
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            u32 right[4];
            b.load_b(right, 8 * n, step);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                F::product(c[m][n], left[m], right[0], right[1]);
                F::product(c[m][n + 1], left[m], right[2], right[3]);
            }
        }
    }
}

// c[m] += a[m] · b, where a (16·MT × 8·NT) lies in the registers of a C fragment and is rounded to 16 bits, and b has 8·NT rows.
template <class F = InBf16, int MT, int NT, int HS>
__device__ __forceinline__ void multiply_columns(float (&c)[MT][HS / 8][4], const float (&a)[MT][NT][4], Tile<HS> b) {
#pragma unroll
    for (int step = 0; step < NT / 2; step++) {
        u32 left[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&part)[4] = a[m][2 * step + i / 2];
                left[m][i] = F::pair(part[i % 2 * 2], part[i % 2 * 2 + 1]);
            }
        }
#pragma unroll
        for (int n = 0; n < HS / 8; n += 2) {
            u32 right[4];
            b.load_b_transposed(right, step, 8 * n);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                F::product(c[m][n], left[m], right[0], right[1]);
                F::product(c[m][n + 1], left[m], right[2], right[3]);
            }
        }
    }
}

template <int MT, int NT>
__device__ __forceinline__ void clear(float (&c)[MT][NT][4]) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int n = 0; n < NT; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                c[m][n][i] = 0.0f;
            }
        }
    }
}

// Σ and max over the four lanes that hold a row of a C fragment.
__device__ __forceinline__ float quad_sum(float x) {
    x += shuffle_xor(x, 1);
    return x + shuffle_xor(x, 2);
}

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, shuffle_xor(x, 1));
    return fmaxf(x, shuffle_xor(x, 2));
}
