// Launches of the fourier kernels: one of each for every side, chosen at run time.
#include "fourier.cuh"

#include <algorithm>

#include "kernels.h"

namespace ccf::cuda {
namespace {

// f(integral constant N) with N the side.
template <class F>
void with_side(std::int64_t side, const F& f) {
    switch (side) {
        case 64: return f(std::integral_constant<int, 64>{});
        case 128: return f(std::integral_constant<int, 128>{});
#if !defined(CCF_FEW_SIDES)  // the sanitizers', whose builds take minutes otherwise
        case 256: return f(std::integral_constant<int, 256>{});
        case 512: return f(std::integral_constant<int, 512>{});
        case 1024: return f(std::integral_constant<int, 1024>{});
        case 2048: return f(std::integral_constant<int, 2048>{});
#endif
    }
}

template <int N>
void launch_multiply(const Groups& groups, const Scratch& scratch, int pairs, int width, const Spectral& spectral,
                     void* stream) {
    const auto kernel = &columns_multiply<N>;
    const auto* roots = static_cast<const Complex*>(spectral.column_roots);
    const auto* multiplier = static_cast<const float*>(spectral.data);
    allow_shared("fourier columns_multiply", kernel, column_shared<N>);
    CCF_LAUNCH(kernel, dim3(width / column_lines(N), pairs), dim3(column_threads<N>), column_shared<N>, stream, groups,
               scratch, width, multiplier, spectral.stride, roots);
    check_launch("fourier columns_multiply");
}

template <int N, int S>
void launch_alias(const Groups& groups, const Scratch& scratch, int pairs, int width, const Spectral& spectral,
                  void* stream) {
    if constexpr (column_lines(N) >= S) {
        const auto kernel = &columns_alias<N, S>;
        const auto* roots = static_cast<const Complex*>(spectral.column_roots);
        const auto* basis = static_cast<const Complex*>(spectral.data);
        allow_shared("fourier columns_alias", kernel, column_shared<N>);
        CCF_LAUNCH(kernel, dim3(width / column_lines(N), pairs), dim3(column_threads<N>), column_shared<N>, stream,
                   groups, scratch, width, basis, spectral.stride, roots);
        check_launch("fourier columns_alias");
    }
}

}  // namespace

void fourier(const DeviceRow& row, const Groups& groups, const Spectral& spectral, void* scratch_data, int chunk,
             void* stream) {
    const int height = static_cast<int>(row.shape.height), width = static_cast<int>(row.shape.width);
    const auto* row_roots = static_cast<const Complex*>(spectral.row_roots);
    // a chunk goes through all three kernels before the next: what lies between them is still in the L2 cache
    for (int first = 0; first < groups.all_pairs(); first += chunk) {
        const Scratch scratch{static_cast<Complex*>(scratch_data), first};
        const int pairs = std::min(chunk, groups.all_pairs() - first);
        with_side(width, [&](auto side) {
            constexpr int N = decltype(side)::value;
            const auto kernel = &rows_forward<N>;
            CCF_LAUNCH(kernel, dim3(height / RowPlace<N>::rows, pairs), dim3(row_threads), row_shared<N>, stream, row,
                       groups, scratch, row_roots);
            check_launch("fourier rows_forward");
        });
        with_side(height, [&](auto side) {
            constexpr int N = decltype(side)::value;
            switch (spectral.factor) {
                case 1: return launch_multiply<N>(groups, scratch, pairs, width, spectral, stream);
                case 2: return launch_alias<N, 2>(groups, scratch, pairs, width, spectral, stream);
                case 4: return launch_alias<N, 4>(groups, scratch, pairs, width, spectral, stream);
                case 8: return launch_alias<N, 8>(groups, scratch, pairs, width, spectral, stream);
            }
        });
        with_side(width, [&](auto side) {
            constexpr int N = decltype(side)::value;
            const auto kernel = &rows_inverse<N>;
            CCF_LAUNCH(kernel, dim3(height / RowPlace<N>::rows, pairs), dim3(row_threads), row_shared<N>, stream, row,
                       groups, scratch, row_roots);
            check_launch("fourier rows_inverse");
        });
    }
}

}  // namespace ccf::cuda
