// P x = the mean of each tile, repeated over it: one pass, some tiles of one band of rows at a time.
#include <algorithm>
#include <vector>

#include "../math.h"
#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {
namespace {

CCF_CLONES void add(std::int64_t size, const float* __restrict x, float* __restrict y) {
    for (std::int64_t i = 0; i < size; ++i) y[i] += x[i];
}

// Every entry of a row of column sums becomes the mean of its tile; the additions in the order of the columns.
template <std::int64_t fixed>
CCF_HD void tile_means(std::int64_t size, std::int64_t any, float scale, float* columns) {
    const std::int64_t tile = fixed ? fixed : any;
    for (std::int64_t i = 0; i < size; i += tile) {
        float sum = 0.0f;
        for (std::int64_t k = 0; k < tile; ++k) sum += columns[i + k];
        for (std::int64_t k = 0; k < tile; ++k) columns[i + k] = sum * scale;
    }
}

CCF_CLONES void tile_means(std::int64_t size, std::int64_t tile, float scale, float* columns) {
    switch (tile) {  // loops of known length vectorize
        case 2: return tile_means<2>(size, tile, scale, columns);
        case 4: return tile_means<4>(size, tile, scale, columns);
        case 8: return tile_means<8>(size, tile, scale, columns);
        default: return tile_means<0>(size, tile, scale, columns);
    }
}

}  // namespace

void block(const Row& row, std::int64_t height, std::int64_t width) {
    const Shape& shape = row.shape;
    // columns of a piece: whole tiles, and about as many elements as other kinds take
    const std::int64_t span = std::min(shape.width, std::max(width, piece / height / width * width));
    const std::int64_t bands = shape.height / height, spans = ceil_div(shape.width, span);
    const float scale = 1.0f / static_cast<float>(height * width);
    // whole rows follow each other in memory and are read as one run; parts of rows one by one
    const std::int64_t run = span == shape.width ? height : 1;
    parallel_for(shape.planes() * bands * spans, height * span, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, run * span);
        std::vector<float> buffer(3 * run * span + span);  // of a run: value, sum, field; and the sums of the columns
        float* const scratch = buffer.data();
        float *const sum = scratch + run * span, *const field = sum + run * span, *const means = field + run * span;
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / (bands * spans), band = item / spans % bands;
            const std::int64_t column = item % spans * span, columns = std::min(span, shape.width - column);
            const auto place = [&](std::int64_t r) {
                const std::int64_t pixel = (band * height + r) * shape.width + column;
                return Place{index / shape.channels, index % shape.channels, pixel, run * columns};
            };
            std::fill_n(means, columns, 0.0f);
            for (std::int64_t r = 0; r < height; r += run) {
                reader.projected(place(r), sum);
                for (std::int64_t k = 0; k < run; ++k) add(columns, sum + k * columns, means);
            }
            tile_means(columns, width, scale, means);
            for (std::int64_t k = 0; k < run; ++k) std::copy_n(means, columns, field + k * columns);
            for (std::int64_t r = 0; r < height; r += run) {
                const std::int64_t offset = index * shape.plane() + place(r).pixel;
                float* const value = target(row, offset, scratch);
                reader.direct(place(r), value, field);
                store(row, offset, run * columns, value);
            }
        }
    });
}

}  // namespace ccf::cpu
