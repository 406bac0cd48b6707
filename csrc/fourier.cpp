// torch.ops.ccfast.fourier_*: what lies around the transforms of torch. Real planes are packed in pairs as complex
// ones, multiplied or aliased, and unpacked as a row.
#include "arguments.h"
#include "spectra.h"

namespace ccf {
namespace {

Packing make_packing(Name name, const Tensor& spectrum, const Shape& shape, std::int64_t groups) {
    check_groups(groups, shape);
    Packing packing{nullptr, groups, shape.planes() / groups};
    constant<float>(name, spectrum, ScalarType::ComplexFloat, groups * packing.pairs() * shape.plane());
    packing.spectrum = static_cast<float*>(spectrum.mutable_data_ptr());
    return packing;
}

void fourier_pack(Tensor spectrum, Tensors terms, Numbers projected, Maybe<Tensors> scales, Maybe<Integers> scaled,
                  std::int64_t groups) {
    const Row row = make_row(terms, {}, projected, {scales, scaled});
    if (row.shape.planes()) cpu::fourier_pack(row, make_packing("spectrum", spectrum, row.shape, groups));
}

void fourier_unpack(Tensor out, Maybe<Tensor> next, double c_in, Tensors terms, Numbers direct, Maybe<Tensors> scales,
                    Maybe<Integers> scaled, Tensor spectrum, std::int64_t groups) {
    const Row row = make_row(out, next, c_in, terms, direct, {}, {scales, scaled});
    if (row.shape.planes()) cpu::fourier_unpack(row, make_packing("spectrum", spectrum, row.shape, groups));
}

void fourier_multiply(Tensor out, Tensor spectrum, Tensor multiplier, std::int64_t groups) {
    const Shape shape = spectrum_shape(spectrum);
    if (!shape.planes()) return;
    const Packing to = make_packing("out", out, shape, groups);
    const Packing from = make_packing("spectrum", spectrum, shape, groups);
    const std::int64_t stride = group_stride("multiplier", multiplier, groups, shape);
    const auto* m = constant<float>("multiplier", multiplier, ScalarType::Float, multiplier.size(0) * shape.plane());
    cpu::fourier_multiply(to, shape, from.spectrum, m, stride);
}

void fourier_alias(Tensor out, Tensor spectrum, Tensor basis, std::int64_t groups, std::int64_t low_height,
                   std::int64_t low_width) {
    const Shape shape = spectrum_shape(spectrum);
    if (!shape.planes()) return;
    check_low_sides(low_height, low_width, shape, spectrum);
    const Packing to = make_packing("out", out, shape, groups);
    const Packing from = make_packing("spectrum", spectrum, shape, groups);
    const std::int64_t stride = group_stride("basis", basis, groups, shape);
    const auto* v = constant<float>("basis", basis, ScalarType::ComplexFloat, basis.size(0) * shape.plane());
    cpu::fourier_alias(to, shape, from.spectrum, v, stride, low_height, low_width);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ccfast, m) {
    m.def("fourier_pack(Tensor(a!) spectrum, Tensor[] terms, float[] projected, " CCF_SCALES ", int groups) -> ()");
    m.def("fourier_multiply(Tensor(a!) out, Tensor spectrum, Tensor multiplier, int groups) -> ()");
    m.def(
        "fourier_alias(Tensor(a!) out, Tensor spectrum, Tensor basis, int groups, int low_height, int low_width) "
        "-> ()");
    m.def("fourier_unpack" CCF_ROW CCF_SCALES ", Tensor spectrum, int groups) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
    m.impl("fourier_pack", TORCH_BOX(&fourier_pack));
    m.impl("fourier_multiply", TORCH_BOX(&fourier_multiply));
    m.impl("fourier_alias", TORCH_BOX(&fourier_alias));
    m.impl("fourier_unpack", TORCH_BOX(&fourier_unpack));
}

}  // namespace ccf
