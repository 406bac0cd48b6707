// The conversions of one element are the same for host and device, and have no branches, so that loops vectorize.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define CCF_HD __host__ __device__ __forceinline__
#else
#define CCF_HD inline __attribute__((always_inline))
#endif

namespace ccf {

// These types are half precision as it lies in memory; all arithmetic is in float.
struct bfloat16 {
    std::uint16_t bits;
};
struct float16 {
    std::uint16_t bits;
};

template <class To, class From>
CCF_HD To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}

// In what follows F and U are one number each, or vectors with equally many lanes, of float and of std::uint32_t.
template <class F, class U>
CCF_HD F from_bfloat16(U bits) {
    return bit_cast<F>(bits << 16);
}

// The exponent is moved by a product with a power of two; subnormals pass through a float whose last bits are their
// mantissa.
template <class F, class U>
CCF_HD F from_float16(U bits) {
    const U w = bits << 16, sign = w & 0x80000000u, twice = w + w;
    const F normal = bit_cast<F>((twice >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
    const F subnormal = bit_cast<F>((twice >> 17) | (126u << 23)) - 0.5f;
    return bit_cast<F>(sign | (twice < (1u << 27) ? bit_cast<U>(subnormal) : bit_cast<U>(normal)));
}

// Rounds to nearest even; every NaN becomes the quiet 0x7FC0, as in torch. The result is the upper half of the word,
// and the lower half must not be read.
template <class U, class F>
CCF_HD U round_to_bfloat16(F value) {
    const U bits = bit_cast<U>(value), quiet = U{} + 0x7FC00000u;
    const U rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
    return value == value ? rounded : quiet;
}
template <class U, class F>
CCF_HD U to_bfloat16(F value) {
    return round_to_bfloat16<U>(value) >> 16;
}

// Rounds to nearest even by an addition whose exponent puts the last bit of the half where the float's last bit is.
template <class U, class F>
CCF_HD U to_float16(F value) {
    const U w = bit_cast<U>(value), twice = w + w, exponent = twice & 0xFF000000u;
    const F scaled = (bit_cast<F>(w & 0x7FFFFFFFu) * 0x1.0p+112f) * 0x1.0p-110f;  // It is infinite from 65536 on.
    const U least = U{} + 0x71000000u, quiet = U{} + 0x7E00u;
    const U bias = exponent < least ? least : exponent;
    const U sum = bit_cast<U>(bit_cast<F>((bias >> 1) + 0x07800000u) + scaled);
    const U rounded = ((sum >> 13) & 0x7C00u) + (sum & 0x0FFFu);
    return ((w & 0x80000000u) >> 16) | (twice > 0xFF000000u ? quiet : rounded);
}

CCF_HD float to_float(float value) { return value; }
CCF_HD float to_float(bfloat16 value) { return from_bfloat16<float, std::uint32_t>(value.bits); }
CCF_HD float to_float(float16 value) { return from_float16<float, std::uint32_t>(value.bits); }

template <class T>
CCF_HD T from_float(float value);

template <>
CCF_HD float from_float<float>(float value) {
    return value;
}
template <>
CCF_HD bfloat16 from_float<bfloat16>(float value) {
    return {static_cast<std::uint16_t>(to_bfloat16<std::uint32_t>(value))};
}
template <>
CCF_HD float16 from_float<float16>(float value) {
    return {static_cast<std::uint16_t>(to_float16<std::uint32_t>(value))};
}

}  // namespace ccf
