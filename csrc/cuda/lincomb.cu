// The launches of the elementwise kernels.
#include "lincomb.cuh"

#include "kernels.h"
#include "spectrum.cuh"

namespace ccf::cuda {
namespace {

constexpr std::int64_t block_pixels = run * run_threads;

dim3 grid(std::int64_t planes, std::int64_t pixels, std::int64_t of_block = block_pixels) {
    return {static_cast<unsigned>(planes), static_cast<unsigned>((pixels + of_block - 1) / of_block)};
}

// Returns whether runs of out, of next and of a field, if there is one, are aligned.
bool aligned(const DeviceRow& row, const void* field = nullptr) {
    const auto address = reinterpret_cast<std::uintptr_t>(field) | reinterpret_cast<std::uintptr_t>(row.out) |
                         reinterpret_cast<std::uintptr_t>(row.next);
    return row.shape.plane() % run == 0 && address % sizeof(Run<float>) == 0;
}

// Returns the kernel for rows with tensors as coefficients, or the one for rows without any.
template <class Kernel>
Kernel* chosen(const DeviceRow& row, Kernel* plain, Kernel* scaled) {
    for (int k = 0; k < row.count; ++k)
        if (row.terms[k].scale) return scaled;
    return plain;
}

}  // namespace

void combine(const DeviceRow& row, float* field, void* stream) {
    const auto kernel = chosen(row, &lincomb_combine<0>, &lincomb_combine<1>);
    CCF_LAUNCH(kernel, grid(row.shape.planes(), row.shape.plane()), dim3(run_threads), 0, stream, row, field,
               aligned(row, field));
    check_launch("lincomb_combine");
}

void finish(const DeviceRow& row, const float* field, void* stream) {
    const auto kernel = chosen(row, &lincomb_finish<0>, &lincomb_finish<1>);
    CCF_LAUNCH(kernel, grid(row.shape.planes(), row.shape.plane()), dim3(run_threads), 0, stream, row, field,
               aligned(row, field));
    check_launch("lincomb_finish");
}

void fourier_pack(const DeviceRow& row, const Groups& groups, int sets, void* spectrum, void* stream) {
    auto* z = static_cast<Complex*>(spectrum);
    dim3 blocks = grid(groups.all_pairs(), row.shape.plane());
    blocks.z = static_cast<unsigned>(sets);
    const auto kernel = chosen(row, &fourier_pack_planes<0>, &fourier_pack_planes<1>);
    CCF_LAUNCH(kernel, blocks, dim3(run_threads), 0, stream, row, groups, z);
    check_launch("fourier_pack");
}

void fourier_multiply(const Shape& shape, const Groups& groups, const Spectral& spectral, const Factors& factors,
                      void* spectrum, void* stream) {
    const auto* m = static_cast<const float*>(spectral.data);
    auto* z = static_cast<Complex*>(spectrum);
    CCF_LAUNCH(fourier_multiply_planes, grid(groups.all_pairs(), shape.plane()), dim3(run_threads), 0, stream, shape,
               groups, m, spectral.stride, factors, z);
    check_launch("fourier_multiply");
}

void fourier_alias(const Shape& shape, const Groups& groups, const Spectral& spectral, const Factors& factors,
                   int low_height, int low_width, void* spectrum, void* stream) {
    const auto* v = static_cast<const Complex*>(spectral.data);
    auto* z = static_cast<Complex*>(spectrum);
    const std::int64_t low = static_cast<std::int64_t>(low_height) * low_width;
    CCF_LAUNCH(fourier_alias_planes, grid(groups.all_pairs(), low, run_threads), dim3(run_threads), 0, stream, shape,
               groups, low_height, low_width, v, spectral.stride, factors, z);
    check_launch("fourier_alias");
}

void fourier_unpack(const DeviceRow& row, const Groups& groups, const void* spectrum, void* stream) {
    const auto* z = static_cast<const Complex*>(spectrum);
    const auto kernel = chosen(row, &fourier_unpack_planes<0>, &fourier_unpack_planes<1>);
    CCF_LAUNCH(kernel, grid(groups.all_pairs(), row.shape.plane()), dim3(run_threads), 0, stream, row, groups, z,
               aligned(row));
    check_launch("fourier_unpack");
}

}  // namespace ccf::cuda
