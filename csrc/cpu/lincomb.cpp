// out = sum_k a_k T_k, with a_k a number, one a sample or one an element.
#include <algorithm>

#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {

void lincomb(const Row& row) {
    const Shape& shape = row.shape;
    const std::int64_t plane = shape.plane(), pieces = ceil_div(plane, long_piece);
    parallel_for(shape.planes() * pieces, long_piece, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, std::min(plane, long_piece));
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / pieces, pixel = item % pieces * long_piece;
            const Place at{index / shape.channels, index % shape.channels, pixel, std::min(long_piece, plane - pixel)};
            reader.direct(at);
            reader.store(at);
        }
    });
}

}  // namespace ccf::cpu
