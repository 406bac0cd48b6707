// P is diagonal in the Fourier basis, or block diagonal where frequencies alias; sides are powers of two, 64 .. 2048.
// Three kernels work on packed pairs of planes, in place in a scratch of complex planes that stays in the L2 cache:
//
//     rows_forward    combine the projected terms in registers, transform every row
//     columns         transform every column, multiply, transform back
//     rows_inverse    transform every row back, add the direct terms, write out and next
#pragma once

#include <type_traits>

#include "packed.cuh"

namespace ccf::cuda {

struct Scratch {
    Complex* data;  // They are (sets, pairs, height, width).
    int first;      // It is the pair of the batch that lies at the start.
    int pairs;      // There is room for so many.
};

// ------------------------------------------------------------------------------------------- rows
constexpr int row_threads = 256;

// Each thread has a place in a row. A block has 256 / (N / 8) rows, which divides every height allowed.
template <int N>
struct RowPlace {
    static constexpr int T = N / held, rows = row_threads / T;
    using Line = Tile<1, T <= 32>;

    unsigned t;
    int h;
    Line line;

    __device__ __forceinline__ explicit RowPlace(Complex* shared)
        : t(threadIdx.x % T), h(blockIdx.x * rows + threadIdx.x / T), line{shared + threadIdx.x / T * Line::size(N)} {}
};

template <int N>
constexpr std::size_t row_shared = RowPlace<N>::rows * RowPlace<N>::Line::size(N) * sizeof(Complex);

template <int N>
__global__ void __launch_bounds__(row_threads, 4)
    rows_forward(const __grid_constant__ DeviceRow row, const Groups groups, const Scratch scratch,
                 const Complex* __restrict__ roots) {
    CCF_SHARED(Complex, shared);
    const RowPlace<N> at(shared);
    const int pair = blockIdx.y, set = blockIdx.z;
    Complex v[held] = {};
    add_terms<true, N / held>(row, pair_of(groups, scratch.first + pair), at.h, at.t, v, set);
    transform<N, -1, true>(v, at.t, roots, at.line);
    Complex* const z = scratch.data + ((std::int64_t{set} * scratch.pairs + pair) * row.shape.height + at.h) * N + at.t;
#pragma unroll
    for (int k = 0; k < held; ++k) z[k * (N / held)] = v[k];
}

template <int N>
__global__ void __launch_bounds__(row_threads, 4)
    rows_inverse(const __grid_constant__ DeviceRow row, const Groups groups, const Scratch scratch,
                 const Complex* __restrict__ roots) {
    CCF_SHARED(Complex, shared);
    const RowPlace<N> at(shared);
    const int pair = blockIdx.y;
    const Complex* const z = scratch.data + (pair * row.shape.height + at.h) * N + at.t;
    Complex v[held];
#pragma unroll
    for (int k = 0; k < held; ++k) v[k] = z[k * (N / held)];
    transform<N, 1, true>(v, at.t, roots, at.line);
    const Pair planes = pair_of(groups, scratch.first + pair);
    add_terms<false, N / held>(row, planes, at.h, at.t, v);
    store<N / held>(row, planes, at.h, at.t, v);
}

// ------------------------------------------------------------------------------------------- columns
// Returns the same pointer, which the compiler takes for another. Addresses are then computed again where they are used
// again, and take no registers across the transforms in between.
template <class T>
__device__ __forceinline__ T* again(T* pointer) {
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+l"(pointer));
#endif
    return pointer;
}

// A block has the columns of 128 bytes of a row where 512 threads suffice for them, and at most 1024 threads and 72 KB.
constexpr int column_lines(int n) { return n <= 256 ? 16 : n <= 1024 ? 8 : 4; }

template <int N>
using ColumnTile = Tile<column_lines(N), false>;

template <int N>
constexpr int column_threads = column_lines(N) * N / held;

template <int N>
constexpr std::size_t column_shared = ColumnTile<N>::size(N) * sizeof(Complex);

// Each thread has a place in a column, of the scratch and of the constants (groups or 1, height, width).
template <int N>
struct ColumnPlace {
    unsigned t;
    int group, width, step;
    std::int64_t first;  // It is an element of a plane.
    Complex* z;
    ColumnTile<N> tile;

