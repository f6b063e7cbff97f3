// What every kernel stands on: numbers, arrays in one of two formats, packets of eight, sums over a warp and a block.
//
// Rules for kernels/*.cu
// - Each file compiles alone, by NVRTC without any header of CUDA, and includes nothing but this file.
// - Entry points are `extern "C" __global__ void name(...)`, listed with their file in src/kernels.rs.
// - Inline PTX and warp shuffles stand in small functions here, each with a twin for the host where CORELLA_EMULATED is set:
//   emulated.h then stands for the CUDA built-ins and runs the same text on the processor, a fiber per CUDA thread.
// - Kernels that the table calls `early` are started while those before them still run, and say themselves when they need them to
//   have ended: see `wait_for_kernels_before`.
// - No atomic additions of floats: every sum has one order, which depends on the shape only.
#pragma once

#ifdef CORELLA_EMULATED
#include "emulated.h"
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define WARP 32
#define INF bits_to_float(0x7f800000u)

// ---- bfloat16 --------------------------------------------------------------------------------------------------------

struct bf16 {
    u16 bits;
};

__device__ __forceinline__ float bits_to_float(u32 bits) {
#ifdef CORELLA_EMULATED
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
#else
    return __uint_as_float(bits);
#endif
}

__device__ __forceinline__ u32 float_to_bits(float x) {
#ifdef CORELLA_EMULATED
    u32 bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits;
#else
    return __float_as_uint(x);
#endif
}

__device__ __forceinline__ float to_float(bf16 x) {
    return bits_to_float((u32)x.bits << 16);
}

__device__ __forceinline__ float to_float(float x) {
    return x;
}

// Two numbers rounded to nearest even: `low` into the lower half.
__device__ __forceinline__ u32 round_pair(float low, float high) {
#ifdef CORELLA_EMULATED
    u32 halves[2];
    const float x[2] = {low, high};
    for (int i = 0; i < 2; i++) {
        u32 bits = float_to_bits(x[i]);
        halves[i] = x[i] != x[i] ? 0x7fffu : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    }
    return halves[0] | halves[1] << 16;
#else
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

__device__ __forceinline__ bf16 to_bf16(float x) {
    return bf16{(u16)round_pair(x, 0.0f)};
}

// 2^x with two units in the last place; 0 for very small x.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef CORELLA_EMULATED
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

#define LOG2_E 1.4426950408889634f

// Two sums of bf16.
__device__ __forceinline__ u32 add_bf16(u32 a, u32 b) {
#ifdef CORELLA_EMULATED
    return round_pair(bits_to_float(a << 16) + bits_to_float(b << 16),
                      bits_to_float(a & 0xffff0000u) + bits_to_float(b & 0xffff0000u));
#else
    // Cards before sm_90 multiply and add only.
    u32 sum;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(0x3f803f80u), "r"(b));
    return sum;
#endif
}

