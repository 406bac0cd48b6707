// torch.ops.ccfast.cuda_combine and cuda_finish: the sums before and after any P.
#include "arguments_cuda.h"

namespace ccf {
namespace {

using cuda::Call;

const float* make_field(const Tensor& field, const Call& call, const Tensors& terms) {
    check(same_sizes(field, terms[0]), "field: must be of the terms' shape ", sizes_of(terms[0]), ", got ",
          sizes_of(field));
    check_data("field", field, ScalarType::Float, call.device.holds(field), "on the GPU of the first term");
    return static_cast<const float*>(field.const_data_ptr());
}

void combine(Tensor field, Tensors terms, Tensor table, bool residual, Maybe<Tensors> scales, Maybe<Integers> scaled,
             std::int64_t stream) {
    Call call({terms, table, residual, scales, scaled}, stream);
    if (call.empty()) return;
    make_field(field, call, terms);
    call.writes("field", field, terms);
    call.check_apart("table", table);
    for (std::size_t k = 0; scales && k < scales->size(); ++k)
        call.check_apart({"scales", static_cast<int>(k)}, (*scales)[k]);
    cuda::combine(call.row, static_cast<float*>(field.mutable_data_ptr()), call.stream);
}

// Without a field P(...) is zero and the row is a linear combination.
void finish(Tensor out, Maybe<Tensor> next, Tensors terms, Tensor table, bool residual, Maybe<Tensors> scales,
            Maybe<Integers> scaled, Maybe<Tensor> field, std::int64_t stream) {
    const Call call(out, next, {terms, table, residual, scales, scaled}, stream);
    if (call.empty()) return;
    if (field) call.check_apart("field", *field);
    cuda::finish(call.row, field ? make_field(*field, call, terms) : nullptr, call.stream);
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
