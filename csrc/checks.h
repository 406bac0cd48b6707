// What the ops of the CPU and of the GPU ask of their arguments alike. Torch's stable ABI only, so that one build
// serves every torch from 2.10 on. All ops write to buffers that they are given; none allocates a tensor.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "params.h"

namespace ccf {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;
using Numbers = std::vector<double>;
using Integers = std::vector<std::int64_t>;
template <class T>
using Maybe = std::optional<T>;  // None is read faster than an empty list

template <class... Parts>
void check(bool condition, const Parts&... parts) {
    if (condition) return;
    std::ostringstream message;
    (message << ... << parts);
    throw std::runtime_error(message.str());
}

// Parts of messages, written out only when a check fails: a call has a few microseconds in all.
struct Sizes {
    const Tensor& tensor;
};
inline std::ostream& operator<<(std::ostream& stream, const Sizes& sizes) {
    stream << '(';
    for (std::int64_t k = 0; k < sizes.tensor.dim(); ++k) stream << (k ? ", " : "") << sizes.tensor.size(k);
    return stream << ')';
}
inline Sizes sizes_of(const Tensor& tensor) { return {tensor}; }

struct Name {
    const char* text;
    int place;  // in a list, or -1

    constexpr Name(const char* name, int at = -1) : text(name), place(at) {}
};
inline std::ostream& operator<<(std::ostream& stream, const Name& name) {
    stream << name.text;
    return name.place < 0 ? stream : stream << '[' << name.place << ']';
}

// -------------------------------------------------------------------------------------------------- shapes
inline Shape shape_of(Name name, const Tensor& tensor) {
    check(tensor.dim() == 3 || tensor.dim() == 4, name, ": must be (B, C, H, W) or (B, C, L), got ", sizes_of(tensor));
    const bool image = tensor.dim() == 4;
    return {tensor.size(0), tensor.size(1), image ? tensor.size(2) : 1, tensor.size(image ? 3 : 2)};
}

inline void strides_of(const Tensor& tensor, std::int64_t* stride) {
    const bool image = tensor.dim() == 4;
    stride[0] = tensor.stride(0), stride[1] = tensor.stride(1);
    stride[2] = image ? tensor.stride(2) : 0, stride[3] = tensor.stride(image ? 3 : 2);
}

inline bool same_sizes(const Tensor& a, const Tensor& b) {
    const auto x = a.sizes(), y = b.sizes();
    return x.size() == y.size() && std::equal(x.begin(), x.end(), y.begin());
}

// `names` are two parameters, `tensor` is what has the shape.
inline void check_divides(Name names, std::int64_t height, std::int64_t width, const Shape& shape,
                          const Tensor& tensor) {
    check(height > 0 && width > 0 && shape.height % height == 0 && shape.width % width == 0, names,
          ": must divide the sides of ", sizes_of(tensor), ", got ", height, ", ", width);
}

// -------------------------------------------------------------------------------------------------- rows
inline Dtype dtype_of(Name name, const Tensor& tensor) {
    switch (tensor.scalar_type()) {
        case ScalarType::Float: return Dtype::float32;
        case ScalarType::BFloat16: return Dtype::bfloat16;
        case ScalarType::Half: return Dtype::float16;
        default: check(false, name, ": must be float32, bfloat16 or float16");
    }
    return {};
}

inline void check_count(const Tensors& terms, std::size_t most) {
    check(!terms.empty() && terms.size() <= most, "terms: must be 1 to ", most, " tensors, got ", terms.size());
}

inline void check_term(Name name, const Tensor& term, const Tensor& first) {
    check(same_sizes(term, first), name, ": must be of shape ", sizes_of(first), ", got ", sizes_of(term));
}

inline void check_output(Name name, const Tensor& output, const Tensor& term) {
    check(same_sizes(output, term), name, ": must be of the terms' shape ", sizes_of(term), ", got ", sizes_of(output));
    check(output.is_contiguous(), name, ": must be contiguous");
}

// What a constant holds. `here`: it lies where `place` says.
template <class T>
const T* data_of(Name name, const Tensor& tensor, ScalarType dtype, std::int64_t count, bool here, const char* place) {
    check(here && tensor.is_contiguous() && tensor.scalar_type() == dtype, name, ": must be contiguous, ", place,
          " and of dtype ", torch::headeronly::toString(dtype));
    check(tensor.numel() == count, name, ": must have ", count, " elements, got shape ", sizes_of(tensor));
    return static_cast<const T*>(tensor.const_data_ptr());
}

}  // namespace ccf
