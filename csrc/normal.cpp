// torch.ops.ccfast.normal: unit noise, whose stream depends on the seed, sample and draw of each image alone.
#include "arguments.h"

namespace ccf {
namespace {

void normal(Tensor out, Tensor seeds, Tensor samples, Tensor draws, std::int64_t step) {
    check(out.dim() > 0 && out.is_contiguous() && out.is_cpu() && out.scalar_type() == ScalarType::Float,
          "out: must be (B, ...), contiguous, float32 and on the CPU");
    refuse_grad(out);
    const std::int64_t batch = out.size(0);
    const NoiseKeys keys{constant<std::int64_t>("seeds", seeds, ScalarType::Long, batch),
                         constant<std::int64_t>("samples", samples, ScalarType::Long, batch),
                         constant<std::int64_t>("draws", draws, ScalarType::Long, batch), step};
    if (batch) cpu::normal(static_cast<float*>(out.mutable_data_ptr()), batch, out.numel() / batch, keys);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ccfast, m) {
    m.def("normal(Tensor(a!) out, Tensor seeds, Tensor samples, Tensor draws, int step) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("normal", TORCH_BOX(&normal)); }

}  // namespace ccf
