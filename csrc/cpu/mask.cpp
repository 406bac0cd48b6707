// P x = m x, m = 0 or 1 for every element: one pass.
#include <algorithm>

#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {
void mask(const Row& row, const Mask& mask) {
    const Shape& shape = row.shape;
    const std::int64_t plane = shape.plane(), pieces = ceil_div(plane, piece);
    parallel_for(shape.planes() * pieces, piece, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, piece);
        alignas(64) float scratch[piece];
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / pieces, pixel = item % pieces * piece;
            const Place at{index / shape.channels, index % shape.channels, pixel, std::min(piece, plane - pixel)};
            const std::int64_t offset = index * plane + pixel;
            float* const value = target(row, offset, scratch);
            const float* const m = mask.data + at.image * mask.batch_stride + at.channel * mask.channel_stride + pixel;
            reader.masked(at, m, value);
            store(row, offset, at.size, value);
        }
    });
}

}  // namespace ccf::cpu
