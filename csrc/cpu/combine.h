// Every row ends in this loop, which reads and writes runs of any dtypes once.
#pragma once

#include <cstdint>

#include "../params.h"

namespace ccf::cpu {

// A source is a contiguous run of elements, or the sum of some runs that are `stride` elements apart. Its coefficient
// at an element where the mask is m is plain + m masked, times the factor of that element unless `factor` is null. Only
// a single run has factors.
struct Source {
    const void* data;
    Dtype dtype;
    float plain, masked;
    const float* factor = nullptr;
    std::int64_t runs = 1, stride = 0;
};

// The sum goes to `out` and, unless `next` is null, c_in times the sum to `next`.
struct Sink {
    void* out;
    Dtype out_dtype;
    void* next = nullptr;
    Dtype next_dtype = Dtype::float32;
    float c_in = 1.0f;
};

// out[i] = sum_k (plain_k + m[i] masked_k) factor_k[i] source_k[i] and next[i] = c_in out[i]. Where
// the mask is null there is no masked part. A source may be the output itself.
void combine(const Source* sources, int count, const float* mask, std::int64_t size, const Sink& sink);

}  // namespace ccf::cpu
