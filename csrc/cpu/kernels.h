// The kernels of the CPU have one file for each kind. The ops (csrc/*.cpp) check sizes and dtypes, and call no kernel
// for images without pixels.
#pragma once

#include "../params.h"

namespace ccf::cpu {

void lincomb(const Row& row);                                         // P = 0
void mask(const Row& row, const Mask& mask);                          // P x = m x
void block(const Row& row, std::int64_t height, std::int64_t width);  // P x = mean of each height x width tile
void channel(const Row& row, const float* direction);                 // P x = v (v . x) at each pixel, |v| = 1
void separable(const Row& row, const BandedAxis& rows, const BandedAxis& columns, float* scratch);

// P x of complex planes takes pack, an FFT of torch, one of the two products, an inverse FFT, and unpack, which adds
// the direct terms.
void fourier_pack(const Row& row, const Packing& packing);
void fourier_multiply(const Packing& packing, const Shape& shape, const float* spectrum, const float* multiplier,
                      std::int64_t multiplier_stride);
void fourier_alias(const Packing& packing, const Shape& shape, const float* spectrum, const float* basis,
                   std::int64_t basis_stride, std::int64_t low_height, std::int64_t low_width);
void fourier_unpack(const Row& row, const Packing& packing);

void normal(float* out, std::int64_t batch, std::int64_t count, const NoiseKeys& keys);

}  // namespace ccf::cpu
