// P = H^T (H H^T)^-1 H on rows and columns, with a banded H that downsamples. No dense matrix of the size of the image
// is made.
//
// There are two sweeps over bands of rows. The first writes z = (H_r x H_c^T) G_c, which is small, to the scratch. The
// second adds H_r^T (G_r z) H_c to the direct terms.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {
namespace {

constexpr std::int64_t lanes = 16;
typedef float Floats __attribute__((vector_size(4 * lanes)));

// A band has this many low rows. The high rows at its ends are read by its neighbours as well, 12 in 64 at a factor
// of 4.
constexpr std::int64_t band_rows = lanes;

struct Range {
    std::int64_t begin, end;
};

// Returns the columns that rows [begin, end) of a band matrix touch.
Range touched(const Band& band, std::int64_t begin, std::int64_t end) {
    Range range{band.start[begin], band.start[begin] + band.width};
    for (std::int64_t i = begin; i < end; ++i) {
        range.begin = std::min(range.begin, band.start[i]);
        range.end = std::max(range.end, band.start[i] + band.width);
    }
    return range;
}

// Y[j, :] = sum_t taps[j, t] X[start[j] + t, :], where X and Y have `lanes` columns for each group. It works on rows
// that lie side by side, since a band has too few taps for a vector of its own.
CCF_CLONES void apply(const Band& band, std::int64_t groups, const float* __restrict x, float* __restrict y) {
    const std::int64_t columns = groups * lanes;
    for (std::int64_t j = 0; j < band.rows; ++j) {
        const float* const taps = band.taps + j * band.width;
        for (std::int64_t g = 0; g < groups; ++g) {
            const float* const at = x + band.start[j] * columns + g * lanes;
            Floats sum{};
            for (std::int64_t t = 0; t < band.width; ++t) {
                Floats row;
                memcpy(&row, at + t * columns, sizeof(row));
                sum += taps[t] * row;
            }
            memcpy(y + j * columns + g * lanes, &sum, sizeof(sum));
        }
    }
}

// y[c, r] = x[r, c], four by four as far as that goes; x_row and y_row are the lengths of a row.
CCF_CLONES void transpose(std::int64_t rows, std::int64_t columns, const float* __restrict x, std::int64_t x_row,
                          float* __restrict y, std::int64_t y_row) {
    typedef float Four __attribute__((vector_size(16)));
    typedef std::int32_t Places __attribute__((vector_size(16)));
    constexpr Places low{0, 4, 1, 5}, high{2, 6, 3, 7}, left{0, 1, 4, 5}, right{2, 3, 6, 7};
    const std::int64_t whole_rows = rows & ~std::int64_t{3}, whole_columns = columns & ~std::int64_t{3};
    for (std::int64_t c = 0; c < whole_columns; c += 4)
        for (std::int64_t r = 0; r < whole_rows; r += 4) {
            Four v[4];
            for (int k = 0; k < 4; ++k) memcpy(&v[k], x + (r + k) * x_row + c, sizeof(Four));
            const Four a = __builtin_shuffle(v[0], v[1], low), b = __builtin_shuffle(v[2], v[3], low);
            const Four d = __builtin_shuffle(v[0], v[1], high), e = __builtin_shuffle(v[2], v[3], high);
            const Four turned[4] = {__builtin_shuffle(a, b, left), __builtin_shuffle(a, b, right),
                                    __builtin_shuffle(d, e, left), __builtin_shuffle(d, e, right)};
            for (int k = 0; k < 4; ++k) memcpy(y + (c + k) * y_row + r, &turned[k], sizeof(Four));
        }
    for (std::int64_t c = 0; c < columns; ++c)
        for (std::int64_t r = c < whole_columns ? whole_rows : 0; r < rows; ++r) y[c * y_row + r] = x[r * x_row + c];
}

// y += sum_k a[k] x[k, :] for vectors of `columns` numbers, four rows in one pass over y.
CCF_CLONES void add_rows(std::int64_t count, const float* a, std::int64_t columns, const float* __restrict x,
                         float* __restrict y) {
    std::int64_t k = 0;
    for (; k + 4 <= count; k += 4) {
        const float *const x0 = x + k * columns, *const x1 = x0 + columns, *const x2 = x1 + columns;
        const float* const x3 = x2 + columns;
        const float a0 = a[k], a1 = a[k + 1], a2 = a[k + 2], a3 = a[k + 3];
        for (std::int64_t j = 0; j < columns; ++j) y[j] += a0 * x0[j] + a1 * x1[j] + a2 * x2[j] + a3 * x3[j];
    }
    for (; k < count; ++k)
        for (std::int64_t j = 0; j < columns; ++j) y[j] += a[k] * x[k * columns + j];
}

}  // namespace

