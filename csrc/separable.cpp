// torch.ops.ccfast.separable: P = H^T (H H^T)^-1 H on rows and columns, H banded.
#include "arguments.h"

namespace ccf {
namespace {

// Taps are (rows, width) and starts (rows). The band must lie inside the columns.
Band make_band(Name name, const Tensor& taps, const Tensor& starts, std::int64_t rows, std::int64_t columns) {
    check(taps.dim() == 2, name, ": must be (rows, width), got ", sizes_of(taps));
    const std::int64_t width = taps.size(1);
    check(width > 0 && width <= columns, name, ": must have 1 to ", columns, " taps a row, got ", width);
    const Band band{constant<float>(name, taps, ScalarType::Float, {rows, width}),
                    constant<std::int64_t>(name, starts, ScalarType::Long, {rows}), rows, width};
    for (std::int64_t i = 0; i < rows; ++i)
        check(band.start[i] >= 0 && band.start[i] <= columns - width, name, ": row ", i, " leaves the matrix, from ",
              band.start[i], " on");
    return band;
}

// The five tensors of an axis are taps and starts of H, taps and starts of H^T, and (H H^T)^-1.
BandedAxis make_axis(Name name, const Tensors& parts, std::int64_t high) {
    check(parts.size() == 5, name, ": must be five tensors, got ", parts.size());
    const std::int64_t low = parts[1].numel();
    check(low > 0, name, ": must have a row");
    return {make_band(name, parts[0], parts[1], low, high), make_band(name, parts[2], parts[3], high, low),
            constant<float>(name, parts[4], ScalarType::Float, {low, low})};
}

void separable(Tensor out, Maybe<Tensor> next, double c_in, Tensors terms, Numbers direct, Numbers projected,
               Maybe<Tensors> scales, Maybe<Integers> scaled, Tensors rows, Tensors columns, Tensor scratch) {
    const Row row = make_row(out, next, c_in, terms, direct, projected, {scales, scaled});
    if (row.empty()) return;
    const BandedAxis vertical = make_axis("rows", rows, row.shape.height);
    const BandedAxis horizontal = make_axis("columns", columns, row.shape.width);
    const std::int64_t low = vertical.down.rows * horizontal.down.rows;
    float* const work = workspace("scratch", scratch, row.shape.planes() * low);
    const Written written("scratch", scratch);
    const auto apart = [&](Name name, const Tensor& tensor) {
        check_apart(out, next, name, tensor);
        written.check_apart(name, tensor);
    };
    check_apart(out, next, "scratch", scratch);
    for (int k = 0; k < 5; ++k) apart({"rows", k}, rows[k]), apart({"columns", k}, columns[k]);
    for (int k = 0; k < row.count; ++k) written.check_apart({"terms", k}, terms[k]);
    for (std::size_t k = 0; k < Scales{scales, scaled}.count(); ++k)
        written.check_apart({"scales", static_cast<int>(k)}, (*scales)[k]);
    cpu::separable(row, vertical, horizontal, work);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ccfast, m) {
    m.def("separable" CCF_PROJECTION "Tensor[] rows, Tensor[] columns, Tensor(c!) scratch) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("separable", TORCH_BOX(&separable)); }

}  // namespace ccf
