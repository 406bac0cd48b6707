// Counter-based Gaussian noise: Philox 4x32-10 (Salmon et al., SC 2011) and Box-Muller, as `normal` in
// kernels/reference.py documents. It takes only additions, multiplications and square roots, which IEEE rounds one way,
// and no libm. A file that includes it is compiled with -ffp-contract=off and then gives the same bits on every
// machine.
#pragma once

#include <cmath>
#include <cstdint>

#include "math.h"

namespace ccf {

struct Words {
    std::uint32_t c0, c1, c2, c3;
};

CCF_HD Words philox(Words c, std::uint32_t k0, std::uint32_t k1) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t product0 = static_cast<std::uint64_t>(c.c0) * 0xD2511F53u;
        const std::uint64_t product2 = static_cast<std::uint64_t>(c.c2) * 0xCD9E8D57u;
        c = {static_cast<std::uint32_t>(product2 >> 32) ^ c.c1 ^ k0, static_cast<std::uint32_t>(product2),
             static_cast<std::uint32_t>(product0 >> 32) ^ c.c3 ^ k1, static_cast<std::uint32_t>(product0)};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// ln u for normal u > 0: u = 2^e m with m in [sqrt(1/2), sqrt(2)), polynomial of Cephes (2 units in the last place).
CCF_HD float log_positive(float u) {
    const auto bits = bit_cast<std::uint32_t>(u);
    const auto shifted = static_cast<std::int32_t>(bits - 0x3F3504F3u);  // This is sqrt(1/2).
    const float e = static_cast<float>(shifted >> 23);
    const float x = bit_cast<float>(bits - (static_cast<std::uint32_t>(shifted >> 23) << 23)) - 1.0f;
    const float z = x * x;
    float y = 7.0376836292e-2f;
    y = y * x - 1.1514610310e-1f;
    y = y * x + 1.1676998740e-1f;
    y = y * x - 1.2420140846e-1f;
    y = y * x + 1.4249322787e-1f;
    y = y * x - 1.6668057665e-1f;
    y = y * x + 2.0000714765e-1f;
    y = y * x - 2.4999993993e-1f;
    y = y * x + 3.3333331174e-1f;
    y = y * x * z - 2.12194440e-4f * e - 0.5f * z;
    return x + y + 0.693359375f * e;
}

// Cosine and sine of an angle in [0, 2 pi]: reduced to [-pi/4, pi/4] by quarter turns, then Taylor-like polynomials.
CCF_HD void cosine_sine(float angle, float& cosine, float& sine) {
    const auto quarter = static_cast<std::int32_t>(angle * 0.636619772f + 0.5f);
    const float q = static_cast<float>(quarter);
    const float x = ((angle - q * 1.5703125f) - q * 4.83751296997e-4f) - q * 7.5497899549e-8f;
    const float z = x * x;
    const float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * x + x;
    const float c =
        ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
    const bool odd = quarter & 1;
    const float sine_size = odd ? c : s, cosine_size = odd ? s : c;
    sine = (quarter & 2) ? -sine_size : sine_size;
    cosine = ((quarter + 1) & 2) ? -cosine_size : cosine_size;
}

// Two words become two normals: R cos(angle), R sin(angle) with R = sqrt(-2 ln u), u in (0, 1], angle in [0, 2 pi).
CCF_HD void box_muller(std::uint32_t a, std::uint32_t b, float& first, float& second) {
    // both words shrink to 24 bits, which a signed conversion (the one that vectorizes) takes exactly
    const float u = static_cast<float>(static_cast<std::int32_t>((a >> 8) + 1)) * 0x1.0p-24f;
    const float angle =
        static_cast<float>(static_cast<std::int32_t>(b >> 8)) * 3.745070283e-7f;  // This is 2 pi / 2^24.
    const float radius = sqrtf(-2.0f * log_positive(u));
    float cosine, sine;
    cosine_sine(angle, cosine, sine);
    first = radius * cosine;
    second = radius * sine;
}

}  // namespace ccf
