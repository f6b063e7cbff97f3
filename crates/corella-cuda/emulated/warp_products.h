// The host's twins of kernels/tensor.cuh: fragments as the PTX ISA lays them out, copies that arrive as late as they may.
#pragma once

static inline void copy16_async(void* to, const void* from, bool valid) {
    using namespace emulated;
    if (((uintptr_t)to | (uintptr_t)from) % 16) fail("an asynchronous copy of 16 bytes that are not aligned");
    Thread& self = threads[current];
    touch(to, 16, WRITE);
    self.copies.push_back({to, from, 16, valid ? 16 : 0, self.groups});
}
static inline void copies_end() { emulated::threads[emulated::current].groups++; }
template <int LEFT> static inline void copies_wait() {
    using namespace emulated;
    Thread& self = threads[current];
    std::vector<Copy> later;
    for (const Copy& copy : self.copies) {
        if (copy.group >= self.groups - LEFT) { later.push_back(copy); continue; }
        touch(copy.to, copy.bytes, WRITE);
        memset(copy.to, 0, copy.bytes);
        memcpy(copy.to, copy.from, copy.valid);
    }
    self.copies.swap(later);
}

static inline float half_to_float(u16 bits) {
    u32 sign = (u32)(bits & 0x8000) << 16, magnitude = bits & 0x7fff;
    if (magnitude >= 0x7c00) return bits_to_float(sign | 0x7f800000u | magnitude << 13);
    return bits_to_float(sign | float_to_bits(bits_to_float(magnitude << 13) * 0x1p112f));
}
static inline u16 float_to_half(float x) {
    u32 bits = float_to_bits(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000u) return 0x7fff;
    if (magnitude >= 0x47800000u) return (u16)(sign | 0x7c00);
    if (magnitude < 0x38800000u) return (u16)(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - float_to_bits(0.5f)));
    return (u16)(sign | ((magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000u) >> 13));
}

static inline u16 half_at(const void* row, int i) { return *((const u16*)row + i); }

template <bool TRANSPOSED> static inline void load_matrices_as(u32 (&r)[4], const void* row) {
    using namespace emulated;
    if ((uintptr_t)row % 16) fail("a row of a matrix that is not aligned to 16 bytes");
    Exchange& all = together(&row, sizeof row, __LINE__);
    int lane = current % WARP, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
        u16 x[2];
        for (int e = 0; e < 2; e++) {
            int line = TRANSPOSED ? 2 * t + e : g, column = TRANSPOSED ? g : 2 * t + e;
            x[e] = half_at((const void*)all.words[8 * i + line][0], column);
        }
        r[i] = x[0] | (u32)x[1] << 16;
    }
    release();
}
static inline void load_matrices(u32 (&r)[4], const void* row) { load_matrices_as<false>(r, row); }
static inline void load_matrices_transposed(u32 (&r)[4], const void* row) { load_matrices_as<true>(r, row); }

template <class Wide> static inline void multiply_add_as(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, Wide wide) {
    using namespace emulated;
    u32 mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    Exchange& all = together(mine, sizeof mine, __LINE__);
    auto word = [&](int lane, int i) { u32 w; memcpy(&w, (const char*)all.words[lane] + 4 * i, 4); return w; };
    auto half = [&](u32 w, int high) { return wide((u16)(high ? w >> 16 : w)); };
    int lane = current % WARP, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
        int high_row = i / 2, column = 2 * t + i % 2;
        double sum = c[i];
        for (int k = 0; k < 16; k++) {
            u32 left = word(4 * g + k % 8 / 2, high_row + k / 8 * 2), right = word(4 * column + k % 8 / 2, 4 + k / 8);
            sum += (double)half(left, k % 2) * half(right, k % 2);
        }
        c[i] = (float)sum;
    }
    release();
}

static inline void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply_add_as(c, a, b0, b1, [](u16 x) { return bits_to_float((u32)x << 16); });
}
static inline void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    for (float& x : c) x = 0;
    multiply_add(c, a, b0, b1);
}
static inline void multiply_add_f16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply_add_as(c, a, b0, b1, half_to_float);
}

static inline int dot4(int a, int b, int sum) {
    for (int i = 0; i < 4; i++) sum += (int)(signed char)(a >> 8 * i) * (signed char)(b >> 8 * i);
    return sum;
}

