// A CUDA block on one thread of the host: what the text of a kernel needs to be compiled by a C++ compiler and run.
//
// Every CUDA thread of a block is a fiber with its own stack. Fibers change places at collective points only (barriers,
// shuffles, matrix products of a warp), so between two of them a thread runs alone, in the order that the launch asks for.
//
// Noticed: barriers and warp operations that not all threads reach, or reach at different lines; reads and writes outside
// device memory and dynamic shared memory (pages that may not be touched lie behind both); misaligned vectors and indices
// outside arrays of fixed size (traps of the compiler); shared memory that is read before it is written (it begins as NaN);
// asynchronous copies that are not waited for (they arrive as late as they may); activations that are touched before a kernel has
// waited for those before it; most races, as results that differ between
// orders of threads and blocks; and, with CORELLA_RACES, those in shared memory (races.h).
#pragma once

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <utility>
#include <vector>

#include "fiber.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#ifdef CORELLA_RACES
#define __shared__ static __attribute__((section("corella_shared")))
#else
#define __shared__ static
#endif
#define __forceinline__ inline
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct uint2 { unsigned x, y; } __attribute__((aligned(8)));
struct uint4 { unsigned x, y, z, w; } __attribute__((aligned(16)));
struct int2 { int x, y; } __attribute__((aligned(8)));
struct int4 { int x, y, z, w; } __attribute__((aligned(16)));
struct float2 { float x, y; } __attribute__((aligned(8)));
struct float4 { float x, y, z, w; } __attribute__((aligned(16)));
struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

namespace emulated {

constexpr int WARP = 32, MOST_THREADS = 1024;
constexpr size_t PAGE = 4096;

enum class State { Ready, AtWarp, AtBlock, Done };

/// Bytes from `from` to `to` that a thread asked for and has not yet waited for.
struct Copy { void* to; const void* from; int bytes, valid, group; };

struct Thread {
    Fiber fiber;
    State state;
    int line;
    int parity;
    int groups;
    /// Waits at a barrier of the warp, not only for what its lanes show each other.
    bool at_barrier;
    /// It has waited for the kernels before; it has touched activations.
    bool waited, touched;
    std::vector<Copy> copies;
};

/// What the lanes of a warp show each other; two of them, so that the next operation leaves the last one's readable.
struct Exchange { uint64_t words[WARP][8]; };

static Thread threads[MOST_THREADS];
static Exchange exchanges[MOST_THREADS / WARP][2];
static Fiber scheduler;
static int current, count;
static char message[512];
static sigjmp_buf failed;
static char* dynamic_shared;
static size_t dynamic_bytes;
static const char* kernel_name;
static void (*body)(void**);
static void** arguments;
/// Threads of the launch that have waited for the kernels before, and those that have not.
static size_t waiting, not_waiting;

[[noreturn]] static inline void fail(const char* format, ...) {
    char what[256];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    snprintf(message, sizeof message, "%s, block (%u,%u,%u), thread (%u,%u,%u): %s", kernel_name, blockIdx.x, blockIdx.y,
             blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, what);
    siglongjmp(failed, 1);
}

static void on_signal(int signal, siginfo_t* info, void*) {
    if (signal == SIGSEGV || signal == SIGBUS) fail("memory outside every array: %p", info->si_addr);
    fail("an index outside its array, a misaligned vector, or arithmetic without a defined result");
}

}  // namespace emulated

#include "races.h"

