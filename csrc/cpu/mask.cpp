// P x = m x, m = 0 or 1 for every element: one pass.
#include <algorithm>

#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {

void mask(const Row& row, const Mask& mask) {
    const Shape& shape = row.shape;
    const std::int64_t plane = shape.plane(), pieces = ceil_div(plane, long_piece);
    parallel_for(shape.planes() * pieces, long_piece, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, std::min(plane, long_piece));
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / pieces, pixel = item % pieces * long_piece;
            const Place at{index / shape.channels, index % shape.channels, pixel, std::min(long_piece, plane - pixel)};
            reader.masked(at, mask.data + at.image * mask.batch_stride + at.channel * mask.channel_stride + pixel);
            reader.store(at);
        }
    });
}

}  // namespace ccf::cpu
