// What both op libraries (ops.cpp, ops_cuda.cpp) ask of their arguments.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "params.h"

namespace ccf {

template <class... Parts>
void check(bool condition, const Parts&... parts) {
    if (condition) return;
    std::ostringstream message;
    (message << ... << parts);
    throw std::runtime_error(message.str());
}

// Parts of messages, written out only when a check fails: a call has a few microseconds in all.
struct Sizes {
    const torch::stable::Tensor& tensor;
};
inline std::ostream& operator<<(std::ostream& stream, const Sizes& sizes) {
    stream << '(';
    for (std::int64_t k = 0; k < sizes.tensor.dim(); ++k) stream << (k ? ", " : "") << sizes.tensor.size(k);
    return stream << ')';
}
inline Sizes sizes_of(const torch::stable::Tensor& tensor) { return {tensor}; }

struct Name {
    const char* text;
    int place = -1;  // in a list
};
inline std::ostream& operator<<(std::ostream& stream, const Name& name) {
    stream << name.text;
    return name.place < 0 ? stream : stream << '[' << name.place << ']';
}

inline Shape shape_of(Name name, const torch::stable::Tensor& tensor) {
    check(tensor.dim() == 3 || tensor.dim() == 4, name, ": must be (B, C, H, W) or (B, C, L), got ", sizes_of(tensor));
    const bool image = tensor.dim() == 4;
    return {tensor.size(0), tensor.size(1), image ? tensor.size(2) : 1, tensor.size(image ? 3 : 2)};
}

inline void strides_of(const torch::stable::Tensor& tensor, std::int64_t* stride) {
    const bool image = tensor.dim() == 4;
    stride[0] = tensor.stride(0), stride[1] = tensor.stride(1);
    stride[2] = image ? tensor.stride(2) : 0, stride[3] = tensor.stride(image ? 3 : 2);
}

inline bool same_sizes(const torch::stable::Tensor& a, const torch::stable::Tensor& b) {
    const auto x = a.sizes(), y = b.sizes();
    return x.size() == y.size() && std::equal(x.begin(), x.end(), y.begin());
}

}  // namespace ccf
