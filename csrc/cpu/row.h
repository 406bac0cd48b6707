// What all kinds share: reading the terms of a row piece by piece, and writing out and next.
//
// A kernel works on pieces small enough for the L1 cache: it gathers sum_k a_k T_k and sum_k b_k T_k of a piece, applies
// P to the second, adds, and stores. The pieces, and the order of additions in them, do not depend on the threads.
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

constexpr std::int64_t piece = 1024;  // elements: two sums and five terms of them fit the L1 cache

// A run of pixels [pixel, pixel + size) of one plane.
struct Place {
    std::int64_t image, channel, pixel, size;
};

// Scratch of one thread for rows with terms that are strided or have a coefficient for each element.
class Reader {
public:
    Reader(const Row& row, std::int64_t largest);

    // direct = sum a_k T_k and projected = sum b_k T_k at a place.
    void both(Place at, float* direct, float* projected);
    void direct(Place at, float* sum);
    void projected(Place at, float* sum);

private:
    enum class Want { both, direct, projected };
    void gather(Place at, Want want, float* sum, float* second);
    const void* load(const Term& term, Place at, std::int64_t slot);

    const Row& row_;
    std::int64_t largest_;
    std::vector<float> copies_;
};

// Where the direct sum goes: the output itself if it is float, else scratch.
inline float* target(const Row& row, std::int64_t offset, float* scratch) {
    return row.out_dtype == Dtype::float32 ? static_cast<float*>(row.out) + offset : scratch;
}

// The finished values of elements [offset, offset + size), from `target`, into out and next.
void store(const Row& row, std::int64_t offset, std::int64_t size, const float* value);

// y += a x
void axpy(std::int64_t size, float a, const float* x, float* y);

bool plane_contiguous(const std::int64_t* stride, const Shape& shape);

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace ccf::cpu
