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

}  // namespace

void combine(const DeviceRow& row, float* field, void* stream) {
    CCF_LAUNCH(lincomb_combine, grid(row.shape.planes(), row.shape.plane()), dim3(run_threads), 0, stream, row, field,
               aligned(row, field));
    check_launch("lincomb_combine");
}

void finish(const DeviceRow& row, const float* field, void* stream) {
    CCF_LAUNCH(lincomb_finish, grid(row.shape.planes(), row.shape.plane()), dim3(run_threads), 0, stream, row, field,
               aligned(row, field));
    check_launch("lincomb_finish");
}

void fourier_pack(const DeviceRow& row, const Groups& groups, void* spectrum, void* stream) {
    auto* z = static_cast<Complex*>(spectrum);
    CCF_LAUNCH(fourier_pack_planes, grid(groups.all_pairs(), row.shape.plane()), dim3(run_threads), 0, stream, row,
               groups, z);
    check_launch("fourier_pack");
}

void fourier_multiply(const Shape& shape, const Groups& groups, const Spectral& spectral, void* spectrum,
                      void* stream) {
    const auto* m = static_cast<const float*>(spectral.data);
    auto* z = static_cast<Complex*>(spectrum);
    CCF_LAUNCH(fourier_multiply_planes, grid(groups.all_pairs(), shape.plane()), dim3(run_threads), 0, stream, shape,
               groups, m, spectral.stride, z);
    check_launch("fourier_multiply");
}

void fourier_alias(const Shape& shape, const Groups& groups, const Spectral& spectral, int low_height, int low_width,
                   void* spectrum, void* stream) {
    const auto* v = static_cast<const Complex*>(spectral.data);
    auto* z = static_cast<Complex*>(spectrum);
    const std::int64_t low = static_cast<std::int64_t>(low_height) * low_width;
    CCF_LAUNCH(fourier_alias_planes, grid(groups.all_pairs(), low, run_threads), dim3(run_threads), 0, stream, shape,
               groups, low_height, low_width, v, spectral.stride, z);
    check_launch("fourier_alias");
}

void fourier_unpack(const DeviceRow& row, const Groups& groups, const void* spectrum, void* stream) {
    const auto* z = static_cast<const Complex*>(spectrum);
    CCF_LAUNCH(fourier_unpack_planes, grid(groups.all_pairs(), row.shape.plane()), dim3(run_threads), 0, stream, row,
               groups, z, aligned(row));
    check_launch("fourier_unpack");
}

}  // namespace ccf::cuda
