// Packed weights: rows of `cols` numbers, a multiple of 8, in one of six forms. src/weight.rs packs them.
#pragma once

#include "tensor.cuh"

struct Weight {
    // f32, f16 or bf16; signed bytes; or whole blocks of Q4_K (144 bytes for 256 weights, as in files).
    const void* data;
    // Bytes8: f16, one for 32 weights. Wide: f32, one for `sub` weights, and as many minima.
    const void* scales;
    const float* mins;
    u64 cols;
    u32 rows, sub;
};

// Each form gives eight neighbours of a row, from a column on that is a multiple of 8: at once (`eight`), or first as they lie in
// memory (`ahead`), by reads that may stand before what the kernel waits for, and then as numbers.
struct InF32 {
    // Of a number.
    static constexpr u32 BYTES = 4;
    struct Raw {
        Sixteen low, high;
    };
    static __device__ __forceinline__ const float* at(const Weight& w, u64 row, u64 column) {
        return (const float*)w.data + row * w.cols + column;
    }
    static __device__ __forceinline__ Raw ahead(const Weight& w, u64 row, u64 column) {
        return Raw{ahead16(at(w, row, column)), ahead16(at(w, row, column) + 4)};
    }
    static __device__ __forceinline__ Packet numbers(const Raw& raw) {
        Packet out;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            out.x[i] = bits_to_float(raw.low.x[i]);
            out.x[4 + i] = bits_to_float(raw.high.x[i]);
        }
        return out;
    }
    static __device__ __forceinline__ Packet eight(const Weight& w, u64 row, u64 column) {
        return load8(at(w, row, column));
    }
    // Eight neighbours of an array of this format, from element i on.
    static __device__ __forceinline__ Raw of(const void* data, u64 i) {
        const Sixteen* const from = (const Sixteen*)((const float*)data + i);
        return Raw{from[0], from[1]};
    }
};

struct InHalf {
    static constexpr u32 BYTES = 2;
    typedef Sixteen Raw;
    static __device__ __forceinline__ const u16* at(const Weight& w, u64 row, u64 column) {
        return (const u16*)w.data + row * w.cols + column;
    }
    static __device__ __forceinline__ Raw ahead(const Weight& w, u64 row, u64 column) {
        return ahead16(at(w, row, column));
    }
    static __device__ __forceinline__ Packet numbers(const Raw& raw) {
        Packet out;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            out.x[2 * i] = half_to_float((u16)raw.x[i]);
            out.x[2 * i + 1] = half_to_float((u16)(raw.x[i] >> 16));
        }
        return out;
    }
    static __device__ __forceinline__ Packet eight(const Weight& w, u64 row, u64 column) {
        return numbers(*(const Sixteen*)at(w, row, column));
    }
};

struct InBrain {
    static constexpr u32 BYTES = 2;
    typedef Sixteen Raw;
    static __device__ __forceinline__ const bf16* at(const Weight& w, u64 row, u64 column) {
        return (const bf16*)w.data + row * w.cols + column;
    }
    static __device__ __forceinline__ Raw ahead(const Weight& w, u64 row, u64 column) {
        return ahead16(at(w, row, column));
    }
    static __device__ __forceinline__ Packet numbers(const Raw& raw) {
        return packet_of_bf16(raw);
    }
    static __device__ __forceinline__ Packet eight(const Weight& w, u64 row, u64 column) {
        return load8(at(w, row, column));
    }
    static __device__ __forceinline__ Raw of(const void* data, u64 i) {
        return *(const Sixteen*)((const bf16*)data + i);
    }
};

__device__ __forceinline__ Packet signed_bytes(uint2 raw) {
    Packet out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out.x[i] = (float)(signed char)(raw.x >> 8 * i);
        out.x[4 + i] = (float)(signed char)(raw.y >> 8 * i);
    }
    return out;
}

// Q8_0 with its scales apart, so that codes lie at multiples of 16 bytes: d·code.
struct Bytes8 {
    static __device__ __forceinline__ Packet eight(const Weight& w, u64 row, u64 column) {
        const u64 at = row * w.cols + column;
        Packet out = signed_bytes(*(const uint2*)((const u8*)w.data + at));
        const float d = half_to_float(((const u16*)w.scales)[at / 32]);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            out.x[i] *= d;
        }
        return out;
    }
};

