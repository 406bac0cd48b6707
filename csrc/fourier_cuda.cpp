// torch.ops.ccfast.cuda_fourier, whole with transforms of our own, and cuda_fourier_*, what lies around those of torch.
#include "arguments_cuda.h"
#include "spectra.h"

#define CCF_SPECTRA "int sets, Tensor[]? factors, float scale, Tensor? more, "

namespace ccf {
namespace {

using cuda::Call;
using cuda::constant;
using cuda::Device;
using cuda::Factors;
using cuda::Groups;
using cuda::make_factors;
using cuda::Modal;
using cuda::sets_of;
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

void fourier(Tensor out, Maybe<Tensor> next, Tensors terms, Tensor table, bool residual, Maybe<Tensors> scales,
             Maybe<Integers> scaled, Maybe<Integers> sets, Maybe<Tensors> factors, double scale, Maybe<Tensor> more,
             Tensor data, Tensor row_roots, Tensor column_roots, Tensor scratch, std::int64_t groups,
             std::int64_t factor, std::int64_t stream) {
    const Modal modal{sets, factors, scale, more};
    Call call(out, next, {terms, table, residual, scales, scaled}, stream, &modal);
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
    const Groups made = make_groups(shape, groups);
    const Factors own =
        make_factors(sets_of(call.row), modal, groups, {made.all_pairs(), shape.height / factor, shape.width / factor},
                     ScalarType::ComplexFloat, call.device);
    const std::int64_t pairs = scratch.dim() == 3 ? scratch.size(0) / own.sets : 0;
    check(scratch.dim() == 3 && pairs > 0 && pairs <= UINT16_MAX, "scratch: must be (", own.sets,
          " sets of pairs, H, W) with 1 to 65535 pairs, got ", sizes_of(scratch));
    const SizeList sizes{scratch.size(0), shape.height, shape.width};
    constant<void>("scratch", scratch, ScalarType::ComplexFloat, sizes, call.device);
    call.writes("scratch", scratch, terms);
    call.check_apart("table", table), call.check_apart("constant", data);
    call.check_apart("row_roots", row_roots), call.check_apart("column_roots", column_roots);
    modal.for_tensors([&](Name name, const Tensor& tensor) { call.check_apart(name, tensor); });
    cuda::fourier(call.row, made, spectral, own, scratch.mutable_data_ptr(), static_cast<int>(pairs), call.stream);
}

void* make_spectrum(const Tensor& spectrum, const Shape& shape, const Groups& groups, const Device& device,
                    std::int64_t sets = 1) {
    const SizeList sizes{sets * groups.all_pairs(), shape.height, shape.width};
    constant<void>("spectrum", spectrum, ScalarType::ComplexFloat, sizes, device);
    return spectrum.mutable_data_ptr();
}

void fourier_pack(Tensor spectrum, Tensors terms, Tensor table, bool residual, Maybe<Tensors> scales,
                  Maybe<Integers> scaled, Maybe<Integers> sets, std::int64_t groups, std::int64_t stream) {
    const Maybe<Tensors> no_factors;
    const Maybe<Tensor> no_more;
    const Modal modal{sets, no_factors, 1.0, no_more};
    Call call({terms, table, residual, scales, scaled}, stream, &modal);
    if (call.empty()) return;
    const Groups made = make_groups(call.row.shape, groups);
    const int count = sets_of(call.row);
    void* const data = make_spectrum(spectrum, call.row.shape, made, call.device, count);
    call.writes("spectrum", spectrum, terms);
    call.check_apart("table", table);
    for (std::size_t k = 0; scales && k < scales->size(); ++k)
        call.check_apart({"scales", static_cast<int>(k)}, (*scales)[k]);
    cuda::fourier_pack(call.row, made, count, data, call.stream);
}

// With `weighted` a residual has no part of ybar, which is in the spectrum.
void fourier_unpack(Tensor out, Maybe<Tensor> next, Tensors terms, Tensor table, bool residual, Maybe<Tensors> scales,
                    Maybe<Integers> scaled, bool weighted, Tensor spectrum, std::int64_t groups, std::int64_t stream) {
    Call call(out, next, {terms, table, residual, scales, scaled}, stream);
    if (call.empty()) return;
    call.row.weighted = weighted;
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

const Maybe<Integers> no_sets;

// One of `sets` equal parts of a stack of complex planes.
Shape shape_of_set(const Tensor& spectrum, std::int64_t sets) {
    Shape shape = device_spectrum_shape(spectrum);
    check(sets > 0 && sets <= cuda::max_sets && spectrum.size(0) % sets == 0, "sets: must be 1 to ", cuda::max_sets,
          " and divide the ", spectrum.size(0), " planes of spectrum, got ", sets);
    shape.channels /= sets;
    return shape;
}

void fourier_multiply(Tensor spectrum, Tensor multiplier, std::int64_t sets, Maybe<Tensors> factors, double scale,
                      Maybe<Tensor> more, std::int64_t groups, std::int64_t stream) {
    const Shape shape = shape_of_set(spectrum, sets);
    if (!shape.planes() || !shape.plane()) return;
    const Device device(spectrum);
    const Groups made = make_groups(shape, groups);
    const Spectral spectral = make_spectral(multiplier, shape, groups, false, device);
    const Modal modal{no_sets, factors, scale, more};
    const Factors own = make_factors(static_cast<int>(sets), modal, groups,
                                     {made.all_pairs(), shape.height, shape.width}, ScalarType::ComplexFloat, device);
    void* const data = make_spectrum(spectrum, shape, made, device, sets);
    const Written written("spectrum", spectrum);
    written.check_apart("constant", multiplier);
    modal.for_tensors([&](Name name, const Tensor& tensor) { written.check_apart(name, tensor); });
    cuda::fourier_multiply(shape, made, spectral, own, data, device.stream(stream));
}

void fourier_alias(Tensor spectrum, Tensor basis, std::int64_t sets, Maybe<Tensors> factors, double scale,
                   Maybe<Tensor> more, std::int64_t groups, std::int64_t low_height, std::int64_t low_width,
                   std::int64_t stream) {
    const Shape shape = shape_of_set(spectrum, sets);
    if (!shape.planes() || !shape.plane()) return;
    check_low_sides(low_height, low_width, shape, spectrum);
    const Device device(spectrum);
    const Groups made = make_groups(shape, groups);
    const Spectral spectral = make_spectral(basis, shape, groups, true, device);
    const Modal modal{no_sets, factors, scale, more};
    const Factors own = make_factors(static_cast<int>(sets), modal, groups, {made.all_pairs(), low_height, low_width},
                                     ScalarType::ComplexFloat, device);
    void* const data = make_spectrum(spectrum, shape, made, device, sets);
    const Written written("spectrum", spectrum);
    written.check_apart("constant", basis);
    modal.for_tensors([&](Name name, const Tensor& tensor) { written.check_apart(name, tensor); });
    cuda::fourier_alias(shape, made, spectral, own, static_cast<int>(low_height), static_cast<int>(low_width), data,
                        device.stream(stream));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(CCF_LIBRARY, m) {
    m.def("cuda_fourier" CCF_DEVICE_ROW CCF_FACTORS
          "Tensor constant, Tensor row_roots, Tensor column_roots, Tensor(c!) scratch, int groups, int factor, "
          "int stream) -> ()");
    m.def("cuda_fourier_pack(Tensor(a!) spectrum, " CCF_TERMS "int[]? sets, int groups, int stream) -> ()");
    m.def("cuda_fourier_multiply(Tensor(a!) spectrum, Tensor multiplier, " CCF_SPECTRA "int groups, int stream) -> ()");
    m.def("cuda_fourier_alias(Tensor(a!) spectrum, Tensor basis, " CCF_SPECTRA
          "int groups, int low_height, int low_width, int stream) -> ()");
    m.def("cuda_fourier_unpack" CCF_DEVICE_ROW "bool weighted, Tensor spectrum, int groups, int stream) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(CCF_LIBRARY, CCF_KEY, m) {
    m.impl("cuda_fourier", TORCH_BOX(&fourier));
    m.impl("cuda_fourier_pack", TORCH_BOX(&fourier_pack));
    m.impl("cuda_fourier_multiply", TORCH_BOX(&fourier_multiply));
    m.impl("cuda_fourier_alias", TORCH_BOX(&fourier_alias));
    m.impl("cuda_fourier_unpack", TORCH_BOX(&fourier_unpack));
}

}  // namespace ccf
