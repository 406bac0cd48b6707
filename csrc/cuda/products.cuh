// out = V f V^T of every plane, where V = V_r x V_c has orthonormal columns that are dense. Three kernels:
//
//     product<terms_to_field>    t_j = (sum of set j) V_c, for every set j of projected terms
//     rows_between               c = sum_j f_j V_r^T t_j, and t_0 = V_r c; the first set may have coordinates added
//     product<field_to_row>      out = t_0 V_c^T and the direct terms
//
// V_r acts on columns of t alone, so that a block that has some of them needs no other block between its two products.
#pragma once

#include "separable.cuh"

namespace ccf::cuda {

constexpr int product_threads = 256, product_side = 64, product_depth = 32;
constexpr std::size_t product_shared = sizeof(float) * product_depth * (2 * product_side + 1);

// A tile of 64 x 64 results is made of 32 columns of the left factor at a time. The rows of all planes follow each
// other. A thread has the rows 4 i .. 4 i + 3 and the columns j, j + 16, j + 32 and j + 48 of a tile.
template <Ends E>
__global__ void __launch_bounds__(product_threads, 2)
    product(const __grid_constant__ DeviceRow row, const int depth, const int width, const float* __restrict__ field_in,
            const float* __restrict__ right, float* __restrict__ field_out) {
    constexpr int side = product_side, deep = product_depth, pitch = side + 1;
    CCF_SHARED(float, left_tile);
    float* const right_tile = left_tile + deep * pitch;
    const int height = static_cast<int>(row.shape.height), channels = static_cast<int>(row.shape.channels);
    const std::int64_t rows = row.shape.planes() * height, first_row = static_cast<std::int64_t>(blockIdx.x) * side;
    const int first_column = blockIdx.y * side, set = blockIdx.z;
    const int lane = threadIdx.x % lanes, warp = threadIdx.x / lanes, i = threadIdx.x / 16 * 4, j = threadIdx.x % 16;
    float sum[4][4] = {};
    for (int begin = 0; begin < depth; begin += deep) {
        const int k = begin + lane;
        __syncthreads();
        for (int r = warp; r < side; r += product_threads / lanes) {
            const std::int64_t at = first_row + r;
            float value = 0.0f;
            if (at < rows && k < depth) {
                if constexpr (E == Ends::terms_to_field) {
                    const int plane = static_cast<int>(at / height), h = static_cast<int>(at % height);
                    const auto add = [&](float coefficient, const DeviceTerm& term, auto* type) {
                        using T = std::remove_reference_t<decltype(*type)>;
                        const T* const source = plane_of<T>(term, channels, plane);
                        value += weight_of(term, coefficient, channels, plane).at(h, k) *
                                 load(source[h * term.stride[2] + k * term.stride[3]]);
                    };
                    for_terms<true>(row, add, set);
                } else {
                    value = field_in[at * depth + k];
                }
            }
            left_tile[lane * pitch + r] = value;
        }
        for (int at = threadIdx.x; at < deep * side; at += product_threads) {
            const int d = begin + at / side, w = first_column + at % side;
            right_tile[at] = d < depth && w < width ? right[static_cast<std::int64_t>(d) * width + w] : 0.0f;
        }
        __syncthreads();
#pragma unroll 4
        for (int d = 0; d < deep; ++d) {
            float a[4], b[4];
#pragma unroll
            for (int n = 0; n < 4; ++n) a[n] = left_tile[d * pitch + i + n], b[n] = right_tile[d * side + j + 16 * n];
#pragma unroll
            for (int m = 0; m < 4; ++m)
#pragma unroll
                for (int n = 0; n < 4; ++n) sum[m][n] += a[m] * b[n];
        }
    }
    // f(row of all planes, column, sum) of the results of this thread
    const auto for_results = [&](const auto& f) {
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                const std::int64_t at = first_row + i + m;
                const int w = first_column + j + 16 * n;
                if (at < rows && w < width) f(at, w, sum[m][n]);
            }
    };
    if constexpr (E == Ends::terms_to_field) {
        float* const out = field_out + set * rows * width;
        for_results([&](std::int64_t at, int w, float& value) { out[at * width + w] = value; });
    } else {
        for_terms<false>(row, [&](float coefficient, const DeviceTerm& term, auto* type) {
            using T = std::remove_reference_t<decltype(*type)>;
            for_results([&](std::int64_t at, int w, float& value) {
                const int plane = static_cast<int>(at / height), h = static_cast<int>(at % height);
                const T* const source = plane_of<T>(term, channels, plane);
                value += weight_of(term, coefficient, channels, plane).at(h, w) *
                         load(source[h * term.stride[2] + w * term.stride[3]]);
            });
        });
        const auto to = [&](void* data, Dtype dtype, float scale) {
            with_dtype(dtype, [&](auto* type) {
                using T = std::remove_reference_t<decltype(*type)>;
                T* const out = static_cast<T*>(data);
                for_results(
                    [&](std::int64_t at, int w, float& value) { out[at * width + w] = rounded(scale * value, T{}); });
            });
        };
        to(row.out, row.out_dtype, 1.0f);
        if (row.next) to(row.next, row.next_dtype, next_scale(row));
    }
}

