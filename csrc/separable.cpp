// torch.ops.ccfast.separable: P = H^T (H H^T)^-1 H on rows and columns, H banded.
#include "arguments.h"

namespace ccf {
namespace {

// Taps (rows, width) and starts (rows): the band must lie inside the columns.
Band make_band(Name name, const Tensor& taps, const Tensor& starts, std::int64_t rows, std::int64_t columns) {
    check(taps.dim() == 2, name, ": must be (rows, width), got ", sizes_of(taps));
    const std::int64_t width = taps.size(1);
    const Band band{constant<float>(name, taps, ScalarType::Float, rows * width),
                    constant<std::int64_t>(name, starts, ScalarType::Long, rows), rows, width};
    for (std::int64_t i = 0; i < rows; ++i)
        check(band.start[i] >= 0 && band.start[i] + width <= columns, name, ": row ", i, " leaves the matrix");
    return band;
}

// An axis: taps and starts of H, taps and starts of H^T, (H H^T)^-1.
BandedAxis make_axis(Name name, const Tensors& parts, std::int64_t high) {
    check(parts.size() == 5, name, ": must be five tensors, got ", parts.size());
    const std::int64_t low = parts[1].numel();
    check(low > 0, name, ": must have a row");
    return {make_band(name, parts[0], parts[1], low, high), make_band(name, parts[2], parts[3], high, low),
            constant<float>(name, parts[4], ScalarType::Float, low * low)};
}

void separable(Tensor out, Maybe<Tensor> next, double c_in, Tensors terms, Numbers direct, Numbers projected,
               Maybe<Tensors> scales, Maybe<Integers> scaled, Tensors rows, Tensors columns, Tensor scratch) {
    const Row row = make_row(out, next, c_in, terms, direct, projected, {scales, scaled});
    const BandedAxis vertical = make_axis("rows", rows, row.shape.height);
    const BandedAxis horizontal = make_axis("columns", columns, row.shape.width);
    const std::int64_t low = vertical.down.rows * horizontal.down.rows;
    constant<float>("scratch", scratch, ScalarType::Float, row.shape.planes() * low);
    cpu::separable(row, vertical, horizontal, static_cast<float*>(scratch.mutable_data_ptr()));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ccfast, m) {
    m.def("separable" CCF_PROJECTION "Tensor[] rows, Tensor[] columns, Tensor(c!) scratch) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("separable", TORCH_BOX(&separable)); }

}  // namespace ccf
