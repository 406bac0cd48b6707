// These kernels lie around the Fourier transforms of another library, for sides that fourier.cuh does not take.
#pragma once

#include "lincomb.cuh"
#include "packed.cuh"

namespace ccf::cuda {

// Packed planes take the place of planes in run_place.

__global__ void __launch_bounds__(run_threads, 6)
    fourier_pack_planes(const __grid_constant__ DeviceRow row, const Groups groups, Complex* __restrict__ spectrum) {
    const RunPlace at = run_place(row.shape);
    if (!at.count) return;
    const Pair pair = pair_of(groups, at.plane);
    float re[run] = {}, im[run] = {};
    add_terms<true>(row, {pair.first, at.pixel, at.count}, re);
    if (pair.second >= 0) add_terms<true>(row, {pair.second, at.pixel, at.count}, im);
    Complex* const z = spectrum + at.plane * row.shape.plane() + at.pixel;
#pragma unroll
    for (int i = 0; i < run; ++i)
        if (i < at.count) z[i] = {re[i], im[i]};
}

__global__ void __launch_bounds__(run_threads)
    fourier_unpack_planes(const __grid_constant__ DeviceRow row, const Groups groups,
                          const Complex* __restrict__ spectrum, const bool vector) {
    const RunPlace at = run_place(row.shape);
    if (!at.count) return;
    const Pair pair = pair_of(groups, at.plane);
    const Complex* const z = spectrum + at.plane * row.shape.plane() + at.pixel;
    float re[run] = {}, im[run] = {};
#pragma unroll
    for (int i = 0; i < run; ++i)
        if (i < at.count) re[i] = z[i].re, im[i] = z[i].im;
    const RunPlace first{pair.first, at.pixel, at.count};
    add_terms<false>(row, first, re);
    store_runs(row, first, re, vector);
    if (pair.second < 0) return;
    const RunPlace second{pair.second, at.pixel, at.count};
    add_terms<false>(row, second, im);
    store_runs(row, second, im, vector);
}

// spectrum = m spectrum.
__global__ void __launch_bounds__(run_threads)
    fourier_multiply_planes(const Shape shape, const Groups groups, const float* __restrict__ multiplier,
                            const std::int64_t stride, Complex* __restrict__ spectrum) {
    const RunPlace at = run_place(shape);
    const float* const m = multiplier + at.plane / groups.pairs() * stride + at.pixel;
    Complex* const z = spectrum + at.plane * shape.plane() + at.pixel;
#pragma unroll
    for (int i = 0; i < run; ++i)
        if (i < at.count) z[i] = {m[i] * z[i].re, m[i] * z[i].im};
}

// spectrum = conj(v) sum v spectrum over the frequencies that alias; each set of them has a thread.
__global__ void __launch_bounds__(run_threads)
    fourier_alias_planes(const Shape shape, const Groups groups, const int low_height, const int low_width,
                         const Complex* __restrict__ basis, const std::int64_t stride, Complex* __restrict__ spectrum) {
    const int pair = blockIdx.x, low = blockIdx.y * run_threads + threadIdx.x, width = static_cast<int>(shape.width);
    if (low >= low_height * low_width) return;
    const Complex* const v = basis + pair / groups.pairs() * stride;
    Complex* const z = spectrum + pair * shape.plane();
    Complex sum = {};
    const auto for_aliases = [&](const auto& f) {
        for (int h = low / low_width; h < shape.height; h += low_height)
            for (int w = low % low_width; w < width; w += low_width) f(h * width + w);
    };
    for_aliases([&](int at) { sum = sum + v[at] * z[at]; });
    for_aliases([&](int at) { z[at] = conjugate(v[at]) * sum; });
}

}  // namespace ccf::cuda
