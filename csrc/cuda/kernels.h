// The kernels of a GPU as the ops (csrc/*_cuda.cpp) call them. Each raises std::runtime_error, with the kernel's name,
// where a launch fails; all work is queued on `stream`.
#pragma once

#include <cstddef>
#include <initializer_list>

#include "params.h"

namespace ccf::cuda {

// The sides that the fourier kernels take are powers of two between these.
constexpr int smallest_side = 64, largest_side = 2048;
constexpr bool has_transform(std::int64_t side) {
    return side >= smallest_side && side <= largest_side && (side & (side - 1)) == 0;
}

// out = direct sum + P(projected sum), where `chunk` packed pairs of planes at a time go through the complex scratch
// (sets, chunk, height, width).
void fourier(const DeviceRow& row, const Groups& groups, const Spectral& spectral, const Factors& factors,
             void* scratch, int chunk, void* stream);

// These do the same around the transforms of another library, on (sets, pairs, height, width): pack, multiply or alias
// to the first set in place, and unpack that.
void fourier_pack(const DeviceRow& row, const Groups& groups, int sets, void* spectrum, void* stream);
void fourier_multiply(const Shape& shape, const Groups& groups, const Spectral& spectral, const Factors& factors,
                      void* spectrum, void* stream);
void fourier_alias(const Shape& shape, const Groups& groups, const Spectral& spectral, const Factors& factors,
                   int low_height, int low_width, void* spectrum, void* stream);
void fourier_unpack(const DeviceRow& row, const Groups& groups, const void* spectrum, void* stream);

// P = H^T (H H^T)^-1 H on rows and columns, with its three factors as bands. `low` holds two images, each of (planes,
// low height, low width).
struct BandedAxes {
    CyclicBand down, inverse, up;
};
// Tiles are 8, 16 or 32, the same for rows and columns of a factor. A block takes this much shared memory.
constexpr std::size_t largest_shared = 96 * 1024;
constexpr std::size_t banded_shared(const CyclicBand& rows, const CyclicBand& columns) {
    return sizeof(float) * columns.extent * (static_cast<std::size_t>(rows.extent) + rows.tile);
}
void separable(const DeviceRow& row, const BandedAxes& rows, const BandedAxes& columns, float* low, void* stream);

// P = V V^T on rows and columns with dense V, or V f V^T. `work` holds (sets, planes, height, rank of the columns).
struct DenseAxis {
    const float *up, *down;  // They are V, (side, rank), and its transpose.
    int side, rank;
};
constexpr int largest_between = static_cast<int>(largest_shared / (4 * sizeof(float)));
constexpr std::size_t between_shared(const DenseAxis& rows, int columns) {
    return sizeof(float) * columns * (static_cast<std::size_t>(rows.side) + rows.rank);
}
// Returns how many columns a block takes: as many as fit a half of the shared memory that it gets unasked.
constexpr int between_columns(const DenseAxis& rows) {
    for (const int columns : {16, 8})
        if (between_shared(rows, columns) <= 24 * 1024) return columns;
    return 4;
}
void products(const DeviceRow& row, const DenseAxis& rows, const DenseAxis& columns, const Factors& factors,
              float* work, void* stream);

// These lie around any P: field = projected sum, and out = direct sum + field, where a null field stands for none.
void combine(const DeviceRow& row, float* field, void* stream);
void finish(const DeviceRow& row, const float* field, void* stream);

}  // namespace ccf::cuda