// Four bytes of `a` (numbers 0 .. 3) and `b` (4 .. 7), a number in each four bits of `selector`.
__device__ __forceinline__ u32 permute(u32 a, u32 b, u32 selector) {
#ifdef CORELLA_EMULATED
    const u64 both = a | (u64)b << 32;
    u32 out = 0;
    for (int i = 0; i < 4; i++) {
        out |= (u32)(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    }
    return out;
#else
    return __byte_perm(a, b, selector);
#endif
}

// ---- kernels that are started early ----------------------------------------------------------------------------------

// From Hopper on a kernel can be started while the one before it still runs (programmatic dependent launch), and not only when its
// last block has ended and what it wrote is visible: that is some microseconds for each of the small kernels of a step. src/kernels.rs
// names the kernels that are started so, and each of their threads calls `wait_for_kernels_before`. Before that it reads nothing that a
// kernel may have written, and writes nothing at all: weights are written by no kernel of inference, nor are the words of a batch, which
// are copied to the card before the step's first kernel. What a kernel of training may write, such as a norm's weights, counts as
// written.
//
// Why that is enough: the wait returns when the kernel before has completed, with what it wrote visible. That one completed after its
// own wait had returned, so the one before it had completed too, and so on to the last kernel that was not started early, or the
// last copy, which start after everything and which everything starts after. Every thread of every such kernel waits, so none completes
// too soon. Nobody waits for a thread that cannot run: a kernel is started early only when all blocks of the one before have called
// `let_next_kernel_start` or ended, so all of those have their place.
//
// Behind its wait a kernel reads what other kernels wrote by ordinary loads only: `stream` and `fetch` below may be moved across it.
//
// On older cards, and where a kernel is started plainly, both return at once.
__device__ __forceinline__ void let_next_kernel_start() {
#if !defined(CORELLA_EMULATED) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ __forceinline__ void wait_for_kernels_before() {
#ifdef CORELLA_EMULATED
    emulated::waits_for_kernels_before();
#elif __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// How an early kernel begins that does nothing before the others have ended.
__device__ __forceinline__ void take_turn() {
    let_next_kernel_start();
    wait_for_kernels_before();
}

// Activations are read or written here: so late that a kernel that waits has waited, which the emulated card looks after.
__device__ __forceinline__ void at_activations() {
#ifdef CORELLA_EMULATED
    emulated::at_activations();
#endif
}

// ---- arrays ----------------------------------------------------------------------------------------------------------

// An array of activations in f32 or bf16, as the host passes it (src/array.rs has the same layout).
struct Array {
    void* data;
    u32 is_bf16;
    u32 unused;
};

__device__ __forceinline__ float load(Array a, u64 i) {
    at_activations();
    return a.is_bf16 ? to_float(((const bf16*)a.data)[i]) : ((const float*)a.data)[i];
}

__device__ __forceinline__ void store(Array a, u64 i, float x) {
    at_activations();
    if (a.is_bf16) {
        ((bf16*)a.data)[i] = to_bf16(x);
    } else {
        ((float*)a.data)[i] = x;
    }
}

#define PACKET 8

// Eight neighbours in f32.
struct Packet {
    float x[PACKET];
};

// Sixteen bytes, read and written at once.
struct alignas(16) Sixteen {
    u32 x[4];
};

// Reads of what nobody writes while the kernel runs. They stay where they stand in the text, before the products that use what
// earlier ones brought. `stream`: read once, and not kept in the processor's own cache.
#ifdef CORELLA_EMULATED
__device__ __forceinline__ Sixteen stream16(const void* p) {
    return *(const Sixteen*)p;
}
__device__ __forceinline__ uint2 stream8(const void* p) {
    return *(const uint2*)p;
}
__device__ __forceinline__ Sixteen fetch16(const void* p) {
    return *(const Sixteen*)p;
}
__device__ __forceinline__ uint2 fetch8(const void* p) {
    return *(const uint2*)p;
}
__device__ __forceinline__ u32 fetch4(const void* p) {
    return *(const u32*)p;
}
__device__ __forceinline__ u32 fetch2(const u16* p) {
    return *p;
}
#else
#define READS(name, how)                                                                                                 \
    __device__ __forceinline__ Sixteen name##16(const void* p) {                                                         \
        Sixteen v;                                                                                                       \
        asm volatile("ld.global.nc" how ".v4.u32 {%0, %1, %2, %3}, [%4];"                                                \
                     : "=r"(v.x[0]), "=r"(v.x[1]), "=r"(v.x[2]), "=r"(v.x[3])                                            \
                     : "l"(p));                                                                                          \
        return v;                                                                                                        \
    }                                                                                                                    \
    __device__ __forceinline__ uint2 name##8(const void* p) {                                                            \
        uint2 v;                                                                                                         \
        asm volatile("ld.global.nc" how ".v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));                      \
        return v;                                                                                                        \
    }
READS(stream, ".L1::no_allocate")
READS(fetch, "")
#undef READS
__device__ __forceinline__ u32 fetch4(const void* p) {
    u32 v;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}
__device__ __forceinline__ u32 fetch2(const u16* p) {
    u16 v;
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(v) : "l"(p));
    return v;
}
#endif

// Reads of weights ahead of their use, also before `wait_for_kernels_before`: ordinary loads, as the compiler of machine code moves those
// above (.nc) behind the wait.
#ifdef CORELLA_EMULATED
__device__ __forceinline__ Sixteen ahead16(const void* p) {
    return *(const Sixteen*)p;
}
__device__ __forceinline__ uint2 ahead8(const void* p) {
    return *(const uint2*)p;
}
__device__ __forceinline__ u32 ahead4(const void* p) {
    return *(const u32*)p;
}
__device__ __forceinline__ u32 ahead2(const u16* p) {
    return *p;
}
#else
__device__ __forceinline__ Sixteen ahead16(const void* p) {
    Sixteen v;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x[0]), "=r"(v.x[1]), "=r"(v.x[2]), "=r"(v.x[3])
                 : "l"(p)
                 : "memory");
    return v;
}
__device__ __forceinline__ uint2 ahead8(const void* p) {
    uint2 v;
    asm volatile("ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
    return v;
}
__device__ __forceinline__ u32 ahead4(const void* p) {
    u32 v;
    asm volatile("ld.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
__device__ __forceinline__ u32 ahead2(const u16* p) {
    u16 v;
    asm volatile("ld.global.u16 %0, [%1];" : "=h"(v) : "l"(p) : "memory");
    return v;
}
#endif

// Asks for bytes, a multiple of 16 at a multiple of 16, to be brought into the card's large cache (L2). Nothing waits for them, and what
// other kernels write there meanwhile is seen as ever: this may stand before `wait_for_kernels_before` whatever it asks for.
__device__ __forceinline__ void bring_near(const void* from, u32 bytes) {
#ifdef CORELLA_EMULATED
    emulated::brings_near(from, bytes);
#elif __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#endif
}

__device__ __forceinline__ Packet load8(const float* p) {
    Packet out;
    const Sixteen a = ((const Sixteen*)p)[0], b = ((const Sixteen*)p)[1];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out.x[i] = bits_to_float(a.x[i]);
        out.x[4 + i] = bits_to_float(b.x[i]);
    }
    return out;
}

__device__ __forceinline__ Packet packet_of_bf16(Sixteen raw) {
    Packet out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out.x[2 * i] = bits_to_float(raw.x[i] << 16);
        out.x[2 * i + 1] = bits_to_float(raw.x[i] & 0xffff0000u);
    }
    return out;
}

__device__ __forceinline__ Packet load8(const bf16* p) {
    return packet_of_bf16(*(const Sixteen*)p);
}

__device__ __forceinline__ void store8(float* p, Packet v) {
    Sixteen a, b;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        a.x[i] = float_to_bits(v.x[i]);
        b.x[i] = float_to_bits(v.x[4 + i]);
    }
    ((Sixteen*)p)[0] = a;
    ((Sixteen*)p)[1] = b;
}

