#include "row.h"

#include <algorithm>

#include "../math.h"

namespace ccf::cpu {
namespace {

constexpr int group = 4;  // terms summed in registers in one pass

// first = sum a_k s_k (+ first), and where there are two sums second = sum b_k s_k (+ second)
template <class T, int N, bool two, bool fresh>
CCF_HD void sum_terms(const T* const* source, const float* a, const float* b, std::int64_t size, float* __restrict first,
                      float* __restrict second) {
    for (std::int64_t i = 0; i < size; ++i) {
        float u = fresh ? 0.0f : first[i], v = fresh || !two ? 0.0f : second[i];
        for (int k = 0; k < N; ++k) {
            const float value = to_float(source[k][i]);
            u += a[k] * value;
            if constexpr (two) v += b[k] * value;
        }
        first[i] = u;
        if constexpr (two) second[i] = v;
    }
}

template <class T, int N>
CCF_HD void sum_group(const T* const* source, const float* a, const float* b, std::int64_t size, bool fresh,
                      float* first, float* second) {
    // copies that the compiler can keep in registers
    const T* s[N];
    float a_[N], b_[N];
    for (int k = 0; k < N; ++k) s[k] = source[k], a_[k] = a[k], b_[k] = b[k];
    if (second) {
        if (fresh) sum_terms<T, N, true, true>(s, a_, b_, size, first, second);
        else sum_terms<T, N, true, false>(s, a_, b_, size, first, second);
    } else {
        if (fresh) sum_terms<T, N, false, true>(s, a_, b_, size, first, second);
        else sum_terms<T, N, false, false>(s, a_, b_, size, first, second);
    }
}

template <class T>
CCF_HD void sum_any(int count, const T* const* s, const float* a, const float* b, std::int64_t size, bool fresh,
                    float* first, float* second) {
    switch (count) {
        case 1: return sum_group<T, 1>(s, a, b, size, fresh, first, second);
        case 2: return sum_group<T, 2>(s, a, b, size, fresh, first, second);
        case 3: return sum_group<T, 3>(s, a, b, size, fresh, first, second);
        default: return sum_group<T, 4>(s, a, b, size, fresh, first, second);
    }
}

CCF_CLONES void sum(int count, const float* const* s, const float* a, const float* b, std::int64_t size, bool fresh,
                    float* first, float* second) {
    sum_any(count, s, a, b, size, fresh, first, second);
}
CCF_CLONES void sum(int count, const bfloat16* const* s, const float* a, const float* b, std::int64_t size, bool fresh,
                    float* first, float* second) {
    sum_any(count, s, a, b, size, fresh, first, second);
}
CCF_CLONES void sum(int count, const float16* const* s, const float* a, const float* b, std::int64_t size, bool fresh,
                    float* first, float* second) {
    sum_any(count, s, a, b, size, fresh, first, second);
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

CCF_CLONES void axpy(std::int64_t size, float a, const float* __restrict x, float* __restrict y) {
    for (std::int64_t i = 0; i < size; ++i) y[i] += a * x[i];
}

Reader::Reader(const Row& row, std::int64_t largest) : row_(row), largest_(largest) {
    int copies = 1;  // the last one for coefficients that are strided themselves
    for (int k = 0; k < row.count; ++k) copies += needs_copy(row.terms[k], row.shape);
    if (copies > 1) copies_.resize(static_cast<std::size_t>(copies * largest));
}

// A contiguous run of the term at the place, in its own dtype or, copied to a slot, in float.
const void* Reader::load(const Term& term, Place at, std::int64_t slot) {
    const std::int64_t width = row_.shape.width;
    float* const copy = copies_.data() + slot * largest_;
    copy_strided(term.data, term.dtype, term.stride, width, at, copy);
    if (term.scale_per_element) {
        float* const factor = copies_.data() + copies_.size() - largest_;
        copy_strided(term.scale, term.scale_stride, width, at, factor);
        for (std::int64_t i = 0; i < at.size; ++i) copy[i] *= factor[i];
    }
    return copy;
}

void Reader::gather(Place at, Want want, float* first, float* second) {
    bool fresh = true;
    for (const Dtype dtype : {Dtype::float32, Dtype::bfloat16, Dtype::float16}) {
        const void* source[max_terms];
        float a[max_terms], b[max_terms];
        int count = 0;
        std::int64_t slot = 0;
        for (int k = 0; k < row_.count; ++k) {
            const Term& term = row_.terms[k];
            const bool copied = needs_copy(term, row_.shape);
            const std::int64_t own_slot = slot;
            slot += copied;
            float direct = term.direct, projected = term.projected;
            if ((want == Want::direct && direct == 0.0f) || (want == Want::projected && projected == 0.0f)) continue;
            if ((copied ? Dtype::float32 : term.dtype) != dtype) continue;
            if (term.scale && !term.scale_per_element) {
                direct *= term.scale[at.image * term.scale_stride[0]];
                projected *= term.scale[at.image * term.scale_stride[0]];
            }
            a[count] = want == Want::projected ? projected : direct;
            b[count] = projected;
            source[count++] = copied ? load(term, at, own_slot)
                                     : advance(term.data, term.dtype, element_offset(term.stride, at) + at.pixel);
        }
        for (int k = 0; k < count; k += group) {
            const int n = std::min(group, count - k);
            switch (dtype) {
                case Dtype::float32:
                    sum(n, reinterpret_cast<const float* const*>(source + k), a + k, b + k, at.size, fresh, first, second);
                    break;
                case Dtype::bfloat16:
                    sum(n, reinterpret_cast<const bfloat16* const*>(source + k), a + k, b + k, at.size, fresh, first, second);
                    break;
                case Dtype::float16:
                    sum(n, reinterpret_cast<const float16* const*>(source + k), a + k, b + k, at.size, fresh, first, second);
                    break;
            }
            fresh = false;
        }
    }
    if (fresh) {  // nothing to add up
        std::fill_n(first, at.size, 0.0f);
        if (second) std::fill_n(second, at.size, 0.0f);
    }
}

void Reader::both(Place at, float* direct, float* projected) { gather(at, Want::both, direct, projected); }
void Reader::direct(Place at, float* sum) { gather(at, Want::direct, sum, nullptr); }
void Reader::projected(Place at, float* sum) { gather(at, Want::projected, sum, nullptr); }

void store(const Row& row, std::int64_t offset, std::int64_t size, const float* value) {
    if (row.out_dtype != Dtype::float32) store_as(row.out_dtype, row.out, offset, size, 1.0f, value);
    if (row.next) store_as(row.next_dtype, row.next, offset, size, row.c_in, value);
}

}  // namespace ccf::cpu
