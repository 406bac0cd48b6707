// torch.ops.ccfast.cuda_fourier, whole with transforms of our own, and cuda_fourier_*, what lies around those of torch.
#include "arguments_cuda.h"
#include "spectra.h"

namespace ccf {
namespace {

using cuda::Call;
using cuda::constant;
using cuda::Device;
using cuda::Groups;
using cuda::Spectral;

Groups make_groups(const Shape& shape, std::int64_t groups) {
    check_groups(groups, shape);
    return {static_cast<int>(groups), static_cast<int>(shape.planes() / groups)};
}

// The constant is (1 or groups, H, W); it is complex where the operator decimates.
Spectral make_spectral(const Tensor& data, const Shape& shape, std::int64_t groups, bool complex,
                       const Device& device) {
    const std::int64_t stride = group_stride("constant", data, groups, shape);
    const auto dtype = complex ? ScalarType::ComplexFloat : ScalarType::Float;
    const SizeList sizes{data.size(0), shape.height, shape.width};
    return {constant<void>("constant", data, dtype, sizes, device), stride, 1, nullptr, nullptr};
}

const void* make_roots(Name name, const Tensor& roots, std::int64_t side, const Device& device) {
    return constant<void>(name, roots, ScalarType::ComplexFloat, {cuda::root_count(static_cast<int>(side))}, device);
}

void fourier(Tensor out, Maybe<Tensor> next, Tensors terms, Tensor table, bool residual, Tensor data, Tensor row_roots,
             Tensor column_roots, Tensor scratch, std::int64_t groups, std::int64_t factor, std::int64_t stream) {
    Call call(out, next, terms, table, residual, stream);
    if (call.empty()) return;
    const Shape& shape = call.row.shape;
    check(cuda::has_transform(shape.height) && cuda::has_transform(shape.width),
          "terms: sides must be powers of two from ", cuda::smallest_side, " to ", cuda::largest_side, ", got ",
          sizes_of(terms[0]));
    check(factor == 1 || factor == 2 || factor == 4 || (factor == 8 && shape.height < 2048),
          "factor: must be 1, 2, 4 or, below 2048 rows, 8, got ", factor);
    Spectral spectral = make_spectral(data, shape, groups, factor > 1, call.device);
    spectral.factor = static_cast<int>(factor);
    spectral.row_roots = make_roots("row_roots", row_roots, shape.width, call.device);
    spectral.column_roots = make_roots("column_roots", column_roots, shape.height, call.device);
    check(scratch.dim() == 3 && scratch.size(0) > 0 && scratch.size(0) <= UINT16_MAX,
          "scratch: must be (pairs, H, W) with 1 to 65535 pairs, got ", sizes_of(scratch));
    const SizeList sizes{scratch.size(0), shape.height, shape.width};
    constant<void>("scratch", scratch, ScalarType::ComplexFloat, sizes, call.device);
    call.writes("scratch", scratch, terms);
    call.check_apart("table", table), call.check_apart("constant", data);
    call.check_apart("row_roots", row_roots), call.check_apart("column_roots", column_roots);
    cuda::fourier(call.row, make_groups(shape, groups), spectral, scratch.mutable_data_ptr(),
                  static_cast<int>(scratch.size(0)), call.stream);
}

void* make_spectrum(const Tensor& spectrum, const Shape& shape, const Groups& groups, const Device& device) {
    const SizeList sizes{groups.all_pairs(), shape.height, shape.width};
    constant<void>("spectrum", spectrum, ScalarType::ComplexFloat, sizes, device);
    return spectrum.mutable_data_ptr();
}

void fourier_pack(Tensor spectrum, Tensors terms, Tensor table, bool residual, std::int64_t groups,
                  std::int64_t stream) {
    Call call(terms, table, residual, stream);
    if (call.empty()) return;
    const Groups made = make_groups(call.row.shape, groups);
    void* const data = make_spectrum(spectrum, call.row.shape, made, call.device);
    call.writes("spectrum", spectrum, terms);
    call.check_apart("table", table);
    cuda::fourier_pack(call.row, made, data, call.stream);
}

void fourier_unpack(Tensor out, Maybe<Tensor> next, Tensors terms, Tensor table, bool residual, Tensor spectrum,
                    std::int64_t groups, std::int64_t stream) {
    const Call call(out, next, terms, table, residual, stream);
    if (call.empty()) return;
    const Groups made = make_groups(call.row.shape, groups);
    void* const data = make_spectrum(spectrum, call.row.shape, made, call.device);
    call.check_apart("spectrum", spectrum);
    cuda::fourier_unpack(call.row, made, data, call.stream);
}

Shape device_spectrum_shape(const Tensor& spectrum) {
    check(Device::on_device(spectrum), "spectrum: must be on a GPU");
    const Shape shape = spectrum_shape(spectrum);
    check(shape.plane() < cuda::largest_plane, "spectrum: must have fewer than ", cuda::largest_plane,
          " pixels a plane, got ", sizes_of(spectrum));
    check(shape.planes() <= INT32_MAX, "spectrum: must have fewer planes, got ", sizes_of(spectrum));
    return shape;
}

void fourier_multiply(Tensor spectrum, Tensor multiplier, std::int64_t groups, std::int64_t stream) {
    const Shape shape = device_spectrum_shape(spectrum);
    if (!shape.planes() || !shape.plane()) return;
    const Device device(spectrum);
    const Groups made = make_groups(shape, groups);
    const Spectral spectral = make_spectral(multiplier, shape, groups, false, device);
    void* const data = make_spectrum(spectrum, shape, made, device);
    Written("spectrum", spectrum).check_apart("constant", multiplier);
    cuda::fourier_multiply(shape, made, spectral, data, device.stream(stream));
}

void fourier_alias(Tensor spectrum, Tensor basis, std::int64_t groups, std::int64_t low_height, std::int64_t low_width,
                   std::int64_t stream) {
    const Shape shape = device_spectrum_shape(spectrum);
    if (!shape.planes() || !shape.plane()) return;
    check_low_sides(low_height, low_width, shape, spectrum);
    const Device device(spectrum);
    const Groups made = make_groups(shape, groups);
    const Spectral spectral = make_spectral(basis, shape, groups, true, device);
    void* const data = make_spectrum(spectrum, shape, made, device);
    Written("spectrum", spectrum).check_apart("constant", basis);
    cuda::fourier_alias(shape, made, spectral, static_cast<int>(low_height), static_cast<int>(low_width), data,
                        device.stream(stream));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(CCF_LIBRARY, m) {
    m.def("cuda_fourier" CCF_DEVICE_ROW
          "Tensor constant, Tensor row_roots, Tensor column_roots, Tensor(c!) scratch, int groups, int factor, "
          "int stream) -> ()");
    m.def("cuda_fourier_pack(Tensor(a!) spectrum, " CCF_TERMS "int groups, int stream) -> ()");
    m.def("cuda_fourier_multiply(Tensor(a!) spectrum, Tensor multiplier, int groups, int stream) -> ()");
    m.def(
        "cuda_fourier_alias(Tensor(a!) spectrum, Tensor basis, int groups, int low_height, int low_width, int stream) "
        "-> ()");
    m.def("cuda_fourier_unpack" CCF_DEVICE_ROW "Tensor spectrum, int groups, int stream) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(CCF_LIBRARY, CCF_KEY, m) {
    m.impl("cuda_fourier", TORCH_BOX(&fourier));
    m.impl("cuda_fourier_pack", TORCH_BOX(&fourier_pack));
    m.impl("cuda_fourier_multiply", TORCH_BOX(&fourier_multiply));
    m.impl("cuda_fourier_alias", TORCH_BOX(&fourier_alias));
    m.impl("cuda_fourier_unpack", TORCH_BOX(&fourier_unpack));
}

}  // namespace ccf
