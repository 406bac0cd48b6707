// Math of one element, the same for host and device, and without branches so that loops over it vectorize.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define CCF_HD __host__ __device__ __forceinline__
#else
#define CCF_HD inline __attribute__((always_inline))
#endif

namespace ccf {

// Half precision as it lies in memory; all arithmetic is in float.
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

CCF_HD float to_float(float value) { return value; }

CCF_HD float to_float(bfloat16 value) { return bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16); }

// Exponent moved by a multiplication with a power of two; subnormals through a float whose last bits are the mantissa.
CCF_HD float to_float(float16 value) {
    const std::uint32_t w = static_cast<std::uint32_t>(value.bits) << 16;
    const std::uint32_t sign = w & 0x80000000u, twice = w + w;
    const float normal = bit_cast<float>((twice >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
    const float subnormal = bit_cast<float>((twice >> 17) | (126u << 23)) - 0.5f;
    return bit_cast<float>(sign | bit_cast<std::uint32_t>(twice < (1u << 27) ? subnormal : normal));
}

template <class T>
CCF_HD T from_float(float value);

template <>
CCF_HD float from_float<float>(float value) {
    return value;
}

// Round to nearest even; every NaN becomes the quiet 0x7FC0, as in torch.
template <>
CCF_HD bfloat16 from_float<bfloat16>(float value) {
    const auto bits = bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    return {static_cast<std::uint16_t>(nan ? 0x7FC0u : rounded)};
}

// Round to nearest even by an addition whose exponent puts the last bit of the half where the float's last bit is.
template <>
CCF_HD float16 from_float<float16>(float value) {
    const auto w = bit_cast<std::uint32_t>(value);
    const float magnitude = bit_cast<float>(w & 0x7FFFFFFFu);
    const float scaled = (magnitude * 0x1.0p+112f) * 0x1.0p-110f;  // infinite from 65536 on
    const std::uint32_t twice = w + w;
    const std::uint32_t exponent = twice & 0xFF000000u;
    const std::uint32_t bias = exponent < 0x71000000u ? 0x71000000u : exponent;
    const auto sum = bit_cast<std::uint32_t>(bit_cast<float>((bias >> 1) + 0x07800000u) + scaled);
    const std::uint32_t rounded = ((sum >> 13) & 0x7C00u) + (sum & 0x0FFFu);
    return {static_cast<std::uint16_t>(((w & 0x80000000u) >> 16) | (twice > 0xFF000000u ? 0x7E00u : rounded))};
}

}  // namespace ccf
