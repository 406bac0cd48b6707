// Kinds that need no field take one pass: each element of the outputs comes from the same element of the terms.
#pragma once

#include <algorithm>

#include "parallel.h"
#include "row.h"

namespace ccf::cpu {

// read(reader, place) gathers what is stored at a place; the places cover all planes of a row.
template <class F>
void store_pieces(const Row& row, const F& read) {
    const Shape& shape = row.shape;
    const std::int64_t plane = shape.plane(), pieces = ceil_div(plane, long_piece);
    parallel_for(shape.planes() * pieces, long_piece, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, std::min(plane, long_piece));
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / pieces, pixel = item % pieces * long_piece;
            const Place at{index / shape.channels, index % shape.channels, pixel, std::min(long_piece, plane - pixel)};
            read(reader, at);
            reader.store(at);
        }
    });
}

}  // namespace ccf::cpu
