// P x is the mean of each tile, repeated over it. One pass takes some tiles of one band of rows at a time.
#include <algorithm>
#include <cstring>
#include <vector>

#include "../math.h"
#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {
namespace {

constexpr int lanes = 16;
typedef float Floats __attribute__((vector_size(4 * lanes)));
typedef std::int32_t Places __attribute__((vector_size(4 * lanes)));

// Every lane becomes the sum over its tile, of `tile` lanes: a power of two.
template <int tile>
CCF_HD Floats tile_sums(Floats sums) {
    constexpr Places places{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    if constexpr (tile >= 2) sums += __builtin_shuffle(sums, places ^ 1);
    if constexpr (tile >= 4) sums += __builtin_shuffle(sums, places ^ 2);
    if constexpr (tile >= 8) sums += __builtin_shuffle(sums, places ^ 4);
    if constexpr (tile >= 16) sums += __builtin_shuffle(sums, places ^ 8);
    return sums;
}

// Every entry of a row of column sums becomes the mean of its tile, from entry i on as long as there are 16 more.
template <int tile>
CCF_HD std::int64_t tile_means(std::int64_t size, float scale, float* columns) {
    std::int64_t i = 0;
    for (; i + lanes <= size; i += lanes) {
        Floats sums;
        memcpy(&sums, columns + i, sizeof(sums));
        sums = tile_sums<tile>(sums) * scale;
        memcpy(columns + i, &sums, sizeof(sums));
    }
    return i;
}

CCF_CLONES void tile_means(std::int64_t size, std::int64_t tile, float scale, float* columns) {
    std::int64_t i = 0;
    switch (tile) {
        case 2: i = tile_means<2>(size, scale, columns); break;
        case 4: i = tile_means<4>(size, scale, columns); break;
        case 8: i = tile_means<8>(size, scale, columns); break;
        case 16: i = tile_means<16>(size, scale, columns); break;
        default: break;
    }
    for (; i < size; i += tile) {
        float sum = 0.0f;
        for (std::int64_t k = 0; k < tile; ++k) sum += columns[i + k];
        for (std::int64_t k = 0; k < tile; ++k) columns[i + k] = sum * scale;
    }
}

}  // namespace

void block(const Row& row, std::int64_t height, std::int64_t width) {
    const Shape& shape = row.shape;
    // a piece has the columns of whole tiles, and about as many elements as those of other kinds
    const std::int64_t span = std::min(shape.width, std::max(width, piece / height / width * width));
    const std::int64_t bands = shape.height / height, spans = ceil_div(shape.width, span);
    const float scale = 1.0f / static_cast<float>(height * width);
    // whole rows follow each other in memory and are read as one run; parts of rows are read one by one
    const std::int64_t run = span == shape.width ? height : 1;
    constexpr std::int64_t together = 8;  // One sum adds up so many rows.
    parallel_for(shape.planes() * bands * spans, height * span, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, run * span, together);
        std::vector<float> field(run * span);
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / (bands * spans), band = item / spans % bands;
            const std::int64_t column = item % spans * span, columns = std::min(span, shape.width - column);
            const auto place = [&](std::int64_t r, std::int64_t rows) {
                const std::int64_t pixel = (band * height + r) * shape.width + column;
                return Place{index / shape.channels, index % shape.channels, pixel, rows * columns};
            };
            for (std::int64_t r = 0; r < height; r += together) {
                reader.projected_rows(place(r, 1), std::min(together, height - r));
                if (r) reader.field(field.data());
                reader.sum(columns, field.data());
            }
            tile_means(columns, width, scale, field.data());
            for (std::int64_t k = 1; k < run; ++k) std::copy_n(field.data(), columns, field.data() + k * columns);
            for (std::int64_t r = 0; r < height; r += run) {
                reader.direct(place(r, run));
                reader.field(field.data());
                reader.store(place(r, run));
            }
        }
    });
}

}  // namespace ccf::cpu
