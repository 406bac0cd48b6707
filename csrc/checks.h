// The checks that the ops of the CPU and of the GPU share. They use only torch's stable ABI, so that one build serves
// every torch from 2.10 on. All ops write to buffers that they are given, and none allocates a tensor.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <utility>
#include <vector>

#include "params.h"

namespace ccf {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;
using Numbers = std::vector<double>;
using Integers = std::vector<std::int64_t>;
template <class T>
using Maybe = std::optional<T>;  // None is read faster than an empty list.

template <class... Parts>
void check(bool condition, const Parts&... parts) {
    if (condition) return;
    std::ostringstream message;
    (message << ... << parts);
    throw std::runtime_error(message.str());
}

// These parts of messages are written out only when a check fails, since a call takes a few microseconds in all.
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
    int place;  // It is a place in a list, or -1.

    constexpr Name(const char* name, int at = -1) : text(name), place(at) {}
};
inline std::ostream& operator<<(std::ostream& stream, const Name& name) {
    stream << name.text;
    return name.place < 0 ? stream : stream << '[' << name.place << ']';
}

// -------------------------------------------------------------------------------------------------- shapes
inline Shape shape_of(Name name, const Tensor& tensor) {
    check(tensor.dim() == 3 || tensor.dim() == 4, name, ": must be (B, C, H, W) or (B, C, L), got ", sizes_of(tensor));
    std::int64_t elements = 1;  // A repeated tensor may claim more than an index can count.
    for (const std::int64_t size : tensor.sizes())
        check(!__builtin_mul_overflow(elements, std::max<std::int64_t>(size, 1), &elements), name,
              ": must have fewer than 2^63 elements, got ", sizes_of(tensor));
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

using SizeList = std::initializer_list<std::int64_t>;

inline void check_sizes(Name name, const Tensor& tensor, SizeList wanted) {
    const auto sizes = tensor.sizes();
    if (sizes.size() == wanted.size() && std::equal(sizes.begin(), sizes.end(), wanted.begin())) return;
    std::ostringstream shape;
    for (const std::int64_t size : wanted) shape << (shape.tellp() ? ", " : "") << size;
    check(false, name, ": must be of shape (", shape.str(), "), got ", sizes_of(tensor));
}

// `names` are those of the two parameters, and `tensor` is the one whose sides they must divide.
inline void check_divides(Name names, std::int64_t height, std::int64_t width, const Shape& shape,
                          const Tensor& tensor) {
    check(height > 0 && width > 0 && shape.height % height == 0 && shape.width % width == 0, names,
          ": must divide the sides of ", sizes_of(tensor), ", got ", height, ", ", width);
}

// -------------------------------------------------------------------------------------------------- memory
inline std::int64_t bytes_of(const Tensor& tensor) {
    switch (tensor.scalar_type()) {
        case ScalarType::ComplexFloat:
        case ScalarType::Long: return 8;
        case ScalarType::Float:
        case ScalarType::Int: return 4;
        default: return 2;
    }
}

// A tensor keeps its sizes when its storage is resized, and every element must lie inside what is left. The dtype must
// be one that `bytes_of` knows.
inline void check_storage(Name name, const Tensor& tensor) {
    if (!tensor.numel()) return;
    const auto sizes = tensor.sizes(), strides = tensor.strides();
    std::int64_t last = tensor.storage_offset() + 1, held = 0;
    bool fits = true;
    for (std::size_t d = 0; d < sizes.size(); ++d) {
        std::int64_t step;
        fits = fits && !__builtin_mul_overflow(sizes[d] - 1, strides[d], &step) &&
               !__builtin_add_overflow(last, step, &last);
    }
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &held));
    check(fits && last <= held / bytes_of(tensor), name, ": must lie inside its storage, which holds ", held,
          " bytes, got shape ", sizes_of(tensor));
}

// Returns whether a tensor with these strides in bytes, longest first, has an element in [begin, end). These two are
// counted from its first element.
inline bool touches(const std::pair<std::int64_t, std::int64_t>* dims, std::size_t count, std::int64_t bytes,
                    std::int64_t begin, std::int64_t end) {
    if (!count) return begin < bytes && end > 0;
    const auto [stride, size] = dims[0];
    std::int64_t rest = bytes;  // The dimensions after this one reach so far.
    for (std::size_t d = 1; d < count; ++d) rest += dims[d].first * (dims[d].second - 1);
    // a step k reaches the interval only if k stride < end and k stride + rest > begin
    const std::int64_t first = begin < rest ? 0 : (begin - rest) / stride + 1;
    for (std::int64_t k = first; k < size && k * stride < end; ++k)
        if (touches(dims + 1, count - 1, bytes, begin - k * stride, end - k * stride)) return true;
    return false;
}

