// torch.ops.ccfast.mask: P x = m x, one mask for all images or one for each, for all channels or one for each.
#include "arguments.h"

namespace ccf {
namespace {

Mask make_mask(const Tensor& mask, const Shape& shape, const Tensor& out) {
    const bool own = mask.dim() == out.dim();  // Each image has a mask of its own.
    check(own || mask.dim() == out.dim() - 1, "mask: must be an image or a batch of images, got ", sizes_of(mask));
    const std::int64_t channels = mask.size(own ? 1 : 0);
    check((!own || mask.size(0) == shape.batch) && (channels == 1 || channels == shape.channels),
          "mask: must fit out, got ", sizes_of(mask), " for ", sizes_of(out));
    for (std::int64_t d = 1; d < out.dim() - 1; ++d)  // The sides must be those of out.
        check(mask.size(mask.dim() - d) == out.size(out.dim() - d), "mask: must fit out, got ", sizes_of(mask), " for ",
              sizes_of(out));
    refuse_grad("mask", mask);
    check_data("mask", mask, ScalarType::Float, mask.is_cpu(), "on the CPU");
    return {static_cast<const float*>(mask.const_data_ptr()), own ? channels * shape.plane() : 0,
            channels == 1 ? 0 : shape.plane()};
}

void mask(Tensor out, Maybe<Tensor> next, double c_in, Tensors terms, Numbers direct, Numbers projected,
          Maybe<Tensors> scales, Maybe<Integers> scaled, Tensor mask) {
    const Row row = make_row(out, next, c_in, terms, direct, projected, {scales, scaled});
    const Mask made = make_mask(mask, row.shape, out);
    check_apart(out, next, "mask", mask);
    if (!row.empty()) cpu::mask(row, made);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ccfast, m) { m.def("mask" CCF_PROJECTION "Tensor mask) -> ()"); }
STABLE_TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("mask", TORCH_BOX(&mask)); }

}  // namespace ccf
