// torch.ops.ccfast.mask: P x = m x, one mask for all images or one for each, for all channels or one for each.
#include "arguments.h"

namespace ccf {
namespace {

Mask make_mask(const Tensor& mask, const Shape& shape, const Tensor& out) {
    const bool own = mask.dim() == out.dim();  // one for each image
    check(own || mask.dim() == out.dim() - 1, "mask: must be an image or a batch of images, got ", sizes_of(mask));
    const std::int64_t channels = mask.size(own ? 1 : 0);
    check((!own || mask.size(0) == shape.batch) && (channels == 1 || channels == shape.channels),
          "mask: must fit out, got ", sizes_of(mask), " for ", sizes_of(out));
    const std::int64_t image = channels * shape.plane();
    const auto* data = constant<float>("mask", mask, ScalarType::Float, (own ? shape.batch : 1) * image);
    return {data, own ? image : 0, channels == 1 ? 0 : shape.plane()};
}

void mask(Tensor out, Maybe<Tensor> next, double c_in, Tensors terms, Numbers direct, Numbers projected,
          Maybe<Tensors> scales, Maybe<Integers> scaled, Tensor mask) {
    const Row row = make_row(out, next, c_in, terms, direct, projected, {scales, scaled});
    cpu::mask(row, make_mask(mask, row.shape, out));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ccfast, m) { m.def("mask" CCF_PROJECTION "Tensor mask) -> ()"); }
STABLE_TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("mask", TORCH_BOX(&mask)); }

}  // namespace ccf
