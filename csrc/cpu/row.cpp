#include "row.h"

#include <algorithm>

#include "../math.h"

namespace ccf::cpu {
namespace {

constexpr int group = 6;  // terms summed in registers in one pass

// y = sum a_k s_k (+ m sum b_k s_k) (+ y)
template <class T, int N, bool fresh, bool masked>
CCF_HD void sum_terms(const T* const* source, const float* a, const float* b, const float* m, std::int64_t size,
                      float* __restrict y) {
    // copies that the compiler can keep in registers
    const T* s[N];
    float a_[N], b_[N];
    for (int k = 0; k < N; ++k) s[k] = source[k], a_[k] = a[k], b_[k] = b[k];
    for (std::int64_t i = 0; i < size; ++i) {
        float u = fresh ? 0.0f : y[i], v = 0.0f;
        for (int k = 0; k < N; ++k) {
            const float value = to_float(s[k][i]);
            u += a_[k] * value;
            if constexpr (masked) v += b_[k] * value;
        }
        if constexpr (masked) u += m[i] * v;
        y[i] = u;
    }
}

template <class T, bool fresh, bool masked>
CCF_HD void sum_group(int count, const T* const* s, const float* a, const float* b, const float* m, std::int64_t size,
                      float* y) {
    switch (count) {
        case 1: return sum_terms<T, 1, fresh, masked>(s, a, b, m, size, y);
        case 2: return sum_terms<T, 2, fresh, masked>(s, a, b, m, size, y);
        case 3: return sum_terms<T, 3, fresh, masked>(s, a, b, m, size, y);
        case 4: return sum_terms<T, 4, fresh, masked>(s, a, b, m, size, y);
        case 5: return sum_terms<T, 5, fresh, masked>(s, a, b, m, size, y);
        default: return sum_terms<T, 6, fresh, masked>(s, a, b, m, size, y);
    }
}

template <class T>
CCF_HD void sum_any(int count, const T* const* s, const float* a, const float* b, const float* m, std::int64_t size,
                    bool fresh, float* y) {
    if (m && fresh) sum_group<T, true, true>(count, s, a, b, m, size, y);
    else if (m) sum_group<T, false, true>(count, s, a, b, m, size, y);
    else if (fresh) sum_group<T, true, false>(count, s, a, b, m, size, y);
    else sum_group<T, false, false>(count, s, a, b, m, size, y);
}

CCF_CLONES void sum(int count, const float* const* s, const float* a, const float* b, const float* m, std::int64_t size,
                    bool fresh, float* y) {
    sum_any(count, s, a, b, m, size, fresh, y);
}
CCF_CLONES void sum(int count, const bfloat16* const* s, const float* a, const float* b, const float* m,
                    std::int64_t size, bool fresh, float* y) {
    sum_any(count, s, a, b, m, size, fresh, y);
}
CCF_CLONES void sum(int count, const float16* const* s, const float* a, const float* b, const float* m,
                    std::int64_t size, bool fresh, float* y) {
    sum_any(count, s, a, b, m, size, fresh, y);
}

CCF_CLONES void scale_to(std::int64_t size, float c, const float* __restrict x, float* __restrict y) {
    for (std::int64_t i = 0; i < size; ++i) y[i] = c * x[i];
}
CCF_CLONES void scale_to(std::int64_t size, float c, const float* __restrict x, bfloat16* __restrict y) {
    for (std::int64_t i = 0; i < size; ++i) y[i] = from_float<bfloat16>(c * x[i]);
}
CCF_CLONES void scale_to(std::int64_t size, float c, const float* __restrict x, float16* __restrict y) {
    for (std::int64_t i = 0; i < size; ++i) y[i] = from_float<float16>(c * x[i]);
}

std::int64_t element_offset(const std::int64_t* stride, Place at) {
    return at.image * stride[0] + at.channel * stride[1];
}

// y[i] = T at pixel at.pixel + i, any strides
template <class T>
void copy_strided(const T* source, const std::int64_t* stride, std::int64_t width, Place at, float* y) {
    source += element_offset(stride, at);
    std::int64_t h = at.pixel / width, w = at.pixel % width;
    for (std::int64_t i = 0; i < at.size; ++i) {
        y[i] = to_float(source[h * stride[2] + w * stride[3]]);
        if (++w == width) w = 0, ++h;
    }
}

void copy_strided(const void* data, Dtype dtype, const std::int64_t* stride, std::int64_t width, Place at, float* y) {
    switch (dtype) {
        case Dtype::float32: return copy_strided(static_cast<const float*>(data), stride, width, at, y);
        case Dtype::bfloat16: return copy_strided(static_cast<const bfloat16*>(data), stride, width, at, y);
        case Dtype::float16: return copy_strided(static_cast<const float16*>(data), stride, width, at, y);
    }
}

const void* advance(const void* data, Dtype dtype, std::int64_t elements) {
    return static_cast<const char*>(data) + elements * (dtype == Dtype::float32 ? 4 : 2);
}

bool needs_copy(const Term& term, const Shape& shape) {
    return term.scale_per_element || !plane_contiguous(term.stride, shape);
}

void store_as(Dtype dtype, void* out, std::int64_t offset, std::int64_t size, float c, const float* value) {
    switch (dtype) {
        case Dtype::float32: return scale_to(size, c, value, static_cast<float*>(out) + offset);
        case Dtype::bfloat16: return scale_to(size, c, value, static_cast<bfloat16*>(out) + offset);
        case Dtype::float16: return scale_to(size, c, value, static_cast<float16*>(out) + offset);
    }
}

}  // namespace

bool plane_contiguous(const std::int64_t* stride, const Shape& shape) {
    return (shape.width == 1 || stride[3] == 1) && (shape.height == 1 || stride[2] == shape.width);
}

Reader::Reader(const Row& row, std::int64_t largest) : row_(row), largest_(largest) {
    for (const Dtype dtype : {Dtype::float32, Dtype::bfloat16, Dtype::float16})
        for (int k = 0; k < row.count; ++k) {
            const bool copied = needs_copy(row.terms[k], row.shape);
            if ((copied ? Dtype::float32 : row.terms[k].dtype) == dtype)
                sources_[count_++] = {&row.terms[k], dtype, copied ? copies_++ : -1};
        }
    // one more for coefficients that are strided themselves
    if (copies_) scratch_.resize(static_cast<std::size_t>((copies_ + 1) * largest));
}

// The run of the term at the place, made contiguous and float.
const float* Reader::copy(const Term& term, Place at, std::int64_t slot) {
    const std::int64_t width = row_.shape.width;
    float* const value = scratch_.data() + slot * largest_;
    copy_strided(term.data, term.dtype, term.stride, width, at, value);
    if (term.scale_per_element) {
        float* const factor = scratch_.data() + copies_ * largest_;
        copy_strided(term.scale, term.scale_stride, width, at, factor);
        for (std::int64_t i = 0; i < at.size; ++i) value[i] *= factor[i];
    }
    return value;
}

// y = weight times the sum of the terms, with the coefficients that are wanted, and the field; or y += that.
void Reader::gather(Place at, Want want, float* y) {
    int k = 0;
    for (const Dtype dtype : {Dtype::float32, Dtype::bfloat16, Dtype::float16}) {
        const void* data[max_terms + 1];
        float a[max_terms + 1], b[max_terms + 1];
        int count = 0;
        if (want.field && dtype == Dtype::float32) {
            a[count] = want.field_weight, b[count] = 0.0f;
            data[count++] = want.field;
        }
        bool masked = false;
        for (; k < count_ && sources_[k].dtype == dtype; ++k) {
            const Term& term = *sources_[k].term;
            const bool per_sample = term.scale && !term.scale_per_element;
            const float scale = want.weight * (per_sample ? term.scale[at.image * term.scale_stride[0]] : 1.0f);
            a[count] = scale * (want.direct ? term.direct : term.projected);
            b[count] = want.mask ? scale * term.projected : 0.0f;
            if (a[count] == 0.0f && b[count] == 0.0f) continue;
            masked = masked || b[count] != 0.0f;
            data[count++] = sources_[k].slot >= 0
                                ? copy(term, at, sources_[k].slot)
                                : advance(term.data, dtype, element_offset(term.stride, at) + at.pixel);
        }
        for (int done = 0; done < count; done += group, want.fresh = false) {
            const int n = std::min(count - done, group);
            const auto sum_as = [&]<class T>(T) {
                sum(n, reinterpret_cast<const T* const*>(data) + done, a + done, b + done, masked ? want.mask : nullptr,
                    at.size, want.fresh, y);
            };
            switch (dtype) {
                case Dtype::float32: sum_as(float{}); break;
                case Dtype::bfloat16: sum_as(bfloat16{}); break;
                case Dtype::float16: sum_as(float16{}); break;
            }
        }
    }
    if (want.fresh) std::fill_n(y, at.size, 0.0f);  // nothing to add up
}

void Reader::direct(Place at, float* sum, const float* field, float weight) {
    gather(at, {.direct = true, .field = field, .field_weight = weight}, sum);
}
void Reader::masked(Place at, const float* mask, float* sum) { gather(at, {.direct = true, .mask = mask}, sum); }
void Reader::projected(Place at, float* sum) { gather(at, {}, sum); }
void Reader::add_projected(Place at, float weight, float* sum) { gather(at, {.fresh = false, .weight = weight}, sum); }

void store(const Row& row, std::int64_t offset, std::int64_t size, const float* value) {
    if (row.out_dtype != Dtype::float32) store_as(row.out_dtype, row.out, offset, size, 1.0f, value);
    if (row.next) store_as(row.next_dtype, row.next, offset, size, row.c_in, value);
}

}  // namespace ccf::cpu
