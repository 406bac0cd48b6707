// The loop behind every row: a sum of runs of any dtypes, read and written once.
#pragma once

#include <cstdint>

#include "../params.h"

namespace ccf::cpu {

// A contiguous run of elements, or the sum of some runs that are `stride` elements apart, and the coefficient: plain +
// m masked at an element where the mask is m, times the factor of that element (of a single run) unless that is null.
struct Source {
    const void* data;
    Dtype dtype;
    float plain, masked;
    const float* factor = nullptr;
    std::int64_t runs = 1, stride = 0;
};

// Where the sum goes; and, unless `next` is null, c_in times it.
struct Sink {
    void* out;
    Dtype out_dtype;
    void* next = nullptr;
    Dtype next_dtype = Dtype::float32;
    float c_in = 1.0f;
};

// out[i] = sum_k (plain_k + m[i] masked_k) factor_k[i] source_k[i] and next[i] = c_in out[i]; m null: no masked part. A
// source may be the output itself.
void combine(const Source* sources, int count, const float* mask, std::int64_t size, const Sink& sink);

}  // namespace ccf::cpu
