// Races in shared memory: the compiler calls a function before every access (what it does for -fsanitize=thread, whose library
// is not linked; these functions stand in its place), and two accesses of one place by two threads, one of them a write, are a
// mistake unless a barrier of the block, or of the warp they share, lies between.
#pragma once

#ifdef CORELLA_RACES

#define UNSEEN __attribute__((noinline, no_sanitize("thread")))

extern "C" {
extern char __start_corella_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_corella_shared[] __attribute__((weak, visibility("hidden")));
}

namespace emulated {

enum Access { READ, WRITE, ATOMIC };

/// Who touched a place: one thread, several of a warp, several warps; and at which barriers.
struct Touch { unsigned epoch, warp_epoch; short warp, thread; };
constexpr short MANY = -1, ATOMICS = -2;
/// Two bytes of shared memory: what last wrote them, and who read them since the last barrier.
struct Place { Touch written, read; };

constexpr size_t DYNAMIC = 99 << 10, STATIC = 48 << 10;
static Place places[(DYNAMIC + STATIC) / 2];
/// Barriers of the block so far, of all blocks, and of each warp.
static unsigned block_epoch, warp_epochs[MOST_THREADS / WARP];

UNSEEN static bool ordered(const Touch& before, int warp) {
    if (before.epoch != block_epoch) return true;
    return before.warp == warp && before.warp_epoch != warp_epochs[warp];
}

UNSEEN static void note(Place& place, Access access) {
    const int warp = current / WARP;
    const Touch now = {block_epoch, warp_epochs[warp], (short)warp, (short)(access == ATOMIC ? ATOMICS : current)};
    Touch &read = place.read, &written = place.written;
    if (!ordered(written, warp) && written.thread != now.thread)
        fail("a race: shared memory that another thread wrote, without a barrier between");
    if (access == READ) {
        if (ordered(read, warp)) read = now;
        else if (read.warp != warp) read.warp = MANY;
        else if (read.thread != current) read.thread = MANY;
    } else {
        if (!ordered(read, warp) && (read.warp != warp || read.thread != current))
            fail("a race: shared memory that another thread read, without a barrier between");
        written = now;
    }
}

UNSEEN static void touch(const void* at, size_t bytes, Access access) {
    const char* p = (const char*)at;
    size_t first;
    if (dynamic_shared && p >= dynamic_shared && p < dynamic_shared + dynamic_bytes) first = p - dynamic_shared;
    else if (p >= __start_corella_shared && p < __stop_corella_shared) first = DYNAMIC + (p - __start_corella_shared);
    else return;
    for (size_t i = first / 2; i <= (first + bytes - 1) / 2; i++) note(places[i], access);
}
UNSEEN static void block_barrier() { block_epoch++; }
UNSEEN static void warp_barrier(int warp) { warp_epochs[warp]++; }

}  // namespace emulated

#define SEEN(bytes)                                                                                                       \
    UNSEEN void __tsan_read##bytes(void* p) { emulated::touch(p, bytes, emulated::READ); }                                \
    UNSEEN void __tsan_write##bytes(void* p) { emulated::touch(p, bytes, emulated::WRITE); }                              \
    UNSEEN void __tsan_unaligned_read##bytes(void* p) { emulated::touch(p, bytes, emulated::READ); }                      \
    UNSEEN void __tsan_unaligned_write##bytes(void* p) { emulated::touch(p, bytes, emulated::WRITE); }
extern "C" {
SEEN(1) SEEN(2) SEEN(4) SEEN(8) SEEN(16)
UNSEEN void __tsan_read_range(void* p, size_t bytes) { emulated::touch(p, bytes, emulated::READ); }
UNSEEN void __tsan_write_range(void* p, size_t bytes) { emulated::touch(p, bytes, emulated::WRITE); }
UNSEEN void __tsan_func_entry(void*) {}
UNSEEN void __tsan_func_exit() {}
UNSEEN void __tsan_init() {}
UNSEEN void __tsan_vptr_update(void**, void*) {}
}
#undef SEEN

#else

#define UNSEEN
namespace emulated {
enum Access { READ, WRITE, ATOMIC };
static inline void touch(const void*, size_t, Access) {}
static inline void block_barrier() {}
static inline void warp_barrier(int) {}
}  // namespace emulated

#endif
