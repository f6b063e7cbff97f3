// Rows of token embeddings, unpacked exactly. Bound by memory, and by the launch: 64 rows of 4,096 in bf16 are 0.5 MB read and
// 1 MB written, 0.5 µs on an H100.
#include "weights.cuh"

// out[n,:] (=, +=) w[ids[n],:]; without ids w[n,:].   out: (N,c)  w: (V,cols), c ≤ cols. A thread for eight columns. Grid: (⌈cols/8 / 64⌉, N).
template <class Form>
__device__ __forceinline__ void rows(Array out, const u32* ids, const Weight& w, u64 c, u32 add, u32 n) {
    const u64 column = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (column >= c) {
        return;
    }
    for (u64 row = blockIdx.y; row < n; row += gridDim.y) {
        const u64 at = row * c + column, end = row * c + c;
        Packet x = Form::eight(w, ids ? ids[row] : row, column);
        if (add) {
            const Packet before = load8(out, at, end);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                x.x[i] += before.x[i];
            }
        }
        store8(out, at, end, x);
    }
}

#define LOOKUP(name, Form)                                                                                               \
    extern "C" __global__ void name(Array out, const u32* ids, Weight w, u64 c, u32 add, u32 n) {                        \
        rows<Form>(out, ids, w, c, add, n);                                                                              \
    }
LOOKUP(lookup_f32, InF32)
LOOKUP(lookup_f16, InHalf)
LOOKUP(lookup_bf16, InBrain)
LOOKUP(lookup_q8, Bytes8)
LOOKUP(lookup_q4k, Blocks4)
LOOKUP(lookup_wide, Wide)
