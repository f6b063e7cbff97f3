// Products of the four warps of a block together: wgmma on Hopper (PTX ISA, "Asynchronous warpgroup level matrix instructions"),
// which reads its factors from shared memory and runs beside the threads; elsewhere each warp does its 16 rows by mma.sync.
//
// A warp's 16 rows of a result of 64 lie in its registers as C fragments, as for MT = 1 in tensor.cuh, and a left factor that
// comes from registers as A fragments: so kernels are the same text for both. Tiles have rows of 64 numbers; the exchange of their
// pieces is wgmma's swizzle of 128 bytes, provided that a tile begins at a multiple of TILE_PLACE.
#pragma once

#include "tensor.cuh"

// Multiples of bytes at which tiles begin.
#define TILE_PLACE 1024

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) && !defined(CORELLA_EMULATED)
#define WGMMA
#endif

// Between plain writes into shared memory and the barrier behind which products read them.
__device__ __forceinline__ void writes_end() {
#ifdef WGMMA
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

#ifdef WGMMA

// Rows of 128 bytes, swizzled; groups of eight of them follow each other.
__device__ __forceinline__ u64 descriptor(const void* at) {
    return (u64)(shared_address(at) >> 4 & 0x3fff) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

#define SUMS(c, n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define ALL_SUMS(c) SUMS(c, 0), SUMS(c, 1), SUMS(c, 2), SUMS(c, 3), SUMS(c, 4), SUMS(c, 5), SUMS(c, 6), SUMS(c, 7)
#define SUM_NAMES                                                                                                        \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, "  \
    "%25, %26, %27, %28, %29, %30, %31}"

// c (=, +=) a · bᵀ over 16 columns: a and b have 64 rows each, their columns are neighbours.
#define WGMMA_ROWS(type)                                                                                                 \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                                            \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " SUM_NAMES ", %32, %33, p, 1, 1, 0, 0;\n}" \
                 : ALL_SUMS(c)                                                                                           \
                 : "l"(a), "l"(b), "r"(adds))

template <class F>
__device__ __forceinline__ void wgmma_rows(float (&c)[8][4], u64 a, u64 b, int adds) {
    if constexpr (F::HALF) {
        WGMMA_ROWS("f16");
    } else {
        WGMMA_ROWS("bf16");
    }
}

// c += a · b: a from registers, b has 16 rows of 64 neighbours.
#define WGMMA_COLUMNS(type)                                                                                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " SUM_NAMES                               \
                 ", {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                                                              \
                 : ALL_SUMS(c)                                                                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

template <class F>
__device__ __forceinline__ void wgmma_columns(float (&c)[8][4], const u32 (&a)[4], u64 b) {
    if constexpr (F::HALF) {
        WGMMA_COLUMNS("f16");
    } else {
        WGMMA_COLUMNS("bf16");
    }
}

// Keeps the compiler from touching sums while products are under way.
__device__ __forceinline__ void hold(float (&c)[1][8][4]) {
#pragma unroll
    for (int n = 0; n < 8; n++) {
        asm volatile("" : SUMS(c[0], n)::"memory");
    }
}

__device__ __forceinline__ void products_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Starts what was asked for since `products_begin`, and waits for it.
__device__ __forceinline__ void products_end() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

#else

__device__ __forceinline__ void hold(float (&)[1][8][4]) {}
__device__ __forceinline__ void products_begin() {}
__device__ __forceinline__ void products_end() {}

#endif

// c (=, +=) a · bᵀ, both of 64 rows.
template <class F = InBf16>
__device__ __forceinline__ void block_rows(float (&c)[1][8][4], Tile<64> a, Tile<64> b, bool adds = false) {
#ifdef WGMMA
    const u64 left = descriptor(a.data), right = descriptor(b.data);
#pragma unroll
    for (int step = 0; step < 4; step++) {
        // 16 columns on: 32 bytes.
        wgmma_rows<F>(c[0], left + 2 * step, right + 2 * step, adds || step > 0);
    }
#else
    if (!adds) {
        clear(c);
    }
    multiply_rows<F>(c, a, threadIdx.x / WARP * 16, b);
#endif
}

// A left factor of 64 columns in 16 bits, from the registers of a C fragment.
template <class F = InBf16>
struct LeftFactor {
    u32 a[4][4];

    __device__ __forceinline__ explicit LeftFactor(const float (&from)[1][8][4]) {
#pragma unroll
        for (int step = 0; step < 4; step++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&part)[4] = from[0][2 * step + i / 2];
                a[step][i] = F::pair(part[i % 2 * 2], part[i % 2 * 2 + 1]);
            }
        }
    }
};

// c += a · b, where b has 64 rows.
template <class F>
__device__ __forceinline__ void block_columns(float (&c)[1][8][4], const LeftFactor<F>& a, Tile<64> b) {
#pragma unroll
    for (int step = 0; step < 4; step++) {
#ifdef WGMMA
        // 16 rows on: 2,048 bytes.
        wgmma_columns<F>(c[0], a.a[step], descriptor(b.data) + 128 * step);
#else
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            u32 right[4];
            b.load_b_transposed(right, step, 8 * n);
            F::product(c[0][n], a.a[step], right[0], right[1]);
            F::product(c[0][n + 1], a.a[step], right[2], right[3]);
        }
#endif
    }
}
