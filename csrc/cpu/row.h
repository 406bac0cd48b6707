// What all kinds share: reading the terms of a row piece by piece, and writing out and next.
//
// A kernel works on pieces small enough for the L1 cache: it sums b_k T_k of a piece, applies P, adds that to the sum
// of a_k T_k, and stores. Pieces, and the order of additions in them, do not depend on the threads.
#pragma once

#include <cstdint>
#include <vector>

#include "../params.h"

// One copy of a loop for every level of x86-64, chosen when the library is loaded. TSan runs before that choice.
#if defined(CCF_NO_CLONES) || !defined(__x86_64__)
#define CCF_CLONES
#else
#define CCF_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif

namespace ccf::cpu {

constexpr std::int64_t piece = 2048;  // elements: a sum, a field and four terms of them fit the L1 cache

// A run of pixels [pixel, pixel + size) of one plane.
struct Place {
    std::int64_t image, channel, pixel, size;
};

// Reads the terms of a row; one for each thread, since it holds the scratch for terms that are not contiguous.
class Reader {
public:
    Reader(const Row& row, std::int64_t largest);  // largest: most pixels of a place

    // sum = sum_k a_k T_k + weight field
    void direct(Place at, float* sum, const float* field = nullptr, float weight = 1.0f);
    // sum = sum_k (a_k + m b_k) T_k
    void masked(Place at, const float* mask, float* sum);
    // sum = sum_k b_k T_k
    void projected(Place at, float* sum);
    // sum += weight sum_k b_k T_k
    void add_projected(Place at, float weight, float* sum);

private:
    struct Source {
        const Term* term;
        Dtype dtype;        // as it is read: float for copies
        std::int64_t slot;  // of its copy, -1 where it is read in place
    };

    struct Want {
        bool direct = false;  // coefficients a, else b
        bool fresh = true;    // overwrite the sum
        float weight = 1.0f;  // of all terms
        const float* field = nullptr;
        float field_weight = 1.0f;
        const float* mask = nullptr;  // and b times this
    };

    void gather(Place at, Want want, float* sum);
    const float* copy(const Term& term, Place at, std::int64_t slot);

    const Row& row_;
    std::int64_t largest_, copies_ = 0;
    int count_ = 0;
    Source sources_[max_terms];  // float first, so that few of them make one pass
    std::vector<float> scratch_;
};

// Where the direct sum goes: the output itself if it is float, else scratch.
inline float* target(const Row& row, std::int64_t offset, float* scratch) {
    return row.out_dtype == Dtype::float32 ? static_cast<float*>(row.out) + offset : scratch;
}

// The finished values of elements [offset, offset + size), from `target`, into out and next.
void store(const Row& row, std::int64_t offset, std::int64_t size, const float* value);

bool plane_contiguous(const std::int64_t* stride, const Shape& shape);

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace ccf::cpu
