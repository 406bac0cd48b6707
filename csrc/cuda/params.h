// The arguments of a kernel of the GPU are plain data, without a header of torch or of CUDA.
#pragma once

#include <cstdint>

#include "../params.h"

namespace ccf::cuda {

// A row of a plan: out = sum_k c_k a_k T_k + P(sum_k c_k b_k T_k) + V sum_j f_j V^T (c_j T_j), next = c_in out. Its
// numbers lie in a table that the kernels read, so that one captured graph serves every schedule.
constexpr int max_terms = 16;  // A launch carries them, and rows with more go to the reference.
constexpr int max_sets = 8;    // So many sums are transformed at most, each with factors of its own.

struct DeviceTerm {
    const void* data;
    std::int64_t stride[4];  // Strides are in elements, in the order of Shape.
    Dtype dtype;
    bool vector;              // Planes are contiguous, and runs of four elements are aligned.
    bool per_element;         // The scale varies within a plane.
    std::int8_t set;          // It is the sum that the term is part of, and 0 for terms with numbers.
    const float* scale;       // It is c_k, or null for 1.
    std::int64_t scaling[4];  // They are the strides of the scale, 0 where one number serves.
};

// With `residual` the terms are (ybar, x, F) and the row is ybar - P(p x + q F), or with `weighted` the first term is
// not read: its part is in the spectrum or coordinates that the weight multiplies, too.
struct DeviceRow {
    Shape shape;
    DeviceTerm terms[max_terms];
    int count, numbers;  // Of the terms the first have numbers in the table, and the others a = 0 and b = 1.
    bool residual, weighted;
    const float* table;  // It holds p and q of a residual, or a_0 .. a_n-1, b_0 .. b_n-1 and c_in of the n numbers.
    void* out;           // It is contiguous.
    Dtype out_dtype;
    void* next;  // It is contiguous or null.
    Dtype next_dtype;
};

constexpr int run_threads = 256;  // A block of the elementwise kernels has so many.

// A group is a set of planes of one image; only planes of one group are packed together.
struct Groups {
    int groups, planes;  // A group has so many real planes.

    constexpr int pairs() const { return (planes + 1) / 2; }  // of a group
    constexpr int all_pairs() const { return groups * pairs(); }
};

// These describe the stage of a transform of n points that follows stages with the product `done`, and how many roots
// of unity the transform reads (fft.cuh).
constexpr int radix(int n, int done) { return n / done < 8 ? n / done : 8; }
constexpr int log2(int n) { return n == 1 ? 0 : 1 + log2(n / 2); }
constexpr int root_count(int n, int done = 8) {
    return done >= n ? 0 : done * log2(radix(n, done)) + root_count(n, done * radix(n, done));
}

// The constant is a multiplier or, with factor > 1, the basis of a decimation, (groups or 1, height, width). The stride
// is 0 where one serves all groups.
struct Spectral {
    const void* data;  // The numbers are float, or complex where factor > 1.
    std::int64_t stride;
    int factor;                            // It is 1, 2, 4 or 8.
    const void *row_roots, *column_roots;  // They are roots of unity.
};

// The factors f_j of the sums that a row transforms, (groups or 1, modes); null is 1 on the range of P. `more` is added
// to the first of them before its factors, and null is nothing: the spectrum or the coordinates of H+ y.
struct Factors {
    int sets;
    const float* data[max_sets];
    std::int64_t stride[max_sets];  // A stride is 0 where the factors serve all groups.
    float scale;                    // It multiplies all factors.
    const void* more;
};

// Rows of a (rows, columns) matrix: row i is zero but for taps[t, i], t < width, in the columns start[i] + t, modulo
// the number of columns. Of the rows of tile j, `tile` each, all columns lie in base[j] .. base[j] + extent - 1.
struct CyclicBand {
    const float* taps;  // They are (width, rows).
    const std::int32_t *start, *base;
    int rows, columns, width, tile, extent;
};

}  // namespace ccf::cuda
