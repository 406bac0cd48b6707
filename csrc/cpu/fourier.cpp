// P is diagonal in the Fourier basis, or block diagonal where frequencies alias. It is linear and real, so that
// P(a + i b) = P a + i P b, and two real planes of an image travel as one complex plane. The transforms are torch's.
#include <algorithm>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "row.h"

namespace ccf::cpu {
namespace {

CCF_CLONES void interleave(std::int64_t size, const float* __restrict x, const float* __restrict y,
                           float* __restrict z) {
    for (std::int64_t i = 0; i < size; ++i) z[2 * i] = x[i], z[2 * i + 1] = y[i];
}

CCF_CLONES void part(std::int64_t size, const float* __restrict z, float* __restrict y) {
    for (std::int64_t i = 0; i < size; ++i) y[i] = z[2 * i];
}

CCF_CLONES void multiply(std::int64_t size, const float* __restrict m, const float* __restrict x, float* __restrict z) {
    for (std::int64_t i = 0; i < size; ++i) z[2 * i] = m[i] * x[2 * i], z[2 * i + 1] = m[i] * x[2 * i + 1];
}

// These compute z += v x and z = conj(v) x of complex numbers.
CCF_CLONES void add_complex_product(std::int64_t size, const float* __restrict v, const float* __restrict x,
                                    float* __restrict z) {
    for (std::int64_t i = 0; i < 2 * size; i += 2) {
        z[i] += v[i] * x[i] - v[i + 1] * x[i + 1];
        z[i + 1] += v[i] * x[i + 1] + v[i + 1] * x[i];
    }
}
CCF_CLONES void conjugate_product(std::int64_t size, const float* __restrict v, const float* __restrict x,
                                  float* __restrict z) {
    for (std::int64_t i = 0; i < 2 * size; i += 2) {
        z[i] = v[i] * x[i] + v[i + 1] * x[i + 1];
        z[i + 1] = v[i] * x[i + 1] - v[i + 1] * x[i];
    }
}

}  // namespace

void fourier_pack(const Row& row, const Packing& packing) {
    const Shape& shape = row.shape;
    const std::int64_t plane = shape.plane(), pieces = ceil_div(plane, piece);
    parallel_for(packing.groups * packing.pairs() * pieces, 2 * piece, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, piece);
        float real[piece], imaginary[piece];
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t pair = item / pieces, pixel = item % pieces * piece;
            const std::int64_t first = 2 * (pair % packing.pairs());  // It is a plane of the group.
            const std::int64_t index = pair / packing.pairs() * packing.planes + first;
            const std::int64_t size = std::min(piece, plane - pixel);
            const auto read = [&](std::int64_t k, float* y) {
                reader.projected({k / shape.channels, k % shape.channels, pixel, size});
                reader.sum(size, y);
            };
            read(index, real);
            if (first + 1 < packing.planes) read(index + 1, imaginary);
            else std::fill_n(imaginary, size, 0.0f);
            interleave(size, real, imaginary, packing.spectrum + 2 * (pair * plane + pixel));
        }
    });
}

void fourier_multiply(const Packing& packing, const Shape& shape, const float* spectrum, const float* multiplier,
                      std::int64_t multiplier_stride) {
    const std::int64_t plane = shape.plane(), pieces = ceil_div(plane, piece);
    parallel_for(packing.groups * packing.pairs() * pieces, 2 * piece, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t pair = item / pieces, pixel = item % pieces * piece;
            const float* const m = multiplier + pair / packing.pairs() * multiplier_stride + pixel;
            const std::int64_t offset = 2 * (pair * plane + pixel);
            multiply(std::min(piece, plane - pixel), m, spectrum + offset, packing.spectrum + offset);
        }
    });
}

void fourier_alias(const Packing& packing, const Shape& shape, const float* spectrum, const float* basis,
                   std::int64_t basis_stride, std::int64_t low_height, std::int64_t low_width) {
    const std::int64_t plane = shape.plane();
    const std::int64_t rows = packing.groups * packing.pairs() * low_height;
    parallel_for(rows, 2 * plane / low_height, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> sum(2 * low_width);
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t pair = item / low_height;
            const float* const v = basis + 2 * (pair / packing.pairs() * basis_stride);
            const float* const x = spectrum + 2 * pair * plane;
            float* const z = packing.spectrum + 2 * pair * plane;
            std::fill(sum.begin(), sum.end(), 0.0f);
            for (std::int64_t h = item % low_height; h < shape.height; h += low_height)
                for (std::int64_t w = 0; w < shape.width; w += low_width) {
                    const std::int64_t at = 2 * (h * shape.width + w);
                    add_complex_product(low_width, v + at, x + at, sum.data());
                }
            for (std::int64_t h = item % low_height; h < shape.height; h += low_height)
                for (std::int64_t w = 0; w < shape.width; w += low_width) {
                    const std::int64_t at = 2 * (h * shape.width + w);
                    conjugate_product(low_width, v + at, sum.data(), z + at);
                }
        }
    });
}

void fourier_unpack(const Row& row, const Packing& packing) {
    const Shape& shape = row.shape;
    const std::int64_t plane = shape.plane(), pieces = ceil_div(plane, piece);
    parallel_for(shape.planes() * pieces, piece, [&](std::int64_t begin, std::int64_t end) {
        Reader reader(row, piece);
        float projected[piece];
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t index = item / pieces, pixel = item % pieces * piece;
            const std::int64_t group = index / packing.planes, member = index % packing.planes;
            const std::int64_t pair = group * packing.pairs() + member / 2;
            const Place at{index / shape.channels, index % shape.channels, pixel, std::min(piece, plane - pixel)};
            part(at.size, packing.spectrum + 2 * (pair * plane + pixel) + member % 2, projected);
            reader.direct(at);
            reader.field(projected);
            reader.store(at);
        }
    });
}

}  // namespace ccf::cpu