namespace emulated {

/// Leaves the thread until all that must reach this point have reached it.
static inline void wait(State state, int line) {
    Thread& self = threads[current];
    self.state = state;
    self.line = line;
    switch_fiber(self.fiber, scheduler);
}

static inline Exchange& exchange() { return exchanges[current / WARP][threads[current].parity]; }

/// Shows `words` to the warp and waits for it. What the others showed is in `exchange()` until `release`.
static inline Exchange& together(const void* words, int bytes, int line) {
    memcpy(exchange().words[current % WARP], words, bytes);
    wait(State::AtWarp, line);
    return exchange();
}
static inline void release() { threads[current].parity ^= 1; }

template <class T> T shuffle(unsigned mask, T value, int from, int line) {
    if (mask != 0xffffffffu) fail("a shuffle of part of a warp");
    static_assert(sizeof(T) <= 8, "a shuffled value");
    T got;
    Exchange& all = together(&value, sizeof value, line);
    memcpy(&got, all.words[from & (WARP - 1)], sizeof got);
    release();
    return got;
}

static inline unsigned ballot(unsigned mask, int predicate, int line) {
    if (mask != 0xffffffffu) fail("a ballot of part of a warp");
    uint64_t word = predicate != 0;
    Exchange& all = together(&word, sizeof word, line);
    unsigned bits = 0;
    for (int lane = 0; lane < WARP; lane++) bits |= (unsigned)all.words[lane][0] << lane;
    release();
    return bits;
}

static inline void warp_barrier_of(int line) {
    threads[current].at_barrier = true;
    ballot(0xffffffffu, 1, line);
}

/// All of it must be there, though nothing is read.
static inline void brings_near(const void* from, unsigned bytes) {
    if (((uintptr_t)from | bytes) % 16) fail("bytes to be brought near that are not aligned to 16");
    for (unsigned i = 0; i < bytes; i += 16) (void)*((const volatile char*)from + i);
}
static inline void at_activations() { threads[current].touched = true; }
static inline void waits_for_kernels_before() {
    if (threads[current].touched) fail("activations are touched before the kernels before have ended");
    threads[current].waited = true;
}

static void enter() {
    body(arguments);
    Thread& self = threads[current];
    if (!self.copies.empty()) fail("ends before its asynchronous copies do");
    (self.waited ? waiting : not_waiting)++;
    self.state = State::Done;
    switch_fiber(self.fiber, scheduler);
    abort();
}

static inline void resume(int thread) {
    current = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
    switch_fiber(scheduler, threads[thread].fiber);
}

/// All lanes of a range have the state, at one line; 0 if not all, -1 if the lines differ.
static inline int all_at(int first, int last, State state) {
    for (int i = first; i < last; i++) if (threads[i].state != state) return 0;
    for (int i = first; i < last; i++) {
        if (threads[i].line != threads[first].line) { current = i; return -1; }
    }
    return 1;
}

static inline void blame(int thread, const char* what) {
    current = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
    fail("%s (line %d)", what, threads[thread].line);
}

/// Runs a warp until each of its lanes is done or at a barrier of the block.
static inline void run_warp(int warp, bool backwards) {
    int first = warp * WARP;
    for (;;) {
        for (int i = 0; i < WARP; i++) {
            int lane = first + (backwards ? WARP - 1 - i : i);
            if (threads[lane].state == State::Ready) resume(lane);
        }
        int at = all_at(first, first + WARP, State::AtWarp);
        if (at < 0) blame(current, "the lanes of a warp wait at different operations");
        if (at == 0) break;
        if (threads[first].at_barrier) warp_barrier(warp);
        for (int lane = first; lane < first + WARP; lane++) {
            threads[lane].state = State::Ready;
            threads[lane].at_barrier = false;
        }
    }
    for (int lane = first; lane < first + WARP; lane++) {
        if (threads[lane].state == State::AtWarp) blame(lane, "an operation of the warp that some lanes never reach");
    }
}

static inline void run_block(size_t shared, bool backwards) {
    memset(dynamic_shared, 0xff, shared);
    block_barrier();
    for (int i = 0; i < count; i++) {
        threads[i].state = State::Ready;
        threads[i].parity = threads[i].groups = threads[i].line = 0;
        threads[i].at_barrier = threads[i].waited = threads[i].touched = false;
        threads[i].copies.clear();
        start_fiber(threads[i].fiber, enter);
    }
    for (;;) {
        for (int i = 0; i < count / WARP; i++) run_warp(backwards ? count / WARP - 1 - i : i, backwards);
        if (all_at(0, count, State::Done)) return;
        int at = all_at(0, count, State::AtBlock);
        if (at < 0) blame(current, "threads wait at different barriers");
        if (at == 0) {
            for (int i = 0; i < count; i++) {
                if (threads[i].state == State::AtBlock) blame(i, "a barrier that some threads never reach");
            }
        }
        for (int i = 0; i < count; i++) threads[i].state = State::Ready;
        block_barrier();
    }
}

static inline size_t whole_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

/// Memory that ends, rounded up to 16 bytes, where a page that may not be touched begins.
static inline char* guarded(size_t bytes) {
    size_t body = whole_pages((bytes + 15) / 16 * 16);
    char* all = (char*)mmap(nullptr, body + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + PAGE, body ? body : 1, body ? PROT_READ | PROT_WRITE : PROT_NONE)) return nullptr;
    return all + PAGE + body - (bytes + 15) / 16 * 16;
}

