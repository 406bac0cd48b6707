// P diagonal in the Fourier basis (or block diagonal, with aliases), sides 64 .. 2048, powers of two. Three kernels on
// packed pairs of planes, in place in a scratch of complex planes that stays in the L2 cache:
//
//     rows_forward    combine the projected terms in registers, transform every row
//     columns         transform every column, multiply, transform back
//     rows_inverse    transform every row back, add the direct terms, write out and next
#pragma once

#include <type_traits>

#include "packed.cuh"

namespace ccf::cuda {

struct Scratch {
    Complex* data;  // (pairs, height, width)
    int first;      // pair of the batch that lies at the start
};

// ------------------------------------------------------------------------------------------- rows
constexpr int row_threads = 256;

// The row and the place in it of a thread: 256 / (N / 8) rows a block, which divides every height allowed.
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
// The same pointer, which the compiler takes for another: addresses are computed again where they are used again, and
// take no registers across the transforms in between.
template <class T>
__device__ __forceinline__ T* again(T* pointer) {
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+l"(pointer));
#endif
    return pointer;
}

// Columns of a block: 128 bytes of a row where 512 threads suffice for them; 1024 threads at most, 72 KB at most.
constexpr int column_lines(int n) { return n <= 256 ? 16 : n <= 1024 ? 8 : 4; }

template <int N>
using ColumnTile = Tile<column_lines(N), false>;

template <int N>
constexpr int column_threads = column_lines(N) * N / held;

template <int N>
constexpr std::size_t column_shared = ColumnTile<N>::size(N) * sizeof(Complex);

// z = F^-1 m F z along the columns, m (groups or 1, height, width)
template <int N>
__global__ void __launch_bounds__(column_threads<N>, column_threads<N> <= 512 ? 2 : 1)
    columns_multiply(const Groups groups, const Scratch scratch, const int width, const float* __restrict__ multiplier,
                     const std::int64_t multiplier_stride, const Complex* __restrict__ roots) {
    constexpr int L = column_lines(N), T = N / held;
    CCF_SHARED(Complex, shared);
    const unsigned c = threadIdx.x % L, t = threadIdx.x / L;
    const int pair = blockIdx.y, column = blockIdx.x * L + c;
    const ColumnTile<N> tile{shared + c};
    Complex* const z = scratch.data + (static_cast<std::int64_t>(pair) * N + t) * width + column;
    const int group = (scratch.first + pair) / groups.pairs();
    const float* const m = multiplier + group * multiplier_stride + static_cast<std::int64_t>(t) * width + column;
    const int step = T * width;
    Complex v[held];
#pragma unroll
    for (int k = 0; k < held; ++k) v[k] = z[k * step];
    transform<N, -1, true>(v, t, roots, tile);
#pragma unroll
    for (int k = 0; k < held; ++k) {
        const float factor = m[k * step];
        v[k] = {factor * v[k].re, factor * v[k].im};
    }
    transform<N, 1, false>(v, t, again(roots), tile);
    Complex* const to = again(z);
#pragma unroll
    for (int k = 0; k < held; ++k) to[k * step] = v[k];
}

// With decimation by S: of the S x S frequencies that alias, z = conj(v) sum v z, v = basis (groups or 1, height,
// width). A block has the S columns that alias of L / S neighbours; the S rows are registers of one thread.
template <int N, int S>
__global__ void __launch_bounds__(column_threads<N>, column_threads<N> <= 512 ? 2 : 1)
    columns_alias(const Groups groups, const Scratch scratch, const int width, const Complex* __restrict__ basis,
                  const std::int64_t basis_stride, const Complex* __restrict__ roots) {
    constexpr int L = column_lines(N), T = N / held, neighbours = L / S, kept = held / S;
    CCF_SHARED(Complex, shared);
    const unsigned c = threadIdx.x % L, t = threadIdx.x / L;
    const int pair = blockIdx.y;
    const int column = blockIdx.x * neighbours + c % neighbours + c / neighbours * (width / S);
    const ColumnTile<N> tile{shared + c};
    Complex* const z = scratch.data + (static_cast<std::int64_t>(pair) * N + t) * width + column;
    const int group = (scratch.first + pair) / groups.pairs();
    const Complex* const b = basis + group * basis_stride + static_cast<std::int64_t>(t) * width + column;
    const int step = T * width;
    Complex v[held];
#pragma unroll
    for (int k = 0; k < held; ++k) v[k] = z[k * step];
    transform<N, -1, true>(v, t, roots, tile);

    Complex sum[kept] = {};  // rows t + k T and t + (k + a kept) T alias
#pragma unroll
    for (int k = 0; k < held; ++k) sum[k % kept] = sum[k % kept] + b[k * step] * v[k];
    // a thread has read last where it writes now: no barrier
#pragma unroll
    for (int k = 0; k < kept; ++k) tile.write(t, k * T, sum[k]);
    tile.barrier();
    const ColumnTile<N> first{shared + c % neighbours};
#pragma unroll
    for (int k = 0; k < kept; ++k) {
        sum[k] = first.read(t, k * T);
#pragma unroll
        for (int a = 1; a < S; ++a) sum[k] = sum[k] + ColumnTile<N>{first.data + a * neighbours}.read(t, k * T);
    }
    const Complex* const b_again = again(b);
#pragma unroll
    for (int k = 0; k < held; ++k) v[k] = conjugate(b_again[k * step]) * sum[k % kept];

    transform<N, 1, false>(v, t, again(roots), tile);
    Complex* const to = again(z);
#pragma unroll
    for (int k = 0; k < held; ++k) to[k * step] = v[k];
}

}  // namespace ccf::cuda
