// All kinds share this: the terms of a row become the sources of sums, which go to its outputs.
//
// A kernel works on pieces small enough for the caches: it sums b_k T_k of a piece, applies P, and then sums a_k T_k
// and that field straight into out and next. Pieces, and the order of additions in them, do not depend on the threads.
#pragma once

#include <cstdint>
#include <vector>

#include "../params.h"
#include "clones.h"
#include "combine.h"

namespace ccf::cpu {

constexpr std::int64_t piece = 2048;       // So many elements of a field and of its terms fit the L1 cache.
constexpr std::int64_t long_piece = 8192;  // Without a field there are fewer sums to set up.

// A run of pixels [pixel, pixel + size) of one plane.
struct Place {
    std::int64_t image, channel, pixel, size;
};

// A reader gathers the sources of a sum and then computes it, which empties the list again. Each thread has its own,
// since it holds the scratch for terms that are not contiguous.
class Reader {
public:
    // A place has at most `largest` pixels, and one sum at most `places` of them.
    Reader(const Row& row, std::int64_t largest, std::int64_t places = 1);

    void direct(const Place& at) { terms(at, 1.0f, 0.0f, 0.0f); }                            // + sum_k a_k T_k
    void projected(const Place& at, float weight = 1.0f) { terms(at, 0.0f, weight, 0.0f); }  // + weight sum_k b_k T_k
    void projected_rows(const Place& at, std::int64_t rows);  // + sum_k b_k T_k of so many rows of pixels, from at on
    void masked(const Place& at, const float* mask) {         // + sum_k (a_k + m b_k) T_k
        mask_ = mask;
        terms(at, 1.0f, 0.0f, 1.0f);
    }
    void field(const float* field, float weight = 1.0f) {  // + weight field
        sources_.push_back({field, Dtype::float32, weight, 0.0f});
    }

    void sum(std::int64_t size, float* y);  // to y, which may be a field
    void store(const Place& at);            // to out and next of the row

private:
    bool in_place(int k) const { return !copied_[k] && !row_.terms[k].scale_per_element; }
    void terms(const Place& at, float direct, float projected, float masked, std::int64_t rows = 1);
    const float* copy(const void* data, Dtype dtype, const std::int64_t* stride, const Place& at);
    void combine_to(std::int64_t size, const Sink& sink);

    const Row& row_;
    bool copied_[max_terms], copied_scale_[max_terms];  // These are read from a copy.
    std::int64_t largest_, copies_ = 0;                 // So many copies are in use.
    const float* mask_ = nullptr;
    std::vector<Source> sources_;
    std::vector<float> scratch_;
};

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace ccf::cpu