// The memory that an op writes, which is contiguous.
struct Written {
    Name name;
    const char *begin, *end;

    Written(Name name, const Tensor& tensor)
        : name(name),
          begin(static_cast<const char*>(tensor.const_data_ptr())),
          end(begin + tensor.numel() * bytes_of(tensor)) {}

    // No other tensor of the call may share memory with it, since elements are written before others are read.
    void check_apart(Name other, const Tensor& tensor) const {
        check(!shares(tensor), name, ": must not overlap ", other);
    }

private:
    bool shares(const Tensor& tensor) const {
        const auto* data = static_cast<const char*>(tensor.const_data_ptr());
        const std::int64_t bytes = bytes_of(tensor), elements = tensor.numel();
        if (begin == end || !elements || data >= end) return false;
        if (tensor.is_contiguous()) return data + elements * bytes > begin;
        std::pair<std::int64_t, std::int64_t> dims[4];  // What is not contiguous is a term or a scale.
        std::size_t count = 0;
        std::int64_t reach = bytes;
        const auto sizes = tensor.sizes(), strides = tensor.strides();
        for (std::size_t d = 0; d < sizes.size() && count < 4; ++d) {
            if (sizes[d] == 1 || strides[d] == 0) continue;
            const std::pair dim{strides[d] * bytes, sizes[d]};
            reach += (dim.second - 1) * dim.first;
            std::size_t at = count++;
            for (; at && dims[at - 1] < dim; --at) dims[at] = dims[at - 1];
            dims[at] = dim;
        }
        return data + reach > begin && touches(dims, count, bytes, begin - data, end - data);
    }
};

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

// The dtype of the term must have been checked before.
inline void check_term(Name name, const Tensor& term, const Tensor& first) {
    check(same_sizes(term, first), name, ": must be of shape ", sizes_of(first), ", got ", sizes_of(term));
    check_storage(name, term);
}

// A scale holds one number for each image, or one for each element. The latter is repeated along dimensions of size 1,
// and over the batch where it has no dimension for it. This writes its strides, in the order of Shape.
inline void scale_strides(const Tensor& scale, const Tensor& like, std::int64_t* stride) {
    const std::int64_t dims = scale.dim(), missing = like.dim() - dims;
    std::fill_n(stride, 4, 0);
    bool fits = dims == 1 ? scale.size(0) == like.size(0) : missing == 0 || missing == 1;
    if (dims == 1) stride[0] = scale.stride(0);
    for (std::int64_t d = 0; fits && dims > 1 && d < dims; ++d) {
        const std::int64_t at = d + missing, size = scale.size(d);
        fits = size == 1 || size == like.size(at);
        // a signal has no rows: its third dimension is the fourth of Shape
        if (size != 1) stride[like.dim() == 3 && at == 2 ? 3 : at] = scale.stride(d);
    }
    check(fits, "scales: must be (B,), an image or a batch of images to fit ", sizes_of(like), ", got ",
          sizes_of(scale));
    check_storage("scales", scale);
}

inline void check_output(Name name, const Tensor& output, const Tensor& term) {
    check(same_sizes(output, term), name, ": must be of the terms' shape ", sizes_of(term), ", got ", sizes_of(output));
    check(output.is_contiguous(), name, ": must be contiguous");
    check_storage(name, output);
}

// Checks a constant, or a place to work in, but for its shape. `here` says whether it lies where `place` says.
inline void check_data(Name name, const Tensor& tensor, ScalarType dtype, bool here, const char* place) {
    check(here && tensor.is_contiguous() && tensor.scalar_type() == dtype, name, ": must be contiguous, ", place,
          " and of dtype ", torch::headeronly::toString(dtype));
    check_storage(name, tensor);
}

inline void check_elements(Name name, const Tensor& tensor, std::int64_t count) {
    check(tensor.numel() == count, name, ": must have ", count, " elements, got shape ", sizes_of(tensor));
}

}  // namespace ccf
