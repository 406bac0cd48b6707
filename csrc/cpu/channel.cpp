// P x = v (v . x) at each pixel, v a unit vector over the channels: one pass, all channels of a piece of pixels at once.
#include <algorithm>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {

void channel(const Row& row, const float* direction) {
    const Shape& shape = row.shape;
    const std::int64_t plane = shape.plane(), pieces = ceil_div(plane, piece);
    parallel_for(shape.batch * pieces, piece * shape.channels, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, piece);
        std::vector<float> scratch(row.out_dtype == Dtype::float32 ? 0 : shape.channels * piece);
        float projected[piece], inner[piece];
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t image = item / pieces, pixel = item % pieces * piece;
            const std::int64_t size = std::min(piece, plane - pixel);
            const auto offset = [&](std::int64_t c) { return (image * shape.channels + c) * plane + pixel; };
            std::fill_n(inner, size, 0.0f);
            for (std::int64_t c = 0; c < shape.channels; ++c) {
                reader.both({image, c, pixel, size}, target(row, offset(c), scratch.data() + c * piece), projected);
                axpy(size, direction[c], projected, inner);
            }
            for (std::int64_t c = 0; c < shape.channels; ++c) {
                float* const value = target(row, offset(c), scratch.data() + c * piece);
                axpy(size, direction[c], inner, value);
                store(row, offset(c), size, value);
            }
        }
    });
}

}  // namespace ccf::cpu