    __device__ __forceinline__ ColumnPlace(const Groups& groups, const Scratch& scratch, int width, int column,
                                           Complex* tile)
        : t(threadIdx.x / column_lines(N)),
          group((scratch.first + static_cast<int>(blockIdx.y)) / groups.pairs()),
          width(width),
          step(N / held * width),
          first(static_cast<std::int64_t>(t) * width + column),
          z(scratch.data + static_cast<std::int64_t>(blockIdx.y) * N * width + first),
          tile{tile} {}

    // The same place of a pair's plane in a tensor of all pairs of the batch.
    __device__ __forceinline__ const Complex* of_pair(const Complex* data, const Scratch& scratch) const {
        return data + (static_cast<std::int64_t>(scratch.first) + blockIdx.y) * N * width + first;
    }

    template <class T>
    __device__ __forceinline__ const T* constants(const T* data, std::int64_t stride) const {
        return data + group * stride + first;
    }

    __device__ __forceinline__ void load(Complex (&v)[held], std::int64_t more = 0) const {
#pragma unroll
        for (int k = 0; k < held; ++k) v[k] = z[more + k * step];
    }

    __device__ __forceinline__ void store(const Complex (&v)[held]) const {
        Complex* const to = again(z);
#pragma unroll
        for (int k = 0; k < held; ++k) to[k * step] = v[k];
    }
};

// z = F^-1 m F z along the columns; m is (groups or 1, height, width).
template <int N>
__global__ void __launch_bounds__(column_threads<N>, column_threads<N> <= 512 ? 2 : 1)
    columns_multiply(const Groups groups, const Scratch scratch, const int width, const float* __restrict__ multiplier,
                     const std::int64_t multiplier_stride, const Complex* __restrict__ roots) {
    constexpr int L = column_lines(N);
    CCF_SHARED(Complex, shared);
    const unsigned c = threadIdx.x % L;
    const ColumnPlace<N> at(groups, scratch, width, blockIdx.x * L + c, shared + c);
    const float* const m = at.constants(multiplier, multiplier_stride);
    Complex v[held];
    at.load(v);
    transform<N, -1, true>(v, at.t, roots, at.tile);
#pragma unroll
    for (int k = 0; k < held; ++k) {
        const float factor = m[k * at.step];
        v[k] = {factor * v[k].re, factor * v[k].im};
    }
    transform<N, 1, false>(v, at.t, again(roots), at.tile);
    at.store(v);
}

// z = F^-1 sum_j f_j F z_j along the columns, where the sets z_j follow each other in the scratch, and f_j is a factor
// of every frequency, or where it has none m. What `more` holds is added to F z_0.
template <int N>
__global__ void __launch_bounds__(column_threads<N>, 1)
    columns_factors(const Groups groups, const Scratch scratch, const int width, const float* __restrict__ multiplier,
                    const std::int64_t multiplier_stride, const Complex* __restrict__ roots,
                    const __grid_constant__ Factors factors) {
    constexpr int L = column_lines(N);
    CCF_SHARED(Complex, shared);
    const unsigned c = threadIdx.x % L;
    const ColumnPlace<N> at(groups, scratch, width, blockIdx.x * L + c, shared + c);
    const std::int64_t of_set = static_cast<std::int64_t>(scratch.pairs) * N * width;
    Complex sum[held] = {};
    for (int set = 0; set < factors.sets; ++set) {
        Complex v[held];
        at.load(v, set * of_set);
        transform<N, -1, false>(v, at.t, again(roots), at.tile);
        if (!set && factors.more) {
            const Complex* const more = at.of_pair(static_cast<const Complex*>(factors.more), scratch);
#pragma unroll
            for (int k = 0; k < held; ++k) v[k] = v[k] + more[k * at.step];
        }
        const float* const f = factors.data[set];
        const float* const own = f ? at.constants(f, factors.stride[set]) : at.constants(multiplier, multiplier_stride);
        const float scale = f ? factors.scale : 1.0f;
#pragma unroll
        for (int k = 0; k < held; ++k) sum[k] = sum[k] + times(scale * own[k * at.step], v[k]);
    }
    transform<N, 1, false>(sum, at.t, again(roots), at.tile);
    at.store(sum);
}

// With decimation by S, z = conj(v) sum_j f_j sum v z_j over the S x S frequencies that alias; v is the basis (groups
// or 1, height, width). A block has the S columns that alias of L / S neighbours; the S rows are registers of one
// thread. Many: there are several sets z_j, or factors f_j (groups or 1, height / S, width / S).
template <int N, int S, bool Many>
__device__ __forceinline__ void alias_columns(const Groups& groups, const Scratch& scratch, const int width,
                                              const Complex* __restrict__ basis, const std::int64_t basis_stride,
                                              const Complex* __restrict__ roots, const Factors& factors) {
    constexpr int L = column_lines(N), T = N / held, neighbours = L / S, kept = held / S;
    CCF_SHARED(Complex, shared);
    const unsigned c = threadIdx.x % L;
    const int low_column = blockIdx.x * neighbours + c % neighbours, low_width = width / S;
    const ColumnPlace<N> at(groups, scratch, width, low_column + c / neighbours * low_width, shared + c);
    const Complex* const b = at.constants(basis, basis_stride);
    Complex v[held], sum[kept] = {};  // Rows t + k T and t + (k + a kept) T alias.
    if constexpr (!Many) {
        at.load(v);
        transform<N, -1, true>(v, at.t, roots, at.tile);
#pragma unroll
        for (int k = 0; k < held; ++k) sum[k % kept] = sum[k % kept] + b[k * at.step] * v[k];
    } else {
        for (int set = 0; set < factors.sets; ++set) {
            at.load(v, set * static_cast<std::int64_t>(scratch.pairs) * N * width);
            transform<N, -1, false>(v, at.t, again(roots), at.tile);
            Complex own[kept] = {};
            const Complex* const b_of_set = again(b);
#pragma unroll
            for (int k = 0; k < held; ++k) own[k % kept] = own[k % kept] + b_of_set[k * at.step] * v[k];
            const std::int64_t low = static_cast<std::int64_t>(at.t) * low_width + low_column;
            if (!set && factors.more && c < neighbours) {
                const auto pair = static_cast<std::int64_t>(scratch.first) + blockIdx.y;
                const Complex* const more =
                    static_cast<const Complex*>(factors.more) + pair * (N / S) * low_width + low;
#pragma unroll
                for (int k = 0; k < kept; ++k) own[k] = own[k] + more[k * T * low_width];
            }
            const float* const f = factors.data[set];
            const float* const of_low = f + at.group * factors.stride[set] + low;
#pragma unroll
            for (int k = 0; k < kept; ++k)
                sum[k] = sum[k] + times(f ? factors.scale * of_low[k * T * low_width] : 1.0f, own[k]);
        }
    }
    // no barrier is needed, since each place was last read by the thread that writes it now
#pragma unroll
    for (int k = 0; k < kept; ++k) at.tile.write(at.t, k * T, sum[k]);
    at.tile.barrier();
    const ColumnTile<N> first{shared + c % neighbours};
#pragma unroll
    for (int k = 0; k < kept; ++k) {
        sum[k] = first.read(at.t, k * T);
#pragma unroll
        for (int a = 1; a < S; ++a) sum[k] = sum[k] + ColumnTile<N>{first.data + a * neighbours}.read(at.t, k * T);
    }
    const Complex* const b_again = again(b);
#pragma unroll
    for (int k = 0; k < held; ++k) v[k] = conjugate(b_again[k * at.step]) * sum[k % kept];

    transform<N, 1, false>(v, at.t, again(roots), at.tile);
    at.store(v);
}

template <int N, int S>
__global__ void __launch_bounds__(column_threads<N>, column_threads<N> <= 512 ? 2 : 1)
    columns_alias(const Groups groups, const Scratch scratch, const int width, const Complex* __restrict__ basis,
                  const std::int64_t basis_stride, const Complex* __restrict__ roots) {
    alias_columns<N, S, false>(groups, scratch, width, basis, basis_stride, roots, {});
}

template <int N, int S>
__global__ void __launch_bounds__(column_threads<N>, 1)
    columns_alias_factors(const Groups groups, const Scratch scratch, const int width,
                          const Complex* __restrict__ basis, const std::int64_t basis_stride,
                          const Complex* __restrict__ roots, const __grid_constant__ Factors factors) {
    alias_columns<N, S, true>(groups, scratch, width, basis, basis_stride, roots, factors);
}

}  // namespace ccf::cuda
