// Token and position embeddings, and the way back: equal tokens are added up in the order of their positions.
#include "common.cuh"

// out[n,:] = wte[ids[n],:] + wpe[pos0 + n % t,:], without the latter where wpe is null.   A block per row.
extern "C" __global__ void encoder(Array out, const u32* ids, const float* wte, const float* wpe, u32 t, u64 c, u32 pos0) {
    const u64 row = blockIdx.x, token = (u64)ids[row] * c, position = (u64)(pos0 + row % t) * c;
    for (u64 i = threadIdx.x; i < c; i += blockDim.x) {
        store(out, row * c + i, wte[token + i] + (wpe ? wpe[position + i] : 0.0f));
    }
}

// dwte[id,:] += Σ dout[n,:] over the rows n with that id. `order` holds the rows sorted by id; group g of equal ids is
// order[starts[g] .. starts[g + 1]].   Grid: (columns / blockDim, groups), groups gridDim.y apart.
extern "C" __global__ void embedding_grad(float* dwte, Array dout, const u32* ids, const u32* order, const u32* starts,
                                          u32 groups, u64 c) {
    const u64 column = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= c) {
        return;
    }
    for (u32 group = blockIdx.y; group < groups; group += gridDim.y) {
        const u32 end = starts[group + 1];
        float sum = 0.0f;
#pragma unroll 4
        for (u32 i = starts[group]; i < end; i++) {
            sum += load(dout, order[i] * c + column);
        }
        dwte[(u64)ids[order[starts[group]]] * c + column] += sum;
    }
}

// dwpe[pos0 + p,:] += Σ_b dout[b·t + p,:].   Grid: (columns / blockDim, positions), positions gridDim.y apart.
extern "C" __global__ void position_grad(float* dwpe, Array dout, u32 b, u32 t, u64 c, u32 pos0) {
    const u64 column = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= c) {
        return;
    }
    for (u32 p = blockIdx.y; p < t; p += gridDim.y) {
        float sum = 0.0f;
#pragma unroll 4
        for (u32 i = 0; i < b; i++) {
            sum += load(dout, ((u64)i * t + p) * c + column);
        }
        dwpe[(u64)(pos0 + p) * c + column] += sum;
    }
}