struct alignas(16) Four {
    float value[4];
};

// The columns of t that a block has are [first, first + Columns) of a plane; t is (sets, planes, height, width), and
// `up` and `down` are V_r, (height, rank), and its transpose. A thread takes four columns at a time.
template <int Columns>
__global__ void __launch_bounds__(product_threads)
    rows_between(const int planes, const int height, const int rank, const int width, const float* __restrict__ up,
                 const float* __restrict__ down, const __grid_constant__ Factors factors, float* __restrict__ t) {
    constexpr int fours = Columns / 4;
    CCF_SHARED(Four, x);                 // It is (height, fours).
    Four* const c = x + height * fours;  // It is (rank, fours).
    const int plane = blockIdx.x, first = blockIdx.y * Columns;
    const auto of_set = [&](int set) {
        return t + (static_cast<std::int64_t>(set) * planes + plane) * height * width + first;
    };
    // f(row, four, place) for every row of so many and every four columns of the block
    const auto for_fours = [&](int rows, const auto& f) {
        for (int at = threadIdx.x; at < rows * fours; at += product_threads) f(at % rows, at / rows);
    };
    for (int set = 0; set < factors.sets; ++set) {
        const float* const from = of_set(set);
        __syncthreads();
        for (int at = threadIdx.x; at < height * Columns; at += product_threads) {
            const int h = at / Columns, w = at % Columns;
            x[h * fours + w / 4].value[w % 4] =
                first + w < width ? from[static_cast<std::int64_t>(h) * width + w] : 0.0f;
        }
        __syncthreads();
        const std::int64_t own = static_cast<std::int64_t>(plane) * rank * width;
        const float* const f = factors.data[set];
        const float* const of_plane = f ? f + plane * factors.stride[set] : nullptr;
        const auto* const more = set ? nullptr : static_cast<const float*>(factors.more);
        for_fours(rank, [&](int i, int four) {
            Four sum{};
            for (int h = 0; h < height; ++h) {
                const float v = up[static_cast<std::int64_t>(h) * rank + i];
                const Four value = x[h * fours + four];
#pragma unroll
                for (int n = 0; n < 4; ++n) sum.value[n] += v * value.value[n];
            }
            Four total = set ? c[i * fours + four] : Four{};
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                const int w = first + 4 * four + n;
                if (w >= width) continue;
                const std::int64_t at = static_cast<std::int64_t>(i) * width + w;
                if (more) sum.value[n] += more[own + at];
                total.value[n] += f ? factors.scale * of_plane[at] * sum.value[n] : sum.value[n];
            }
            c[i * fours + four] = total;
        });
    }
    __syncthreads();
    float* const to = of_set(0);
    for_fours(height, [&](int h, int four) {
        Four sum{};
        for (int i = 0; i < rank; ++i) {
            const float v = down[static_cast<std::int64_t>(i) * height + h];
            const Four value = c[i * fours + four];
#pragma unroll
            for (int n = 0; n < 4; ++n) sum.value[n] += v * value.value[n];
        }
#pragma unroll
        for (int n = 0; n < 4; ++n)
            if (first + 4 * four + n < width) to[static_cast<std::int64_t>(h) * width + 4 * four + n] = sum.value[n];
    });
}

}  // namespace ccf::cuda
