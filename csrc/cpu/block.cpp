// P x = the mean of each tile, repeated over it: one pass, some tiles of one band of rows at a time.
#include <algorithm>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {
namespace {

CCF_CLONES void add(std::int64_t size, const float* __restrict x, float* __restrict y) {
    for (std::int64_t i = 0; i < size; ++i) y[i] += x[i];
}

// Every entry of a row of column sums becomes the mean of its tile; the additions in the order of the columns.
void tile_means(std::int64_t size, std::int64_t tile, float scale, float* columns) {
    for (std::int64_t i = 0; i < size; i += tile) {
        float sum = 0.0f;
        for (std::int64_t k = 0; k < tile; ++k) sum += columns[i + k];
        std::fill_n(columns + i, tile, sum * scale);
    }
}

}  // namespace

void block(const Row& row, std::int64_t height, std::int64_t width) {
    const Shape& shape = row.shape;
    // columns of a piece: whole tiles, and about as many elements as other kinds take
    const std::int64_t span = std::min(shape.width, std::max(width, 2 * piece / height / width * width));
    const std::int64_t bands = shape.height / height, spans = ceil_div(shape.width, span);
    const float scale = 1.0f / static_cast<float>(height * width);
    const std::int64_t joined = span == shape.width ? height : 1;  // rows that are read as one run
    parallel_for(shape.planes() * bands * spans, height * span, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, joined * span);
        std::vector<float> scratch(row.out_dtype == Dtype::float32 ? 0 : height * span);
        std::vector<float> projected(joined * span), means(span);
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / (bands * spans), band = item / spans % bands;
            const std::int64_t column = item % spans * span, columns = std::min(span, shape.width - column);
            const auto pixel = [&](std::int64_t r) { return (band * height + r) * shape.width + column; };
            const auto value = [&](std::int64_t r) {
                return target(row, index * shape.plane() + pixel(r), scratch.data() + r * span);
            };
            std::fill_n(means.data(), columns, 0.0f);
            for (std::int64_t r = 0; r < height; r += joined) {
                const Place at{index / shape.channels, index % shape.channels, pixel(r), joined * columns};
                reader.both(at, value(r), projected.data());
                for (std::int64_t k = 0; k < joined; ++k) add(columns, projected.data() + k * columns, means.data());
            }
            tile_means(columns, width, scale, means.data());
            for (std::int64_t r = 0; r < height; ++r) {
                add(columns, means.data(), value(r));
                store(row, index * shape.plane() + pixel(r), columns, value(r));
            }
        }
    });
}

}  // namespace ccf::cpu
