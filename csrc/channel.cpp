// torch.ops.ccfast.channel: P x = v (v . x) at each pixel, v = direction.
#include "arguments.h"

namespace ccf {
namespace {

void channel(Tensor out, Maybe<Tensor> next, double c_in, Tensors terms, Numbers direct, Numbers projected,
             Maybe<Tensors> scales, Maybe<Integers> scaled, Tensor direction) {
    const Row row = make_row(out, next, c_in, terms, direct, projected, {scales, scaled});
    const auto* v = constant<float>("direction", direction, ScalarType::Float, {row.shape.channels});
    check_apart(out, next, "direction", direction);
    if (!row.empty()) cpu::channel(row, v);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ccfast, m) { m.def("channel" CCF_PROJECTION "Tensor direction) -> ()"); }
STABLE_TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("channel", TORCH_BOX(&channel)); }

}  // namespace ccf