void separable(const Row& row, const BandedAxis& rows, const BandedAxis& columns, float* scratch) {
    const Shape& shape = row.shape;
    const std::int64_t low_height = rows.down.rows, low_width = columns.down.rows, width = shape.width;
    const std::int64_t down_bands = ceil_div(low_height, band_rows);
    const std::int64_t together = std::max<std::int64_t>(1, piece / width);  // So many rows are read as one run.
    const std::int64_t band_elements = band_rows * shape.plane() / low_height;
    parallel_for(shape.planes() * down_bands, band_elements, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, together * width);
        std::vector<float> high, low(band_rows * width), narrow(band_rows * low_width);
        std::vector<float> low_turned(band_rows * width), narrow_turned(band_rows * low_width);
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / down_bands, first = item % down_bands * band_rows;
            const std::int64_t last = std::min(first + band_rows, low_height);
            std::fill(low.begin(), low.end(), 0.0f);
            const Range range = touched(rows.down, first, last);
            high.resize((range.end - range.begin) * width);
            for (std::int64_t h = range.begin; h < range.end; h += together) {
                const std::int64_t size = std::min(together, range.end - h) * width;
                reader.projected({index / shape.channels, index % shape.channels, h * width, size});
                reader.sum(size, high.data() + (h - range.begin) * width);
            }
            for (std::int64_t i = first; i < last; ++i)
                add_rows(rows.down.width, rows.down.taps + i * rows.down.width, width,
                         high.data() + (rows.down.start[i] - range.begin) * width, low.data() + (i - first) * width);
            transpose(band_rows, width, low.data(), width, low_turned.data(), band_rows);
            apply(columns.down, 1, low_turned.data(), narrow_turned.data());
            transpose(low_width, band_rows, narrow_turned.data(), band_rows, narrow.data(), low_width);
            for (std::int64_t i = first; i < last; ++i) {
                float* const z = scratch + (index * low_height + i) * low_width;
                std::fill_n(z, low_width, 0.0f);
                add_rows(low_width, narrow.data() + (i - first) * low_width, low_width, columns.inverse, z);
            }
        }
    });

    const std::int64_t band = ceil_div(band_rows * shape.height, low_height);  // A band has so many high rows.
    const std::int64_t up_bands = ceil_div(shape.height, band);
    parallel_for(shape.planes() * up_bands, band * width, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, width);
        std::vector<float> narrow, narrow_turned, wide, wide_turned;
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / up_bands, first = item % up_bands * band;
            const std::int64_t last = std::min(first + band, shape.height);
            const Range range = touched(rows.up, first, last);
            const std::int64_t groups = ceil_div(range.end - range.begin, lanes), side = groups * lanes;
            narrow.assign(side * low_width, 0.0f), narrow_turned.resize(side * low_width);
            wide.resize(side * width), wide_turned.resize(side * width);
            for (std::int64_t i = range.begin; i < range.end; ++i)
                add_rows(low_height, rows.inverse + i * low_height, low_width, scratch + index * low_height * low_width,
                         narrow.data() + (i - range.begin) * low_width);
            transpose(side, low_width, narrow.data(), low_width, narrow_turned.data(), side);
            apply(columns.up, groups, narrow_turned.data(), wide_turned.data());
            transpose(width, range.end - range.begin, wide_turned.data(), side, wide.data(), width);
            for (std::int64_t h = first; h < last; ++h) {
                const Place at{index / shape.channels, index % shape.channels, h * width, width};
                reader.direct(at);
                for (std::int64_t t = 0; t < rows.up.width; ++t)
                    reader.field(wide.data() + (rows.up.start[h] - range.begin + t) * width,
                                 rows.up.taps[h * rows.up.width + t]);
                reader.store(at);
            }
        }
    });
}

}  // namespace ccf::cpu
