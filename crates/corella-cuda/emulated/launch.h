// The C interface: device memory, and launches by name. `KERNELS`, a list of `KERNEL(name)`, is made from the text.
#pragma once

namespace emulated {

#define KERNEL(name) \
    {#name, [](void** parameters) { call(::name, parameters); }, [](size_t* sizes) { return sizes_of(::name, sizes); }},
static const Kernel kernels[] = {KERNELS{nullptr, nullptr, nullptr}};
#undef KERNEL

static inline const Kernel* find(const char* name) {
    for (const Kernel* k = kernels; k->name; k++) if (!strcmp(k->name, name)) return k;
    return nullptr;
}

static inline void run_grid(size_t shared, bool backwards) {
    size_t blocks = (size_t)gridDim.x * gridDim.y * gridDim.z;
    for (size_t i = 0; i < blocks; i++) {
        size_t at = backwards ? blocks - 1 - i : i;
        blockIdx = {(unsigned)(at % gridDim.x), (unsigned)(at / gridDim.x % gridDim.y),
                    (unsigned)(at / ((size_t)gridDim.x * gridDim.y))};
        run_block(shared, backwards);
    }
}

/// Limits of every card from compute capability 8.0 on.
static inline const char* refuse(size_t shared) {
    if (count % WARP || !count || count > MOST_THREADS) return "a block must be 1 to 32 whole warps";
    if (!gridDim.x || !gridDim.y || !gridDim.z || gridDim.x > 0x7fffffff || gridDim.y > 65535 || gridDim.z > 65535)
        return "a grid of this size";
    if (shared > 99 << 10) return "more than 99 KiB of shared memory";
    return nullptr;
}

}  // namespace emulated

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void* emulated_alloc(size_t bytes) { return emulated::guarded(bytes); }
EXPORT void emulated_free(void* memory, size_t bytes) { emulated::release_guarded((char*)memory, bytes); }

/// Writes the bytes of each parameter (at most 32 of them) and returns how many there are: what a recorded launch must keep.
EXPORT int emulated_parameters(const char* name, size_t* sizes) {
    const emulated::Kernel* kernel = emulated::find(name);
    return kernel ? kernel->sizes(sizes) : -1;
}

/// Of the last launch: 1 if all threads waited for the kernels before, 0 if none did, -1 if some did.
EXPORT int emulated_waits() {
    using namespace emulated;
    return waiting ? not_waiting ? -1 : 1 : 0;
}

/// Runs a kernel; null, or what went wrong. Not to be called twice at the same time.
EXPORT const char* emulated_launch(const char* name, const unsigned* grid, const unsigned* block, size_t shared,
                                   void** parameters, int backwards) {
    using namespace emulated;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    count = (int)(block[0] * block[1] * block[2]);
    kernel_name = name;
    const Kernel* kernel = find(name);
    if (!kernel) return "no kernel of this name";
    body = kernel->body;
    if (const char* why = refuse(shared)) return why;
    arguments = parameters;
    dynamic_shared = guarded(shared);
    dynamic_bytes = shared;
    waiting = not_waiting = 0;
    const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    struct sigaction ours, before[5];
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = on_signal;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 5; i++) sigaction(signals[i], &ours, &before[i]);
    const char* error = nullptr;
    if (sigsetjmp(failed, 1)) error = message;
    else run_grid(shared, backwards != 0);
    for (int i = 0; i < 5; i++) sigaction(signals[i], &before[i], nullptr);
    release_guarded(dynamic_shared, shared);
    return error;
}
