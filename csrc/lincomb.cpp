// torch.ops.ccfast.lincomb: P = 0.
#include "arguments.h"

namespace ccf {
namespace {

void lincomb(Tensor out, Maybe<Tensor> next, double c_in, Tensors terms, Numbers direct, Maybe<Tensors> scales,
             Maybe<Integers> scaled) {
    const Row row = make_row(out, next, c_in, terms, direct, {}, {scales, scaled}, true);
    if (!row.empty()) cpu::lincomb(row);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ccfast, m) { m.def("lincomb" CCF_ROW CCF_SCALES ") -> ()"); }
STABLE_TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("lincomb", TORCH_BOX(&lincomb)); }

}  // namespace ccf
