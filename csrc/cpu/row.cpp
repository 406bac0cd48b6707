#include "row.h"

#include "../math.h"

namespace ccf::cpu {
namespace {

std::int64_t element_offset(const std::int64_t* stride, const Place& at) {
    return at.image * stride[0] + at.channel * stride[1];
}

// Writes T at pixel at.pixel + i to y[i], whatever the strides of T.
template <class T>
void copy_strided(const T* source, const std::int64_t* stride, std::int64_t width, const Place& at, float* y) {
    source += element_offset(stride, at);
    std::int64_t h = at.pixel / width, w = at.pixel % width;
    for (std::int64_t i = 0; i < at.size; ++i) {
        y[i] = to_float(source[h * stride[2] + w * stride[3]]);
        if (++w == width) w = 0, ++h;
    }
}

void copy_strided(const void* data, Dtype dtype, const std::int64_t* stride, std::int64_t width, const Place& at,
                  float* y) {
    switch (dtype) {
        case Dtype::float32: return copy_strided(static_cast<const float*>(data), stride, width, at, y);
        case Dtype::bfloat16: return copy_strided(static_cast<const bfloat16*>(data), stride, width, at, y);
        case Dtype::float16: return copy_strided(static_cast<const float16*>(data), stride, width, at, y);
    }
}

std::int64_t bytes(Dtype dtype, std::int64_t elements) { return elements * (dtype == Dtype::float32 ? 4 : 2); }

const void* advance(const void* data, Dtype dtype, std::int64_t elements) {
    return static_cast<const char*>(data) + bytes(dtype, elements);
}
void* advance(void* data, Dtype dtype, std::int64_t elements) {
    return data ? static_cast<char*>(data) + bytes(dtype, elements) : nullptr;
}

// Returns whether the pixels of a plane do not follow each other in memory.
bool needs_copy(const std::int64_t* stride, const Shape& shape) {
    const bool rows = shape.width == 1 || stride[3] == 1;
    const bool plane = shape.height == 1 || stride[2] == shape.width;
    return !rows || !plane;
}

}  // namespace

Reader::Reader(const Row& row, std::int64_t largest, std::int64_t places) : row_(row), largest_(largest) {
    std::int64_t copies = 0;
    for (int k = 0; k < row.count; ++k) {
        const Term& term = row.terms[k];
        copies += copied_[k] = needs_copy(term.stride, row.shape);
        copies += copied_scale_[k] = term.scale_per_element && needs_copy(term.scale_stride, row.shape);
    }
    if (copies) scratch_.resize(static_cast<std::size_t>(copies * places * largest));
    sources_.reserve(static_cast<std::size_t>(row.count * places + 1));
}

// Returns the run at a place, made contiguous and float.
const float* Reader::copy(const void* data, Dtype dtype, const std::int64_t* stride, const Place& at) {
    float* const value = scratch_.data() + copies_++ * largest_;
    copy_strided(data, dtype, stride, row_.shape.width, at, value);
    return value;
}

// Adds every term with the coefficient direct a_k + projected b_k, and with masked b_k where the mask applies. That
// many rows of a term are one source.
void Reader::terms(const Place& at, float direct, float projected, float masked, std::int64_t rows) {
    for (int k = 0; k < row_.count; ++k) {
        const Term& term = row_.terms[k];
        const bool per_sample = term.scale && !term.scale_per_element;
        const float scale = per_sample ? term.scale[at.image * term.scale_stride[0]] : 1.0f;
        Source source{nullptr, term.dtype, scale * (direct * term.direct + projected * term.projected),
                      scale * masked * term.projected};
        if (source.plain == 0.0f && source.masked == 0.0f) continue;
        if (copied_[k]) source.data = copy(term.data, term.dtype, term.stride, at), source.dtype = Dtype::float32;
        else source.data = advance(term.data, term.dtype, element_offset(term.stride, at) + at.pixel);
        if (rows > 1) source.runs = rows, source.stride = term.stride[2];
        if (copied_scale_[k]) source.factor = copy(term.scale, Dtype::float32, term.scale_stride, at);
        else if (term.scale_per_element) source.factor = term.scale + element_offset(term.scale_stride, at) + at.pixel;
        sources_.push_back(source);
    }
}

void Reader::projected_rows(const Place& at, std::int64_t rows) {
    bool all = true;
    for (int k = 0; k < row_.count; ++k) all = all && in_place(k);
    if (all) return terms(at, 0.0f, 1.0f, 0.0f, rows);
    for (std::int64_t r = 0; r < rows; ++r) projected({at.image, at.channel, at.pixel + r * row_.shape.width, at.size});
}

void Reader::combine_to(std::int64_t size, const Sink& sink) {
    combine(sources_.data(), static_cast<int>(sources_.size()), mask_, size, sink);
    sources_.clear(), copies_ = 0, mask_ = nullptr;
}

void Reader::sum(std::int64_t size, float* y) { combine_to(size, {y, Dtype::float32}); }

void Reader::store(const Place& at) {
    const std::int64_t offset = (at.image * row_.shape.channels + at.channel) * row_.shape.plane() + at.pixel;
    combine_to(at.size, {advance(row_.out, row_.out_dtype, offset), row_.out_dtype,
                         advance(row_.next, row_.next_dtype, offset), row_.next_dtype, row_.c_in});
}

}  // namespace ccf::cpu
