// Reading as fast as the card can: a ceiling for what memory bounds.
#include "common.cuh"

// Sixteen bytes in flight for each of so many loads of a thread.
#define AHEAD 8

// out[thread] = the exclusive or of all words that the thread reads, `passes` times over x.   out: a word a thread  x: (n) packets
// of sixteen bytes, whole blocks' worth of AHEAD packets for each thread. Any number of blocks of 256 threads.
extern "C" __global__ void read_all(u32* out, const Sixteen* x, u64 n, u32 passes) {
    const u64 thread = (u64)blockIdx.x * blockDim.x + threadIdx.x, threads = (u64)gridDim.x * blockDim.x;
    u32 all = 0;
    for (u32 pass = 0; pass < passes; pass++) {
        for (u64 first = thread; first < n; first += AHEAD * threads) {
            Sixteen ahead[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const u64 at = first + i * threads;
                ahead[i] = at < n ? x[at] : Sixteen{{0, 0, 0, 0}};
            }
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                // Rotated by the pass, so that no pass undoes another and none can be left out.
                const u32 word = ahead[i].x[0] ^ ahead[i].x[1] ^ ahead[i].x[2] ^ ahead[i].x[3];
                all ^= word << (pass & 15) | word >> (32 - (pass & 15)) % 32;
            }
        }
    }
    out[thread] = all;
}
