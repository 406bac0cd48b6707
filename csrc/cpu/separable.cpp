// P = H^T (H H^T)^-1 H on rows and columns, H banded (downsampling): never a dense matrix of the size of the image.
//
// Two sweeps over bands of rows. Down: z = (H_r x H_c^T) G_c, small, to scratch. Up: H_r^T (G_r z) H_c + direct sum.
#include <algorithm>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {
namespace {

constexpr std::int64_t band_rows = 16;  // low rows of a band: its neighbours' high rows are read twice, 12 in 64 at x4

struct Range {
    std::int64_t begin, end;
};

// Columns that rows [begin, end) of a band matrix touch.
Range touched(const Band& band, std::int64_t begin, std::int64_t end) {
    Range range{band.start[begin], band.start[begin] + band.width};
    for (std::int64_t i = begin; i < end; ++i) {
        range.begin = std::min(range.begin, band.start[i]);
        range.end = std::max(range.end, band.start[i] + band.width);
    }
    return range;
}

// y += a x
CCF_CLONES void axpy(std::int64_t size, float a, const float* __restrict x, float* __restrict y) {
    for (std::int64_t i = 0; i < size; ++i) y[i] += a * x[i];
}

// y[j] = sum_t taps[j, t] x[start[j] + t]
CCF_CLONES void apply(const Band& band, const float* __restrict x, float* __restrict y) {
    for (std::int64_t j = 0; j < band.rows; ++j) {
        const float* const taps = band.taps + j * band.width;
        const float* const at = x + band.start[j];
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t t = 0; t < band.width; ++t) sum += taps[t] * at[t];
        y[j] = sum;
    }
}

// x[start[j] + t] += taps[j, t] y[j]
CCF_CLONES void apply_transposed(const Band& band, const float* __restrict y, float* __restrict x) {
    for (std::int64_t j = 0; j < band.rows; ++j) {
        const float* const taps = band.taps + j * band.width;
        float* const at = x + band.start[j];
        for (std::int64_t t = 0; t < band.width; ++t) at[t] += taps[t] * y[j];
    }
}

// y (columns) += sum_k a[k] x[k, :], four rows in one pass over y
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
    const std::int64_t band_elements = band_rows * shape.plane() / low_height;
    parallel_for(shape.planes() * down_bands, band_elements, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, width);
        std::vector<float> high(width), low(band_rows * width), narrow(low_width);
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / down_bands, first = item % down_bands * band_rows;
            const std::int64_t last = std::min(first + band_rows, low_height);
            std::fill(low.begin(), low.end(), 0.0f);
            const Range range = touched(rows.down, first, last);
            for (std::int64_t h = range.begin; h < range.end; ++h) {
                reader.projected({index / shape.channels, index % shape.channels, h * width, width}, high.data());
                for (std::int64_t i = first; i < last; ++i) {
                    const std::int64_t t = h - rows.down.start[i];
                    if (t < 0 || t >= rows.down.width) continue;
                    const float tap = rows.down.taps[i * rows.down.width + t];
                    axpy(width, tap, high.data(), low.data() + (i - first) * width);
                }
            }
            for (std::int64_t i = first; i < last; ++i) {
                apply(columns.down, low.data() + (i - first) * width, narrow.data());
                float* const z = scratch + (index * low_height + i) * low_width;
                std::fill_n(z, low_width, 0.0f);
                add_rows(low_width, narrow.data(), low_width, columns.inverse, z);
            }
        }
    });

    const std::int64_t band = ceil_div(band_rows * shape.height, low_height);  // high rows of a band
    const std::int64_t up_bands = ceil_div(shape.height, band);
    parallel_for(shape.planes() * up_bands, band * width, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, width);
        std::vector<float> narrow(low_width), wide, value(width);
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / up_bands, first = item % up_bands * band;
            const std::int64_t last = std::min(first + band, shape.height);
            const Range range = touched(rows.up, first, last);
            wide.assign((range.end - range.begin) * width, 0.0f);
            for (std::int64_t i = range.begin; i < range.end; ++i) {
                const float* const z = scratch + index * low_height * low_width;
                std::fill(narrow.begin(), narrow.end(), 0.0f);
                add_rows(low_height, rows.inverse + i * low_height, low_width, z, narrow.data());
                apply_transposed(columns.down, narrow.data(), wide.data() + (i - range.begin) * width);
            }
            for (std::int64_t h = first; h < last; ++h) {
                const std::int64_t offset = (index * shape.height + h) * width;
                float* const out = target(row, offset, value.data());
                reader.direct({index / shape.channels, index % shape.channels, h * width, width}, out);
                const float* const taps = rows.up.taps + h * rows.up.width;
                add_rows(rows.up.width, taps, width, wide.data() + (rows.up.start[h] - range.begin) * width, out);
                store(row, offset, width, out);
            }
        }
    });
}

}  // namespace ccf::cpu
