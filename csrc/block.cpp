// torch.ops.ccfast.block: P x = the mean of each tile of height x width pixels.
#include "arguments.h"

namespace ccf {
namespace {

void block(Tensor out, Maybe<Tensor> next, double c_in, Tensors terms, Numbers direct, Numbers projected,
           Maybe<Tensors> scales, Maybe<Integers> scaled, std::int64_t height, std::int64_t width) {
    const Row row = make_row(out, next, c_in, terms, direct, projected, {scales, scaled});
    check_divides("height, width", height, width, row.shape, out);
    if (!row.empty()) cpu::block(row, height, width);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ccfast, m) { m.def("block" CCF_PROJECTION "int height, int width) -> ()"); }
STABLE_TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("block", TORCH_BOX(&block)); }

}  // namespace ccf