// Scale and minimum of stretch s (32 weights) of a block of Q4_K, whose first 16 bytes are `head`: d and dmin in f16, then
// 6-bit scales and minima of eight stretches in twelve bytes.
__device__ __forceinline__ void stretch_of_q4k(uint4 head, int s, float& scale, float& minimum) {
    // Four scales in the low six bits of y's bytes, four minima in z's; the others' low four bits in w, their high two bits above
    // those of y and z.
    const int shift = 8 * (s & 3);
    const u32 a = head.y >> shift, b = head.z >> shift, c = head.w >> shift;
    const u32 code = s < 4 ? a & 63 : (c & 15) | ((a >> 6) & 3) << 4;
    const u32 low = s < 4 ? b & 63 : ((c >> 4) & 15) | ((b >> 6) & 3) << 4;
    scale = half_to_float((u16)head.x) * (float)code;
    minimum = half_to_float((u16)(head.x >> 16)) * (float)low;
}

// Blocks of Q4_K: 16 bytes of scales, then 32 bytes for each 64 weights, whose low halves come first.
struct Blocks4 {
    static __device__ __forceinline__ const u8* block(const Weight& w, u64 row, u64 column) {
        return (const u8*)w.data + (row * (w.cols / 256) + column / 256) * 144;
    }
    static __device__ __forceinline__ Packet eight(const Weight& w, u64 row, u64 column) {
        const u8* const at = block(w, row, column);
        const int i = column % 256, high = i / 32 % 2;
        float scale, minimum;
        stretch_of_q4k(*(const uint4*)at, i / 32, scale, minimum);
        const uint2 raw = *(const uint2*)(at + 16 + i / 64 * 32 + i % 32);
        Packet out = signed_bytes(make_uint2(raw.x >> 4 * high & 0x0f0f0f0fu, raw.y >> 4 * high & 0x0f0f0f0fu));
#pragma unroll
        for (int k = 0; k < 8; k++) {
            out.x[k] = scale * out.x[k] - minimum;
        }
        return out;
    }
};

// Every other quantised format, unpacked when it was loaded: scale·code − minimum.
struct Wide {
    static constexpr u32 BYTES = 1;
    struct Raw {
        uint2 codes;
        float scale, minimum;
    };
    static __device__ __forceinline__ Raw ahead(const Weight& w, u64 row, u64 column) {
        const u64 at = row * w.cols + column, stretch = at / w.sub;
        const u32 scale = ahead4((const float*)w.scales + stretch), minimum = ahead4(w.mins + stretch);
        return Raw{ahead8((const u8*)w.data + at), bits_to_float(scale), bits_to_float(minimum)};
    }
    static __device__ __forceinline__ Packet numbers(const Raw& raw) {
        Packet out = signed_bytes(raw.codes);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            out.x[i] = raw.scale * out.x[i] - raw.minimum;
        }
        return out;
    }
    static __device__ __forceinline__ Packet eight(const Weight& w, u64 row, u64 column) {
        const u64 at = row * w.cols + column;
        Packet out = signed_bytes(*(const uint2*)((const u8*)w.data + at));
        const float scale = ((const float*)w.scales)[at / w.sub], minimum = w.mins[at / w.sub];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            out.x[i] = scale * out.x[i] - minimum;
        }
        return out;
    }
};

// Layers that read the same input and write side by side: the rows of the first weight, then of the next. All have one form.
#define MOST_LAYERS 4
struct Layers {
    Weight w[MOST_LAYERS];
    const float* bias[MOST_LAYERS];
    u32 count;
    // Columns of the result, the first one that is written, and how many numbers of a row of x there are (cols without padding).
    u32 width, first, c;
    // Whether sums are added to what stands in the result.
    u32 add;
};

// Which layer's row `row` is, and its number there.
__device__ __forceinline__ int layer_of(const Layers& l, u32& row) {
    int layer = 0;
#pragma unroll
    for (int i = 0; i < MOST_LAYERS - 1; i++) {
        if (layer == i && i + 1 < (int)l.count && row >= l.w[i].rows) {
            row -= l.w[i].rows;
            layer = i + 1;
        }
    }
    return layer;
}

__device__ __forceinline__ void finish(Array out, const Layers& l, int layer, u32 row_there, u64 n, u32 column, float sum) {
    const u64 at = n * l.width + l.first + column;
    const float* const bias = l.bias[layer];
    sum += bias ? bias[row_there] : 0.0f;
    store(out, at, l.add ? load(out, at) + sum : sum);
}
