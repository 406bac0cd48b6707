// Kernels read the terms of a row by these functions.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../math.h"
#include "params.h"
#include "platform.h"

namespace ccf::cuda {

__device__ __forceinline__ float direct_coefficient(const DeviceRow& row, int k) {
    if (row.residual) return k == 0 && !row.weighted ? 1.0f : 0.0f;
    return k < row.numbers ? row.table[k] : 0.0f;
}

__device__ __forceinline__ float projected_coefficient(const DeviceRow& row, int k) {
    if (row.residual) return k == 0 ? 0.0f : -row.table[k - 1];
    return k < row.numbers ? row.table[row.numbers + k] : 1.0f;
}

__device__ __forceinline__ float next_scale(const DeviceRow& row) {
    return row.residual ? 1.0f : row.table[2 * row.numbers];
}

// ------------------------------------------------------------------------------------------- half precision
#if defined(__CUDA_ARCH__)
__device__ __forceinline__ float load(bfloat16 value) { return to_float(value); }  // a shift
__device__ __forceinline__ float load(float16 value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}
__device__ __forceinline__ bfloat16 rounded(float value, bfloat16) {
    bfloat16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}
__device__ __forceinline__ float16 rounded(float value, float16) {
    float16 result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}
#else
__device__ __forceinline__ float load(bfloat16 value) { return to_float(value); }
__device__ __forceinline__ float load(float16 value) { return to_float(value); }
__device__ __forceinline__ bfloat16 rounded(float value, bfloat16) { return from_float<bfloat16>(value); }
__device__ __forceinline__ float16 rounded(float value, float16) { return from_float<float16>(value); }
#endif
__device__ __forceinline__ float load(float value) { return value; }
__device__ __forceinline__ float rounded(float value, float) { return value; }

// f(null pointer of the element type): the dtype of a tensor is known at run time, and is the same for all threads.
template <class F>
__device__ __forceinline__ void with_dtype(Dtype dtype, const F& f) {
    switch (dtype) {
        case Dtype::float32: return f(static_cast<float*>(nullptr));
        case Dtype::bfloat16: return f(static_cast<bfloat16*>(nullptr));
        case Dtype::float16: return f(static_cast<float16*>(nullptr));
    }
}

// ------------------------------------------------------------------------------------------- planes
// Returns the first element of a plane of a term.
template <class T>
__device__ __forceinline__ const T* plane_of(const DeviceTerm& term, int channels, int plane) {
    return static_cast<const T*>(term.data) + plane / channels * term.stride[0] + plane % channels * term.stride[1];
}

// The coefficients of a term in a plane: a number, and where the term's scale varies within planes the scale there.
struct Weight {
    float number;
    const float* scale;
    int row, column;  // They are strides.

    __device__ __forceinline__ float at(int h, int w) const {
        return scale ? number * scale[h * row + w * column] : number;
    }
};

__device__ __forceinline__ Weight weight_of(const DeviceTerm& term, float coefficient, int channels, int plane) {
    if (!term.scale) return {coefficient, nullptr, 0, 0};
    const float* const scale = term.scale + plane / channels * term.scaling[0] + plane % channels * term.scaling[1];
    if (!term.per_element) return {coefficient * *scale, nullptr, 0, 0};
    return {coefficient, scale, static_cast<int>(term.scaling[2]), static_cast<int>(term.scaling[3])};
}

// f(coefficient, term, null pointer of its element type) for every term whose coefficient is not zero: such a term is
// not read at all, so that a row costs the bytes of the terms that it has. Projected terms are those of one set.
template <bool Projected, class F>
__device__ __forceinline__ void for_terms(const DeviceRow& row, const F& f, int set = 0) {
    for (int k = 0; k < row.count; ++k) {
        if (Projected && row.terms[k].set != set) continue;
        const float coefficient = Projected ? projected_coefficient(row, k) : direct_coefficient(row, k);
        if (coefficient == 0.0f) continue;
        const DeviceTerm& term = row.terms[k];
        with_dtype(term.dtype, [&](auto* type) { f(coefficient, term, type); });
    }
}

}  // namespace ccf::cuda
