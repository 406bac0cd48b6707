// Unit Gaussian noise depends on seed, sample, draw, step and element only. The file is compiled with
// -ffp-contract=off.
#include <algorithm>

#include "../philox.h"
#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {
namespace {

constexpr std::int64_t lanes = piece / 4;

// Writes normals 4 (first + i) .. 4 (first + i) + 3 of one image to out[4 i ..] for i < lanes, in loops over lanes,
// which vectorize.
CCF_CLONES void fill(std::uint32_t first, std::uint32_t step, std::uint32_t sample, std::uint32_t draw,
                     std::uint64_t seed, float* __restrict out) {
    std::uint32_t c0[lanes], c1[lanes], c2[lanes], c3[lanes];
    const auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
    for (std::int64_t i = 0; i < lanes; ++i) {
        const Words words = philox({first + static_cast<std::uint32_t>(i), step, sample, draw}, k0, k1);
        c0[i] = words.c0, c1[i] = words.c1, c2[i] = words.c2, c3[i] = words.c3;
    }
    for (std::int64_t i = 0; i < lanes; ++i) {
        box_muller(c0[i], c1[i], out[4 * i], out[4 * i + 1]);
        box_muller(c2[i], c3[i], out[4 * i + 2], out[4 * i + 3]);
    }
}

}  // namespace

void normal(float* out, std::int64_t batch, std::int64_t count, const NoiseKeys& keys) {
    const std::int64_t pieces = ceil_div(count, piece);
    parallel_for(batch * pieces, piece, [&](std::int64_t begin, std::int64_t end) {
        float values[piece];
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t image = item / pieces, start = item % pieces * piece;
            fill(static_cast<std::uint32_t>(start / 4), static_cast<std::uint32_t>(keys.step),
                 static_cast<std::uint32_t>(keys.samples[image]), static_cast<std::uint32_t>(keys.draws[image]),
                 static_cast<std::uint64_t>(keys.seeds[image]), values);
            std::copy_n(values, std::min(piece, count - start), out + image * count + start);
        }
    });
}

}  // namespace ccf::cpu
