// The launches of the fourier kernels, of which there is one for every side, chosen at run time.
#include "fourier.cuh"

#include <algorithm>

#include "kernels.h"

namespace ccf::cuda {
namespace {

// Calls f with the side as an integral constant.
template <class F>
void with_side(std::int64_t side, const F& f) {
    switch (side) {
        case 64: return f(std::integral_constant<int, 64>{});
        case 128: return f(std::integral_constant<int, 128>{});
#if !defined(CCF_FEW_SIDES)  // The builds of the sanitizers would take minutes otherwise.
        case 256: return f(std::integral_constant<int, 256>{});
        case 512: return f(std::integral_constant<int, 512>{});
        case 1024: return f(std::integral_constant<int, 1024>{});
        case 2048: return f(std::integral_constant<int, 2048>{});
#endif
    }
}

// Both kernels of the columns are launched with these, for `pairs` planes in the scratch.
struct Columns {
    const Groups& groups;
    const Scratch& scratch;
    const Spectral& spectral;
    const Factors& factors;
    int pairs, width;
    void* stream;

    bool many() const { return factors.sets > 1 || factors.data[0]; }

    template <int N, class T, class Kernel, class... More>
    void launch(const char* name, Kernel* kernel, const More&... more) const {
        const auto* roots = static_cast<const Complex*>(spectral.column_roots);
        const auto* constants = static_cast<const T*>(spectral.data);
        allow_shared(name, kernel, column_shared<N>);
        CCF_LAUNCH(kernel, dim3(width / column_lines(N), pairs), dim3(column_threads<N>), column_shared<N>, stream,
                   groups, scratch, width, constants, spectral.stride, roots, more...);
        check_launch(name);
    }

    template <int N>
    void multiply() const {
        if (many()) launch<N, float>("fourier columns_factors", &columns_factors<N>, factors);
        else launch<N, float>("fourier columns_multiply", &columns_multiply<N>);
    }

    template <int N, int S>
    void alias() const {
        if constexpr (column_lines(N) >= S) {
            if (many()) launch<N, Complex>("fourier columns_alias_factors", &columns_alias_factors<N, S>, factors);
            else launch<N, Complex>("fourier columns_alias", &columns_alias<N, S>);
        }
    }
};

}  // namespace

void fourier(const DeviceRow& row, const Groups& groups, const Spectral& spectral, const Factors& factors,
             void* scratch_data, int chunk, void* stream) {
    const int height = static_cast<int>(row.shape.height), width = static_cast<int>(row.shape.width);
    const auto* row_roots = static_cast<const Complex*>(spectral.row_roots);
    // a chunk goes through all three kernels before the next, so that it is still in the L2 cache between two of them
    for (int first = 0; first < groups.all_pairs(); first += chunk) {
        const Scratch scratch{static_cast<Complex*>(scratch_data), first, chunk};
        const int pairs = std::min(chunk, groups.all_pairs() - first);
        const Columns columns{groups, scratch, spectral, factors, pairs, width, stream};
        const auto launch_rows = [&](const char* name, unsigned sets, auto kernel_of) {
            with_side(width, [&](auto side) {
                constexpr int N = decltype(side)::value;
                const auto kernel = kernel_of(side);
                CCF_LAUNCH(kernel, dim3(height / RowPlace<N>::rows, pairs, sets), dim3(row_threads), row_shared<N>,
                           stream, row, groups, scratch, row_roots);
                check_launch(name);
            });
        };
        const auto sets = static_cast<unsigned>(factors.sets);
        launch_rows("fourier rows_forward", sets, [](auto side) { return &rows_forward<decltype(side)::value>; });
        with_side(height, [&](auto side) {
            constexpr int N = decltype(side)::value;
            switch (spectral.factor) {
                case 1: return columns.multiply<N>();
                case 2: return columns.alias<N, 2>();
                case 4: return columns.alias<N, 4>();
                case 8: return columns.alias<N, 8>();
            }
        });
        launch_rows("fourier rows_inverse", 1, [](auto side) { return &rows_inverse<decltype(side)::value>; });
    }
}

}  // namespace ccf::cuda
