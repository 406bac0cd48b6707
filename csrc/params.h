// The arguments of a kernel are plain data without torch types, so that kernels are compiled and tested without torch.
#pragma once

#include <cstdint>

namespace ccf {

enum class Dtype : std::int32_t { float32, bfloat16, float16 };

constexpr int max_terms = 24;  // A plan has 19 registers, some of which a row may name twice.

// A batch of images (batch, channels, height, width); signals have height 1.
struct Shape {
    std::int64_t batch, channels, height, width;

    constexpr std::int64_t plane() const { return height * width; }
    constexpr std::int64_t planes() const { return batch * channels; }
};

// A term is a tensor of a row with its two coefficients. Its strides are in elements, in the order of Shape.
struct Term {
    const void* data;
    std::int64_t stride[4];
    Dtype dtype;
    float direct;        // It is a_k of the row.
    float projected;     // It is b_k of the row.
    const float* scale;  // The factor c_k of both is of a sample or of an element, or it is null.
    std::int64_t scale_stride[4];
    bool scale_per_element;
};

// out = sum_k a_k T_k + P(sum_k b_k T_k) and next = c_in out: a row of a plan. Residual and update are both rows.
struct Row {
    Shape shape;
    Term terms[max_terms];
    int count;
    void* out;  // It is contiguous, and none of the terms.
    Dtype out_dtype;
    void* next;  // It is contiguous or null.
    Dtype next_dtype;
    float c_in;

    constexpr bool empty() const { return !shape.planes() || !shape.plane(); }
};

// A field of zeros and ones, contiguous in (height, width). A stride is 0 where one field serves all images or all
// channels.
struct Mask {
    const float* data;
    std::int64_t batch_stride, channel_stride;
};

// Rows of a banded (rows, columns) matrix: row i is zero but for taps[i, 0 .. width) from column start[i] on.
struct Band {
    const float* taps;
    const std::int64_t* start;
    std::int64_t rows, width;
};

// P = H^T (H H^T)^-1 H on one axis: H banded (low, high), its transpose (high, low), and the inverse (low, low).
struct BandedAxis {
    Band down, up;
    const float* inverse;
};

// Real planes are packed in pairs as complex ones: groups of `planes` real planes, (planes + 1) / 2 complex ones each.
// All planes of a group belong to one image, since two planes of a pair change each other by rounding and by NaN.
struct Packing {
    float* spectrum;  // The complex numbers (groups, pairs, height, width) are interleaved.
    std::int64_t groups, planes;

    constexpr std::int64_t pairs() const { return (planes + 1) / 2; }
};

struct NoiseKeys {
    const std::int64_t *seeds, *samples, *draws;  // Each has one number an image.
    std::int64_t step;
};

}  // namespace ccf
