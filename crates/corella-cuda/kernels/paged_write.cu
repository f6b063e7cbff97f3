// Rows of a batch before attention: rotary positions, and keys and values rounded into their pages. All of it is bound by
// memory: a row of Llama 8B reads 12 KiB of qkv in bf16 and writes 4 KiB; a batch of 64 rows takes 0.3 µs of an H100's
// bandwidth, so a launch (2 to 3 µs, less in a graph) is what it costs.
#include "paged.cuh"

// Pair i of each head of q and k turns by angle i of its row: cosines, then sines, `pairs` each. Halves: (i, i + pairs);
// else neighbours: (2i, 2i + 1).   qkv: (N,width). Grid: (⌈heads·pairs / 128⌉, N).
extern "C" __global__ void rope_rows(Array qkv, const float* angles, u64 width, int heads, int hs, int pairs, int halves,
                                     u32 rows) {
    let_next_kernel_start();
    const int task = blockIdx.x * blockDim.x + threadIdx.x, head = task / pairs, i = task % pairs;
    // The angles, and below the pages, are words of the batch, which no kernel writes.
    float cosine = angles[(u64)blockIdx.y * 2 * pairs + i], sine = angles[((u64)blockIdx.y * 2 + 1) * pairs + i];
    wait_for_kernels_before();
    if (task >= heads * pairs) {
        return;
    }
    for (u64 row = blockIdx.y; row < rows; row += gridDim.y) {
        if (row != blockIdx.y) {
            cosine = angles[row * 2 * pairs + i];
            sine = angles[(row * 2 + 1) * pairs + i];
        }
        const u64 first = row * width + head * hs + (halves ? i : 2 * i), second = first + (halves ? pairs : 1);
        const float x = load(qkv, first), y = load(qkv, second);
        store(qkv, first, x * cosine - y * sine);
        store(qkv, second, y * cosine + x * sine);
    }
}

// out[i,:] = x[rows[i],:].   out: (count,c)  x: (N,c). Grid: (⌈c / 256⌉, count).
extern "C" __global__ void select_rows(Array out, Array x, const u32* rows, u32 count, u64 c) {
    const u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= c) {
        return;
    }
    for (u64 row = blockIdx.y; row < count; row += gridDim.y) {
        store(out, row * c + i, load(x, rows[row] * c + i));
    }
}

// to[r,:] = from[r,:] (=, +=) for parts of rows: row r begins at first + r·width of its array. Grid: (⌈c / 256⌉, rows).
struct Part {
    Array array;
    u64 first, width;
};

extern "C" __global__ void copy_part(Part to, Part from, u32 rows, u64 c, u32 add) {
    const u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= c) {
        return;
    }
    for (u64 row = blockIdx.y; row < rows; row += gridDim.y) {
        const u64 at = to.first + row * to.width + i;
        const float x = load(from.array, from.first + row * from.width + i);
        store(to.array, at, add ? load(to.array, at) + x : x);
    }
}

// A warp rounds a head of keys or values of a row to the cache's type and writes it to its position. Q8: scale max |x| / 127.
template <int KIND>
__device__ __forceinline__ void write_head(Pages pages, Array qkv, Batch batch, QueryHeads h, u32 rows) {
    let_next_kernel_start();
    const u64 task = (u64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    const u64 row = task / (2 * h.nkv);
    const int head = task % h.nkv, is_value = task / h.nkv % 2, position = row < rows ? batch.positions[row] : -1;
    const u32 page = position < 0 ? 0 : page_of(batch, pages, batch.sequences[row], position);
    wait_for_kernels_before();
    if (position < 0) {
        return;
    }
    const int place = position % pages.page_len;
    const u64 first = head_first(pages, page, head);
    const u64 from = row * (u64)(h.nh + 2 * h.nkv) * h.hs + (u64)(h.nh + is_value * h.nkv + head) * h.hs;
    float inverse = 0.0f;
    if (KIND == KV_Q8) {
        // Magnitudes as integers are in the order of numbers, and not-a-number is the largest.
        u32 largest = 0;
        for (int i = lane; i < h.hs; i += WARP) {
            largest = max(largest, float_to_bits(load(qkv, from + i)) & 0x7fffffffu);
        }
#pragma unroll
        for (int mask = WARP / 2; mask > 0; mask /= 2) {
            largest = max(largest, float_to_bits(shuffle_xor(bits_to_float(largest), mask)));
        }
        const float top = bits_to_float(largest);
        // Below this the inverse would overflow.
        const bool tiny = top < 1e-36f;
        inverse = tiny ? 0.0f : 127.0f / top;
        if (lane == 0) {
            (is_value ? pages.v_scales : pages.k_scales)[first + place] = tiny ? 0.0f : top / 127.0f;
        }
    }
    void* const data = is_value ? pages.v : pages.k;
    for (int i = lane; i < pages.hsp; i += WARP) {
        const float x = i < h.hs ? load(qkv, from + i) : 0.0f;
        const u64 to = first * pages.hsp +
                       (is_value ? (u64)place * pages.hsp + i : ((u64)(i / 8) * pages.page_len + place) * 8 + i % 8);
        if (KIND == KV_F16) {
            ((u16*)data)[to] = float_to_half(x);
        } else if (KIND == KV_BF16) {
            ((bf16*)data)[to] = to_bf16(x);
        } else {
            ((signed char*)data)[to] = (signed char)rintf(x * inverse);
        }
    }
}

// qkv: (N,(NH+2·NKV)·HS). Grid: ⌈N·2·NKV / 4⌉, blocks of four warps.
#define WRITE(name, KIND)                                                                                                \
    extern "C" __global__ void name(Pages pages, Array qkv, Batch batch, QueryHeads h, u32 rows) {                       \
        write_head<KIND>(pages, qkv, batch, h, rows);                                                                    \
    }
WRITE(kv_write_f16, KV_F16)
WRITE(kv_write_bf16, KV_BF16)
WRITE(kv_write_q8, KV_Q8)
