// P x = v (v . x) at each pixel, v a unit vector over the channels: one pass, all channels of a piece at once.
#include <algorithm>

#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {

void channel(const Row& row, const float* direction) {
    const Shape& shape = row.shape;
    const std::int64_t plane = shape.plane(), pieces = ceil_div(plane, piece);
    parallel_for(shape.batch * pieces, piece * shape.channels, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, piece);
        alignas(64) float scratch[piece], inner[piece];
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t image = item / pieces, pixel = item % pieces * piece;
            const std::int64_t size = std::min(piece, plane - pixel);
            std::fill_n(inner, size, 0.0f);
            for (std::int64_t c = 0; c < shape.channels; ++c)
                reader.add_projected({image, c, pixel, size}, direction[c], inner);
            for (std::int64_t c = 0; c < shape.channels; ++c) {
                const std::int64_t offset = (image * shape.channels + c) * plane + pixel;
                float* const value = target(row, offset, scratch);
                reader.direct({image, c, pixel, size}, value, inner, direction[c]);
                store(row, offset, size, value);
            }
        }
    });
}

}  // namespace ccf::cpu
