// Operations that look at each element alone: GELU, sums, casts. Each thread takes packets of eight, `blockDim · gridDim`
// packets apart.
#include "common.cuh"

#define FOR_PACKETS(i, len)                                                                                              \
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * PACKET; i < (len); i += (u64)gridDim.x * blockDim.x * PACKET)

// out = a over the first len elements, rounded to out's format.
extern "C" __global__ void cast(Array out, Array a, u64 len) {
    FOR_PACKETS(i, len) {
        store8(out, i, len, load8(a, i, len));
    }
}

// out = a + b.
extern "C" __global__ void add(Array out, Array a, Array b, u64 len) {
    FOR_PACKETS(i, len) {
        Packet x = load8(a, i, len);
        const Packet y = load8(b, i, len);
#pragma unroll
        for (int k = 0; k < PACKET; k++) {
            x.x[k] += y.x[k];
        }
        store8(out, i, len, x);
    }
}
