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
    Complex* data;  // They are (pairs, height, width).
    int first;      // It is the pair of the batch that lies at the start.
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
    const int pair = blockIdx.y;
    Complex v[held] = {};
    add_terms<true, N / held>(row, pair_of(groups, scratch.first + pair), at.h, at.t, v);
    transform<N, -1, true>(v, at.t, roots, at.line);
    Complex* const z = scratch.data + (pair * row.shape.height + at.h) * N + at.t;
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

    template <class T>
    __device__ __forceinline__ const T* constants(const T* data, std::int64_t stride) const {
        return data + group * stride + first;
    }

    __device__ __forceinline__ void load(Complex (&v)[held]) const {
#pragma unroll
        for (int k = 0; k < held; ++k) v[k] = z[k * step];
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

// With decimation by S, z = conj(v) sum v z over the S x S frequencies that alias; v is the basis (groups or 1, height,
// width). A block has the S columns that alias of L / S neighbours; the S rows are registers of one thread.
template <int N, int S>
__global__ void __launch_bounds__(column_threads<N>, column_threads<N> <= 512 ? 2 : 1)
    columns_alias(const Groups groups, const Scratch scratch, const int width, const Complex* __restrict__ basis,
                  const std::int64_t basis_stride, const Complex* __restrict__ roots) {
    constexpr int L = column_lines(N), T = N / held, neighbours = L / S, kept = held / S;
    CCF_SHARED(Complex, shared);
    const unsigned c = threadIdx.x % L;
    const int column = blockIdx.x * neighbours + c % neighbours + c / neighbours * (width / S);
    const ColumnPlace<N> at(groups, scratch, width, column, shared + c);
    const Complex* const b = at.constants(basis, basis_stride);
    Complex v[held];
    at.load(v);
    transform<N, -1, true>(v, at.t, roots, at.tile);

    Complex sum[kept] = {};  // Rows t + k T and t + (k + a kept) T alias.
#pragma unroll
    for (int k = 0; k < held; ++k) sum[k % kept] = sum[k % kept] + b[k * at.step] * v[k];
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

}  // namespace ccf::cuda
