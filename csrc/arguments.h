// The arguments of an op of the CPU as its kernel takes them: every op is a row, and they share the checks of one.
//
// out = sum_k direct_k c_k terms_k + P(sum_k projected_k c_k terms_k), next = c_in out in the dtype of next; c_k is 1
// but for the places in `scaled`, where `scales` holds one number an image, (B,), or one an element. Of lincomb alone
// `out` and `next` may be terms.
#pragma once

#include "checks.h"
#include "cpu/kernels.h"

#define CCF_ROW "(Tensor(a!) out, Tensor(b!)? next, float c_in, Tensor[] terms, float[] direct, "
#define CCF_SCALES "Tensor[]? scales, int[]? scaled"
#define CCF_PROJECTION CCF_ROW "float[] projected, " CCF_SCALES ", "

namespace ccf {

// No op has a derivative, so that what requires grad would silently lose it.
void refuse_grad(Name name, const Tensors& tensors);
void refuse_grad(Name name, const Tensor& tensor);

// `tensors` multiply both coefficients of the terms whose places `places` lists.
struct Scales {
    const Maybe<Tensors>& tensors;
    const Maybe<Integers>& places;

    std::size_t count() const { return tensors ? tensors->size() : 0; }
};

Row make_row(const Tensors& terms, const Numbers& direct, const Numbers& projected, const Scales& scales);

// The same row with its outputs, which overlap neither each other nor what is read. With in_place an output may be a
// contiguous float32 term, which is right for an op that reads no other element of it than the one it writes.
Row make_row(const Tensor& out, const Maybe<Tensor>& next, double c_in, const Tensors& terms, const Numbers& direct,
             const Numbers& projected, const Scales& scales, bool in_place = false);

// The outputs of a row must not overlap what else it reads.
void check_apart(const Tensor& out, const Maybe<Tensor>& next, Name name, const Tensor& tensor);

template <class T>
const T* constant(Name name, const Tensor& tensor, ScalarType dtype, SizeList sizes) {
    refuse_grad(name, tensor);
    check_data(name, tensor, dtype, tensor.is_cpu(), "on the CPU");
    check_sizes(name, tensor, sizes);
    return static_cast<const T*>(tensor.const_data_ptr());
}

// Returns a place to work in, whose shape does not matter.
inline float* workspace(Name name, const Tensor& tensor, std::int64_t count) {
    refuse_grad(name, tensor);
    check_data(name, tensor, ScalarType::Float, tensor.is_cpu(), "on the CPU");
    check_elements(name, tensor, count);
    return static_cast<float*>(tensor.mutable_data_ptr());
}

}  // namespace ccf
