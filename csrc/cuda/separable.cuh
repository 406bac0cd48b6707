// out = A_r x A_c^T of every plane, where A_r and A_c are band matrices. Indices are modulo the image, so that circular
// borders are bands, too. One block makes a square tile of the result: it gathers what the tile depends on in shared
// memory, applies A_r, then A_c. P = H^T (H H^T)^-1 H is three of these: from the terms of a row to a low-resolution
// image, from that to another, and from that to the row's outputs.
#pragma once

#include "row.cuh"

namespace ccf::cuda {

constexpr int banded_threads = 256, lanes = 32;

enum class Ends { terms_to_field, field_to_field, field_to_row };

// Returns the column of an index that has wrapped around at most once.
__device__ __forceinline__ int wrapped(int index, int n) { return index < n ? index : index - n; }

// Returns where row i of the band begins in the columns that its tile has gathered.
__device__ __forceinline__ int offset_in_tile(const CyclicBand& band, int i, int base) {
    const int offset = band.start[i] - base;
    return offset < 0 ? offset + band.columns : offset;
}

// Calls f(row, column, place in shared memory) over the gathered rectangle, with a warp for each row.
template <class F>
__device__ __forceinline__ void for_gathered(const CyclicBand& rows, const CyclicBand& columns, int base_row,
                                             int base_column, const F& f) {
    for (int r = threadIdx.x / lanes; r < rows.extent; r += banded_threads / lanes) {
        const int h = wrapped(base_row + r, rows.columns);
#pragma unroll 4
        for (int c = threadIdx.x % lanes; c < columns.extent; c += lanes)
            f(h, wrapped(base_column + c, columns.columns), r * columns.extent + c);
    }
}

// field_in and field_out are (planes, height, width) and contiguous. They are null where the terms or the outputs of
// the row take their places.
template <int Tile, Ends E>
__global__ void __launch_bounds__(banded_threads, 4)
    banded(const __grid_constant__ DeviceRow row, const CyclicBand rows, const CyclicBand columns,
           const float* __restrict__ field_in, float* __restrict__ field_out) {
    CCF_SHARED(float, gathered);  // It is (rows.extent, columns.extent), then (Tile, columns.extent).
    float* const narrow = gathered + rows.extent * columns.extent;
    const int plane = blockIdx.x, first_row = blockIdx.y * Tile, first_column = blockIdx.z * Tile;
    const int base_row = rows.base[blockIdx.y], base_column = columns.base[blockIdx.z];

    if constexpr (E == Ends::terms_to_field) {
        for_gathered(rows, columns, base_row, base_column, [&](int, int, int at) { gathered[at] = 0.0f; });
        // a thread adds to the places that it has set itself
        for_terms<true>(row, [&](float coefficient, const DeviceTerm& term, auto* type) {
            using T = std::remove_reference_t<decltype(*type)>;
            const int channels = static_cast<int>(row.shape.channels);
            const T* const source = plane_of<T>(term, channels, plane);
            const Weight weight = weight_of(term, coefficient, channels, plane);
            for_gathered(rows, columns, base_row, base_column, [&](int h, int w, int at) {
                gathered[at] += weight.at(h, w) * load(source[h * term.stride[2] + w * term.stride[3]]);
            });
        });
    } else {
        const float* const source = field_in + static_cast<std::int64_t>(plane) * rows.columns * columns.columns;
        for_gathered(rows, columns, base_row, base_column,
                     [&](int h, int w, int at) { gathered[at] = source[h * columns.columns + w]; });
    }
    __syncthreads();

    for (int i = threadIdx.x / lanes; i < Tile && first_row + i < rows.rows; i += banded_threads / lanes) {
        const float* const x = gathered + offset_in_tile(rows, first_row + i, base_row) * columns.extent;
        const float* const taps = rows.taps + first_row + i;
        for (int c = threadIdx.x % lanes; c < columns.extent; c += lanes) {
            float sum = 0.0f;
            for (int t = 0; t < rows.width; ++t) sum += taps[t * rows.rows] * x[t * columns.extent + c];
            narrow[i * columns.extent + c] = sum;
        }
    }
    __syncthreads();

    constexpr int steps = Tile * Tile > banded_threads ? Tile * Tile / banded_threads : 1;
    const int j = threadIdx.x % Tile, w = first_column + j, i = threadIdx.x / Tile;
    if (i >= Tile || w >= columns.rows) return;
    float sum[steps] = {};
    const float* const y = narrow + offset_in_tile(columns, w, base_column);
    for (int t = 0; t < columns.width; ++t) {
        const float tap = columns.taps[t * columns.rows + w];
#pragma unroll
        for (int k = 0; k < steps; ++k) sum[k] += tap * y[(i + k * (banded_threads / Tile)) * columns.extent + t];
    }
    // f(row of the image, sum) of the pixels that this thread has made
    const auto for_pixels = [&](const auto& f) {
#pragma unroll
        for (int k = 0; k < steps; ++k) {
            const int h = first_row + i + k * (banded_threads / Tile);
            if (h < rows.rows) f(h, sum[k]);
        }
    };
    if constexpr (E == Ends::field_to_row) {
        for_terms<false>(row, [&](float coefficient, const DeviceTerm& term, auto* type) {
            using T = std::remove_reference_t<decltype(*type)>;
            const int channels = static_cast<int>(row.shape.channels);
            const T* const source = plane_of<T>(term, channels, plane);
            const Weight weight = weight_of(term, coefficient, channels, plane);
            for_pixels([&](int h, float& value) {
                value += weight.at(h, w) * load(source[h * term.stride[2] + w * term.stride[3]]);
            });
        });
        const auto to = [&](void* data, Dtype dtype, float scale) {
            with_dtype(dtype, [&](auto* type) {
                using T = std::remove_reference_t<decltype(*type)>;
                T* const out = static_cast<T*>(data) + plane * row.shape.plane() + w;
                for_pixels([&](int h, float& value) { out[h * row.shape.width] = rounded(scale * value, T{}); });
            });
        };
        to(row.out, row.out_dtype, 1.0f);
        if (row.next) to(row.next, row.next_dtype, next_scale(row));
    } else {
        float* const out = field_out + static_cast<std::int64_t>(plane) * rows.rows * columns.rows + w;
        for_pixels([&](int h, float& value) { out[h * columns.rows] = value; });
    }
}

}  // namespace ccf::cuda
