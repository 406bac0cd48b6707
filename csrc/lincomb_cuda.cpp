// torch.ops.ccfast.cuda_combine and cuda_finish: the sums before and after any P.
#include "arguments_cuda.h"

namespace ccf {
namespace {

using cuda::Call;
using cuda::constant;

void combine(Tensor field, Tensors terms, Tensor table, bool residual, std::int64_t stream) {
    const Call call(terms, table, residual, stream);
    if (call.empty()) return;
    constant<float>("field", field, ScalarType::Float, call.elements(), call.device);
    cuda::combine(call.row, static_cast<float*>(field.mutable_data_ptr()), call.stream);
}

// Without a field P(...) = 0: a linear combination.
void finish(Tensor out, Maybe<Tensor> next, Tensors terms, Tensor table, bool residual, Maybe<Tensor> field,
            std::int64_t stream) {
    const Call call(out, next, terms, table, residual, stream);
    if (call.empty()) return;
    const float* data =
        field ? constant<float>("field", *field, ScalarType::Float, call.elements(), call.device) : nullptr;
    cuda::finish(call.row, data, call.stream);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(CCF_LIBRARY, m) {
    m.def("cuda_combine(Tensor(a!) field, " CCF_TERMS "int stream) -> ()");
    m.def("cuda_finish" CCF_DEVICE_ROW "Tensor? field, int stream) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(CCF_LIBRARY, CCF_KEY, m) {
    m.impl("cuda_combine", TORCH_BOX(&combine));
    m.impl("cuda_finish", TORCH_BOX(&finish));
}

}  // namespace ccf
