// The paged cache of keys and values, and the rows of a batch. src/pages.rs and src/batch.rs lay them out.
#pragma once

#include "tensor.cuh"

// Positions that one block of the decode kernel takes, cut at absolute places.
#define STRETCH 256

enum KvKind { KV_F16 = 0, KV_BF16 = 1, KV_Q8 = 2 };

// A head of a page holds its keys as (HSP/8, page_len, 8), so that neighbouring threads read neighbouring positions, and its
// values as (page_len, HSP); HSP is HS up to a multiple of 8, zeros behind HS. Pages: (pages, NKV, …).
struct Pages {
    void* k;
    void* v;
    // (pages, NKV, page_len), of KV_Q8 only.
    float* k_scales;
    float* v_scales;
    int page_len, nkv, hs, hsp;
};

// Row n stands at positions[n] of sequence sequences[n], whose pages are tables[sequence·table_len ..]. A negative position: the
// row belongs to no sequence; it writes nothing into pages and sees nothing.
struct Batch {
    const u32* sequences;
    const int* positions;
    const u32* tables;
    int table_len;
};

struct QueryHeads {
    int nh, nkv, hs;
};

// Positions before those of a head of a page.
__device__ __forceinline__ u64 head_first(const Pages& p, u32 page, int head) {
    return ((u64)page * p.nkv + head) * p.page_len;
}

__device__ __forceinline__ u32 page_of(const Batch& b, const Pages& p, u32 sequence, int position) {
    return b.tables[(u64)sequence * b.table_len + position / p.page_len];
}

// Eight cached numbers as they lie in memory: of KV_Q8 two words, of the other kinds four. Loads that follow each other are all
// under way before the first is widened.
struct CachedRaw {
    u32 x[4];
};

// Those from element `at` on (a multiple of 8).
template <int KIND>
__device__ __forceinline__ CachedRaw cached_raw(const void* data, u64 at) {
    at_activations();
    if (KIND == KV_Q8) {
        const uint2 raw = *(const uint2*)((const u8*)data + at);
        return CachedRaw{{raw.x, raw.y, 0, 0}};
    }
    const Sixteen raw = *(const Sixteen*)((const u16*)data + at);
    return CachedRaw{{raw.x[0], raw.x[1], raw.x[2], raw.x[3]}};
}

// As numbers, without their scale.
template <int KIND>
__device__ __forceinline__ Packet cached_numbers(CachedRaw raw) {
    Packet out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (KIND == KV_BF16) {
            out.x[2 * i] = bits_to_float(raw.x[i] << 16);
            out.x[2 * i + 1] = bits_to_float(raw.x[i] & 0xffff0000u);
        } else if (KIND == KV_F16) {
            out.x[2 * i] = half_to_float((u16)raw.x[i]);
            out.x[2 * i + 1] = half_to_float((u16)(raw.x[i] >> 16));
        } else {
            out.x[i] = (float)(signed char)(raw.x[0] >> 8 * i);
            out.x[4 + i] = (float)(signed char)(raw.x[1] >> 8 * i);
        }
    }
    return out;
}
