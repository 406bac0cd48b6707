// These kernels lie around the Fourier transforms of another library, for sides that fourier.cuh does not take.
#pragma once

#include "lincomb.cuh"
#include "packed.cuh"

namespace ccf::cuda {

// Packed planes take the place of planes in run_place, and sets follow each other, each of all planes of the batch.

template <int Scaled>
__global__ void __launch_bounds__(run_threads, Scaled ? 4 : 6)
    fourier_pack_planes(const __grid_constant__ DeviceRow row, const Groups groups, Complex* __restrict__ spectrum) {
    const RunPlace at = run_place(row.shape);
    if (!at.count) return;
    const Pair pair = pair_of(groups, at.plane);
    const int set = blockIdx.z;
    float re[run] = {}, im[run] = {};
    add_terms<true, Scaled>(row, {pair.first, at.pixel, at.count}, re, set);
    if (pair.second >= 0) add_terms<true, Scaled>(row, {pair.second, at.pixel, at.count}, im, set);
    Complex* const z = spectrum + (std::int64_t{set} * groups.all_pairs() + at.plane) * row.shape.plane() + at.pixel;
#pragma unroll
    for (int i = 0; i < run; ++i)
        if (i < at.count) z[i] = {re[i], im[i]};
}

template <int Scaled>
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
    add_terms<false, Scaled>(row, first, re);
    store_runs(row, first, re, vector);
    if (pair.second < 0) return;
    const RunPlace second{pair.second, at.pixel, at.count};
    add_terms<false, Scaled>(row, second, im);
    store_runs(row, second, im, vector);
}

// The first spectrum becomes the sum of all, each times its factors, or times m where it has none.
__global__ void __launch_bounds__(run_threads)
    fourier_multiply_planes(const Shape shape, const Groups groups, const float* __restrict__ multiplier,
                            const std::int64_t stride, const __grid_constant__ Factors factors,
                            Complex* __restrict__ spectrum) {
    const RunPlace at = run_place(shape);
    if (!at.count) return;
    const std::int64_t plane = shape.plane(), of_set = groups.all_pairs() * plane;
    const int group = at.plane / groups.pairs();
    Complex* const z = spectrum + at.plane * plane + at.pixel;
    Complex sum[run] = {};
    for (int set = 0; set < factors.sets; ++set) {
        const float* const f = factors.data[set] ? factors.data[set] + group * factors.stride[set] + at.pixel : nullptr;
        const Complex* const more =
            !set && factors.more ? static_cast<const Complex*>(factors.more) + at.plane * plane + at.pixel : nullptr;
        const float* const m = multiplier + group * stride + at.pixel;
#pragma unroll
        for (int i = 0; i < run; ++i)
            if (i < at.count) {
                Complex value = z[set * of_set + i];
                if (more) value = value + more[i];
                sum[i] = sum[i] + times(f ? factors.scale * f[i] : m[i], value);
            }
    }
#pragma unroll
    for (int i = 0; i < run; ++i)
        if (i < at.count) z[i] = sum[i];
}

// The first spectrum becomes conj(v) sum_j f_j sum v spectrum_j over the frequencies that alias; each set of those has
// a thread.
__global__ void __launch_bounds__(run_threads)
    fourier_alias_planes(const Shape shape, const Groups groups, const int low_height, const int low_width,
                         const Complex* __restrict__ basis, const std::int64_t stride,
                         const __grid_constant__ Factors factors, Complex* __restrict__ spectrum) {
    const int pair = blockIdx.x, low = blockIdx.y * run_threads + threadIdx.x, width = static_cast<int>(shape.width);
    if (low >= low_height * low_width) return;
    const Complex* const v = basis + pair / groups.pairs() * stride;
    Complex* const z = spectrum + pair * shape.plane();
    const auto for_aliases = [&](const auto& f) {
        for (int h = low / low_width; h < shape.height; h += low_height)
            for (int w = low % low_width; w < width; w += low_width) f(h * width + w);
    };
    Complex total = {};
    for (int set = 0; set < factors.sets; ++set) {
        const Complex* const own = z + set * groups.all_pairs() * shape.plane();
        Complex sum = {};
        for_aliases([&](int at) { sum = sum + v[at] * own[at]; });
        if (!set && factors.more)
            sum = sum + static_cast<const Complex*>(factors.more)[std::int64_t{pair} * low_height * low_width + low];
        const float* const f = factors.data[set];
        total = total + times(f ? factors.scale * f[pair / groups.pairs() * factors.stride[set] + low] : 1.0f, sum);
    }
    for_aliases([&](int at) { z[at] = conjugate(v[at]) * total; });
}

}  // namespace ccf::cuda