static inline void release_guarded(char* memory, size_t bytes) {
    size_t rounded = (bytes + 15) / 16 * 16, body = whole_pages(rounded);
    munmap(memory + rounded - body - PAGE, body + 2 * PAGE);
}

template <class... A, size_t... I> void call(void (*kernel)(A...), void** parameters, std::index_sequence<I...>) {
    kernel(*(A*)parameters[I]...);
}
template <class... A> void call(void (*kernel)(A...), void** parameters) {
    call(kernel, parameters, std::index_sequence_for<A...>());
}

/// Bytes of each parameter; how many there are.
template <class... A> int sizes_of(void (*)(A...), size_t* sizes) {
    ((*sizes++ = sizeof(A)), ...);
    return sizeof...(A);
}

struct Kernel { const char* name; void (*body)(void**); int (*sizes)(size_t*); };

static inline float shuffle_xor(float x, int mask) { return shuffle(0xffffffffu, x, (current % WARP) ^ mask, __LINE__); }

}  // namespace emulated

#define __syncthreads() emulated::wait(emulated::State::AtBlock, __LINE__)
#define __syncwarp(...) emulated::warp_barrier_of(__LINE__)
#define __shfl_sync(mask, value, lane) emulated::shuffle(mask, value, lane, __LINE__)
#define __shfl_xor_sync(mask, value, bits) emulated::shuffle(mask, value, (threadIdx.x & 31) ^ (bits), __LINE__)
#define __shfl_down_sync(mask, value, by) \
    emulated::shuffle(mask, value, (threadIdx.x & 31) + (by) > 31 ? (threadIdx.x & 31) : (threadIdx.x & 31) + (by), __LINE__)
#define __shfl_up_sync(mask, value, by) \
    emulated::shuffle(mask, value, (threadIdx.x & 31) < (by) ? (threadIdx.x & 31) : (threadIdx.x & 31) - (by), __LINE__)
#define __ballot_sync(mask, predicate) emulated::ballot(mask, predicate, __LINE__)
#define __any_sync(mask, predicate) (emulated::ballot(mask, predicate, __LINE__) != 0)
#define __all_sync(mask, predicate) (emulated::ballot(mask, predicate, __LINE__) == 0xffffffffu)

static inline float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
static inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
static inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
static inline int __float_as_int(float x) { int y; memcpy(&y, &x, 4); return y; }
static inline long long __double_as_longlong(double x) { long long y; memcpy(&y, &x, 8); return y; }
static inline double __longlong_as_double(long long x) { double y; memcpy(&y, &x, 8); return y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __ddiv_rn(double x, double y) { return x / y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)(((unsigned __int128)x * y) >> 64);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(unsigned x) { return __builtin_ffs((int)x); }
static inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <class T> UNSEEN static T atomicAdd(T* to, T value) {
    emulated::touch(to, sizeof value, emulated::ATOMIC);
    T before = *to;
    *to += value;
    return before;
}
#define __expf expf
#define __logf logf
static inline float __fdividef(float x, float y) { return x / y; }
static inline void sincospi(double x, double* s, double* c) { *s = sin(x * M_PI); *c = cos(x * M_PI); }
template <class T> static inline T __ldg(const T* p) { return *p; }
#define min emulated_min
#define max emulated_max
template <class T, class U> static inline auto min(T a, U b) -> decltype(a + b) { return a < b ? a : b; }
template <class T, class U> static inline auto max(T a, U b) -> decltype(a + b) { return a > b ? a : b; }

