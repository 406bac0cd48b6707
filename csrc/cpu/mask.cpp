// P x = m x, m = 0 or 1 for every element: one pass.
#include <algorithm>

#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {
namespace {

CCF_CLONES void add_product(std::int64_t size, const float* __restrict m, const float* __restrict x, float* __restrict y) {
    for (std::int64_t i = 0; i < size; ++i) y[i] += m[i] * x[i];
}

}  // namespace

void mask(const Row& row, const Mask& mask) {
    const Shape& shape = row.shape;
    const std::int64_t plane = shape.plane(), pieces = ceil_div(plane, piece);
    parallel_for(shape.planes() * pieces, piece, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, piece);
        float scratch[piece], projected[piece];
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / pieces, pixel = item % pieces * piece;
            const Place at{index / shape.channels, index % shape.channels, pixel, std::min(piece, plane - pixel)};
            const std::int64_t offset = index * plane + pixel;
            float* const value = target(row, offset, scratch);
            reader.both(at, value, projected);
            const float* const m = mask.data + at.image * mask.batch_stride + at.channel * mask.channel_stride + pixel;
            add_product(at.size, m, projected, value);
            store(row, offset, at.size, value);
        }
    });
}

}  // namespace ccf::cpu
