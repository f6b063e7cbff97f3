// Rotary positions on the heads of q and k, in place.
#include "common.cuh"

// Pair i of a head at position p turns by the angle whose cosine and sine stand in row p of the table (positions,hs); by the
// opposite angle where `sign` is −1.   qkv: (rows,width), the `heads` first heads of hs turn. Grid: (⌈heads·hs/2 / blockDim⌉, rows).
extern "C" __global__ void rope(Array qkv, const float* table, u64 rows, u32 t, u32 heads, u32 hs, u64 width, float sign) {
    const u32 half = hs / 2, pair = blockIdx.x * blockDim.x + threadIdx.x;
    if (pair >= heads * half) {
        return;
    }
    const u32 head = pair / half, i = pair % half;
    for (u64 row = blockIdx.y; row < rows; row += gridDim.y) {
        const float* angles = table + row % t * hs;
        const float cosine = angles[i], sine = sign * angles[half + i];
        const u64 at = row * width + (u64)head * hs + i;
        const float x = load(qkv, at), y = load(qkv, at + half);
        store(qkv, at, x * cosine - y * sine);
        store(qkv, at + half, y * cosine + x * sine);
    }
}