__device__ __forceinline__ void store8(bf16* p, Packet v) {
    Sixteen a;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        a.x[i] = round_pair(v.x[2 * i], v.x[2 * i + 1]);
    }
    *(Sixteen*)p = a;
}

// Elements i .. i + 8 of an array; those from `end` on are 0. Whole packets at multiples of eight move at once: arrays begin
// at multiples of 256 bytes.
__device__ __forceinline__ Packet load8(Array a, u64 i, u64 end) {
    at_activations();
    if (i % PACKET == 0 && i + PACKET <= end) {
        return a.is_bf16 ? load8((const bf16*)a.data + i) : load8((const float*)a.data + i);
    }
    Packet out;
#pragma unroll
    for (int k = 0; k < PACKET; k++) {
        out.x[k] = i + k < end ? load(a, i + k) : 0.0f;
    }
    return out;
}

// Eight neighbours as they lie in memory, bf16 in the lower half: loads that follow each other wait for none of each other's
// numbers before all are under way.
struct Raw {
    u32 x[PACKET];
};

// As load8, still to be widened.
__device__ __forceinline__ Raw load8_raw(Array a, u64 i, u64 end) {
    at_activations();
    Raw out = {};
    if (i % PACKET == 0 && i + PACKET <= end) {
        const Sixteen* from = a.is_bf16 ? (const Sixteen*)((const bf16*)a.data + i) : (const Sixteen*)((const float*)a.data + i);
        const Sixteen low = from[0];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            out.x[k] = low.x[k];
        }
        if (!a.is_bf16) {
            const Sixteen high = from[1];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                out.x[4 + k] = high.x[k];
            }
        }
        return out;
    }
#pragma unroll
    for (int k = 0; k < PACKET; k++) {
        if (i + k < end) {
            if (a.is_bf16) {
                out.x[k / 2] |= (u32)((const bf16*)a.data)[i + k].bits << k % 2 * 16;
            } else {
                out.x[k] = ((const u32*)a.data)[i + k];
            }
        }
    }
    return out;
}

__device__ __forceinline__ Packet widen(Array a, Raw raw) {
    Packet out;
#pragma unroll
    for (int k = 0; k < PACKET; k++) {
        const u32 pair = raw.x[k / 2];
        out.x[k] = bits_to_float(a.is_bf16 ? (k % 2 ? pair & 0xffff0000u : pair << 16) : raw.x[k]);
    }
    return out;
}

// Writes elements i .. i + 8 as far as they lie before `end`.
__device__ __forceinline__ void store8(Array a, u64 i, u64 end, Packet v) {
    at_activations();
    if (i % PACKET == 0 && i + PACKET <= end) {
        if (a.is_bf16) {
            store8((bf16*)a.data + i, v);
        } else {
            store8((float*)a.data + i, v);
        }
        return;
    }
#pragma unroll
    for (int k = 0; k < PACKET; k++) {
        if (i + k < end) {
            store(a, i + k, v.x[k]);
        }
    }
}

// ---- sums over threads -----------------------------------------------------------------------------------------------

// The value of the lane whose number differs in the bits of `mask`. All lanes of the warp take part.
__device__ __forceinline__ float shuffle_xor(float x, int mask) {
#ifdef CORELLA_EMULATED
    return emulated::shuffle_xor(x, mask);
#else
    return __shfl_xor_sync(0xffffffffu, x, mask);
#endif
}

// The value of lane `lane`. All lanes of the warp take part.
__device__ __forceinline__ u32 shuffle_from(u32 x, int lane) {
#ifdef CORELLA_EMULATED
    return emulated::shuffle(0xffffffffu, x, lane, __LINE__);
#else
    return __shfl_sync(0xffffffffu, x, lane);
#endif
}

// Σ over the warp, the same bits in every lane.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        x += shuffle_xor(x, mask);
    }
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        const float other = shuffle_xor(x, mask);
        x = x > other || x != x ? x : other;
    }
    return x;
}

// Σ over a block of `threads` (a multiple of 32) threads in the order of its warps, the same bits in every thread.
// `scratch` holds threads / 32 floats of shared memory; it may be used again after the next __syncthreads.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    const u32 warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) {
        scratch[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    float sum = 0.0f;
    for (u32 i = 0; i < warps; i++) {
        sum += scratch[i];
    }
    return sum;
}
