// P x = v (v . x) at each pixel, where v is a unit vector over the channels. One pass takes all channels of a piece.
#include <algorithm>

#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {

void channel(const Row& row, const float* direction) {
    const Shape& shape = row.shape;
    const std::int64_t plane = shape.plane(), pieces = ceil_div(plane, piece);
    parallel_for(shape.batch * pieces, piece * shape.channels, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, piece, shape.channels);
        alignas(64) float inner[piece];
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t image = item / pieces, pixel = item % pieces * piece;
            const std::int64_t size = std::min(piece, plane - pixel);
            for (std::int64_t c = 0; c < shape.channels; ++c) reader.projected({image, c, pixel, size}, direction[c]);
            reader.sum(size, inner);
            for (std::int64_t c = 0; c < shape.channels; ++c) {
                const Place at{image, c, pixel, size};
                reader.direct(at);
                reader.field(inner, direction[c]);
                reader.store(at);
            }
        }
    });
}

}  // namespace ccf::cpu
