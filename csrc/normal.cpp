// torch.ops.ccfast.normal: unit noise, whose stream depends on the seed, sample and draw of each image alone.
#include "arguments.h"

namespace ccf {
namespace {

constexpr std::int64_t words = std::int64_t{1} << 32;  // A counter of Philox stays below it.

void normal(Tensor out, Tensor seeds, Tensor samples, Tensor draws, std::int64_t step) {
    check(out.dim() > 0 && out.is_contiguous() && out.is_cpu() && out.scalar_type() == ScalarType::Float,
          "out: must be (B, ...), contiguous, float32 and on the CPU");
    refuse_grad("out", out);
    check_storage("out", out);
    check(step >= 0 && step < words, "step: must be in [0, 2^32), got ", step);
    const std::int64_t batch = out.size(0);
    check(!batch || out.numel() / batch <= 4 * words, "out: must have at most 2^34 elements an image, got ",
          sizes_of(out));
    const Written written("out", out);
    const auto key = [&](Name name, const Tensor& tensor, bool any) {
        const auto* data = constant<std::int64_t>(name, tensor, ScalarType::Long, {batch});
        written.check_apart(name, tensor);
        for (std::int64_t b = 0; !any && b < batch; ++b)
            check(data[b] >= 0 && data[b] < words, name, ": must be in [0, 2^32), got ", data[b]);
        return data;
    };
    const NoiseKeys keys{key("seeds", seeds, true), key("samples", samples, false), key("draws", draws, false), step};
    if (batch) cpu::normal(static_cast<float*>(out.mutable_data_ptr()), batch, out.numel() / batch, keys);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ccfast, m) {
    m.def("normal(Tensor(a!) out, Tensor seeds, Tensor samples, Tensor draws, int step) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("normal", TORCH_BOX(&normal)); }

}  // namespace ccf
