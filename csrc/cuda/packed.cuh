// Two real planes of an image travel as one complex plane: P is linear and real, so P(a + i b) = P a + i P b.
#pragma once

#include "fft.cuh"
#include "row.cuh"

namespace ccf::cuda {

// A pair holds two real planes, as they are numbered in the batch; `second` is -1 for the last of an odd number.
struct Pair {
    int group, first, second;
};

__device__ __forceinline__ Pair pair_of(const Groups& groups, int index) {
    const int group = index / groups.pairs(), member = 2 * (index % groups.pairs());
    const int first = group * groups.planes + member;
    return {group, first, member + 1 < groups.planes ? first + 1 : -1};
}

// v[k] += the terms at row h, columns w + k Step of the pair: direct ones, or the projected ones of a set.
template <bool Projected, int Step>
__device__ __forceinline__ void add_terms(const DeviceRow& row, const Pair& pair, int h, int w, Complex* v,
                                          int set = 0) {
    const int channels = static_cast<int>(row.shape.channels);
    const auto add = [&](float coefficient, const DeviceTerm& term, auto* type) {
        using T = std::remove_reference_t<decltype(*type)>;
        const std::int64_t step = term.stride[3], at = h * term.stride[2] + w * step;
        const auto add_plane = [&](int plane, float Complex::* part) {
            const T* const source = plane_of<T>(term, channels, plane) + at;
            const Weight weight = weight_of(term, coefficient, channels, plane);
            if (weight.scale) {
#pragma unroll
                for (int k = 0; k < held; ++k) v[k].*part += weight.at(h, w + k * Step) * load(source[k * Step * step]);
                return;
            }
#pragma unroll
            for (int k = 0; k < held; ++k) v[k].*part += weight.number * load(source[k * Step * step]);
        };
        add_plane(pair.first, &Complex::re);
        if (pair.second >= 0) add_plane(pair.second, &Complex::im);
    };
    for_terms<Projected>(row, add, set);
}

// Writes the same places of out and next.
template <int Step>
__device__ __forceinline__ void store(const DeviceRow& row, const Pair& pair, int h, int w, const Complex* v) {
    const auto planes = [&](void* data, Dtype dtype, float scale) {
        with_dtype(dtype, [&](auto* type) {
            using T = std::remove_reference_t<decltype(*type)>;
            const std::int64_t plane = row.shape.plane(), at = h * row.shape.width + w;
            T* const re = static_cast<T*>(data) + pair.first * plane + at;
#pragma unroll
            for (int k = 0; k < held; ++k) re[k * Step] = rounded(scale * v[k].re, T{});
            if (pair.second < 0) return;
            T* const im = static_cast<T*>(data) + pair.second * plane + at;
#pragma unroll
            for (int k = 0; k < held; ++k) im[k * Step] = rounded(scale * v[k].im, T{});
        });
    };
    planes(row.out, row.out_dtype, 1.0f);
    if (row.next) planes(row.next, row.next_dtype, next_scale(row));
}

}  // namespace ccf::cuda
