// The arguments of an op of the CPU as its kernel takes them: every op is a row, and they share the checks of one.
//
// out = sum_k direct_k c_k terms_k + P(sum_k projected_k c_k terms_k), next = c_in out in the dtype of next; c_k is 1
// but for the places in `scaled`, where `scales` holds one number an image, (B,), or one an element. Of lincomb alone
// `out` may be one of the terms.
#pragma once

#include "checks.h"
#include "cpu/kernels.h"

#define CCF_ROW "(Tensor(a!) out, Tensor(b!)? next, float c_in, Tensor[] terms, float[] direct, "
#define CCF_SCALES "Tensor[]? scales, int[]? scaled"
#define CCF_PROJECTION CCF_ROW "float[] projected, " CCF_SCALES ", "

namespace ccf {

// No op has a derivative: what requires grad would silently lose it.
void refuse_grad(const Tensors& tensors);
void refuse_grad(const Tensor& tensor);

// `tensors` multiply both coefficients of the terms whose places `places` lists.
struct Scales {
    const Maybe<Tensors>& tensors;
    const Maybe<Integers>& places;

    std::size_t count() const { return tensors ? tensors->size() : 0; }
};

Row make_row(const Tensors& terms, const Numbers& direct, const Numbers& projected, const Scales& scales);

// The same with its outputs. in_place: out may be a contiguous float32 term, for an op that reads no other element of
// it than the one it writes.
Row make_row(const Tensor& out, const Maybe<Tensor>& next, double c_in, const Tensors& terms, const Numbers& direct,
             const Numbers& projected, const Scales& scales, bool in_place = false);

template <class T>
const T* constant(Name name, const Tensor& tensor, ScalarType dtype, std::int64_t count) {
    refuse_grad(tensor);
    return data_of<T>(name, tensor, dtype, count, tensor.is_cpu(), "on the CPU");
}

}  // namespace ccf
