// torch.ops.ccfast.fourier_*: what lies around the transforms of torch. Real planes are packed in pairs as complex
// ones, multiplied or aliased, and unpacked as a row.
#include "arguments.h"
#include "spectra.h"

namespace ccf {
namespace {

Packing make_packing(Name name, const Tensor& spectrum, const Shape& shape, std::int64_t groups) {
    check_groups(groups, shape);
    Packing packing{nullptr, groups, shape.planes() / groups};
    constant<float>(name, spectrum, ScalarType::ComplexFloat, {pairs_of(groups, shape), shape.height, shape.width});
    packing.spectrum = static_cast<float*>(spectrum.mutable_data_ptr());
    return packing;
}

void fourier_pack(Tensor spectrum, Tensors terms, Numbers projected, Maybe<Tensors> scales, Maybe<Integers> scaled,
                  std::int64_t groups) {
    const Row row = make_row(terms, {}, projected, {scales, scaled});
    if (row.empty()) return;
    const Packing packing = make_packing("spectrum", spectrum, row.shape, groups);
    const Written written("spectrum", spectrum);
    for (int k = 0; k < row.count; ++k) written.check_apart({"terms", k}, terms[k]);
    for (std::size_t k = 0; k < Scales{scales, scaled}.count(); ++k)
        written.check_apart({"scales", static_cast<int>(k)}, (*scales)[k]);
    cpu::fourier_pack(row, packing);
}

void fourier_unpack(Tensor out, Maybe<Tensor> next, double c_in, Tensors terms, Numbers direct, Maybe<Tensors> scales,
                    Maybe<Integers> scaled, Tensor spectrum, std::int64_t groups) {
    const Row row = make_row(out, next, c_in, terms, direct, {}, {scales, scaled});
    if (row.empty()) return;
    const Packing packing = make_packing("spectrum", spectrum, row.shape, groups);
    check_apart(out, next, "spectrum", spectrum);
    cpu::fourier_unpack(row, packing);
}

void fourier_multiply(Tensor out, Tensor spectrum, Tensor multiplier, std::int64_t groups) {
    const Shape shape = spectrum_shape(spectrum);
    check(same_sizes(out, spectrum), "out: must be of the shape of spectrum ", sizes_of(spectrum), ", got ",
          sizes_of(out));
    if (!shape.planes() || !shape.plane()) return;
    const Packing to = make_packing("out", out, shape, groups);
    const Packing from = make_packing("spectrum", spectrum, shape, groups);
    const std::int64_t stride = group_stride("multiplier", multiplier, groups, shape);
    const SizeList sizes{multiplier.size(0), shape.height, shape.width};
    const auto* m = constant<float>("multiplier", multiplier, ScalarType::Float, sizes);
    const Written written("out", out);
    written.check_apart("spectrum", spectrum), written.check_apart("multiplier", multiplier);
    cpu::fourier_multiply(to, shape, from.spectrum, m, stride);
}

void fourier_alias(Tensor out, Tensor spectrum, Tensor basis, std::int64_t groups, std::int64_t low_height,
                   std::int64_t low_width) {
    const Shape shape = spectrum_shape(spectrum);
    check(same_sizes(out, spectrum), "out: must be of the shape of spectrum ", sizes_of(spectrum), ", got ",
          sizes_of(out));
    if (!shape.planes() || !shape.plane()) return;
    check_low_sides(low_height, low_width, shape, spectrum);
    const Packing to = make_packing("out", out, shape, groups);
    const Packing from = make_packing("spectrum", spectrum, shape, groups);
    const std::int64_t stride = group_stride("basis", basis, groups, shape);
    const SizeList sizes{basis.size(0), shape.height, shape.width};
    const auto* v = constant<float>("basis", basis, ScalarType::ComplexFloat, sizes);
    const Written written("out", out);
    written.check_apart("spectrum", spectrum), written.check_apart("basis", basis);
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
