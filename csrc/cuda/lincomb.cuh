// Elementwise passes lie around a projector that others apply: one combines the projected terms, one adds the direct
// ones.
#pragma once

#include "row.cuh"

namespace ccf::cuda {

constexpr int run = 4;  // A thread has so many neighbouring pixels, 16 bytes of float.

template <class T>
struct alignas(run * sizeof(T)) Run {
    T value[run];
};

// A run of pixels of one plane; `count` is less than four at the end of a plane whose size four does not divide.
struct RunPlace {
    int plane, pixel, count;
};

// Blocks of neighbouring runs lie along y, and planes along x. A thread without a place has count 0.
__device__ __forceinline__ RunPlace run_place(const Shape& shape) {
    const int pixel = static_cast<int>(blockIdx.y * run_threads + threadIdx.x) * run;
    const int left = static_cast<int>(shape.plane()) - pixel;
    return {static_cast<int>(blockIdx.x), pixel, left < 0 ? 0 : left < run ? left : run};
}

// y += coefficient source, for a contiguous plane.
template <class T>
__device__ __forceinline__ void add_run(float* y, float coefficient, const T* source, int count, bool vector) {
    if (vector) {
        const auto values = *reinterpret_cast<const Run<T>*>(source);
#pragma unroll
        for (int i = 0; i < run; ++i) y[i] += coefficient * load(values.value[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < run; ++i)
        if (i < count) y[i] += coefficient * load(source[i]);
}

// Scaled: some terms have tensors as coefficients, for which a thread needs more registers.
template <bool Projected, int Scaled>
__device__ __forceinline__ void add_terms(const DeviceRow& row, const RunPlace& at, float* y, int set = 0) {
    const int width = static_cast<int>(row.shape.width), channels = static_cast<int>(row.shape.channels);
    const auto add = [&](float coefficient, const DeviceTerm& term, auto* type) {
        using T = std::remove_reference_t<decltype(*type)>;
        const T* const plane = plane_of<T>(term, channels, at.plane);
        const Weight weight =
            Scaled ? weight_of(term, coefficient, channels, at.plane) : Weight{coefficient, nullptr, 0, 0};
        if (term.vector && !weight.scale) return add_run(y, weight.number, plane + at.pixel, run, true);
#pragma unroll
        for (int i = 0; i < run; ++i) {
            const int h = (at.pixel + i) / width, w = (at.pixel + i) % width;
            if (i < at.count) y[i] += weight.at(h, w) * load(plane[h * term.stride[2] + w * term.stride[3]]);
        }
    };
    for_terms<Projected>(row, add, set);
}

// Writes to a contiguous tensor; `vector` says that runs of its planes are aligned.
__device__ __forceinline__ void store_run(void* data, Dtype dtype, std::int64_t offset, const float* y, float scale,
                                          int count, bool vector) {
    with_dtype(dtype, [&](auto* type) {
        using T = std::remove_reference_t<decltype(*type)>;
        T* const to = static_cast<T*>(data) + offset;
        Run<T> values;
#pragma unroll
        for (int i = 0; i < run; ++i) values.value[i] = rounded(scale * y[i], T{});
        if (vector) {
            *reinterpret_cast<Run<T>*>(to) = values;
            return;
        }
#pragma unroll
        for (int i = 0; i < run; ++i)
            if (i < count) to[i] = values.value[i];
    });
}

__device__ __forceinline__ void store_runs(const DeviceRow& row, const RunPlace& at, const float* y, bool vector) {
    const std::int64_t offset = at.plane * row.shape.plane() + at.pixel;
    store_run(row.out, row.out_dtype, offset, y, 1.0f, at.count, vector);
    if (row.next) store_run(row.next, row.next_dtype, offset, y, next_scale(row), at.count, vector);
}

// field = sum_k b_k T_k. `vector` says that the planes of contiguous tensors begin at aligned places.
template <int Scaled>
__global__ void __launch_bounds__(run_threads)
    lincomb_combine(const __grid_constant__ DeviceRow row, float* __restrict__ field, const bool vector) {
    const RunPlace at = run_place(row.shape);
    if (!at.count) return;
    float y[run] = {};
    add_terms<true, Scaled>(row, at, y);
    store_run(field, Dtype::float32, at.plane * row.shape.plane() + at.pixel, y, 1.0f, at.count, vector);
}

// out = sum_k a_k T_k + field, where a null field stands for none.
template <int Scaled>
__global__ void __launch_bounds__(run_threads)
    lincomb_finish(const __grid_constant__ DeviceRow row, const float* __restrict__ field, const bool vector) {
    const RunPlace at = run_place(row.shape);
    if (!at.count) return;
    float y[run] = {};
    if (field) add_run(y, 1.0f, field + at.plane * row.shape.plane() + at.pixel, at.count, vector);
    add_terms<false, Scaled>(row, at, y);
    store_runs(row, at, y, vector);
}

}  // namespace ccf::cuda
