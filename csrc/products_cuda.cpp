// torch.ops.ccfast.cuda_products: P = V V^T on rows and columns, with dense V, and V f V^T with factors of coordinates.
#include "arguments_cuda.h"

namespace ccf {
namespace {

using cuda::Call;
using cuda::constant;
using cuda::DenseAxis;
using cuda::Modal;

// The two tensors of an axis are V, (side, rank), and its transpose.
DenseAxis make_axis(const char* name, const Tensors& parts, std::int64_t side, const cuda::Device& device) {
    check(parts.size() == 2, name, ": must be two tensors, got ", parts.size());
    check(parts[0].dim() == 2 && parts[0].size(1) > 0 && parts[0].size(1) <= side, name, ": must be (", side,
          ", rank) with a rank of 1 to ", side, ", got ", sizes_of(parts[0]));
    const std::int64_t rank = parts[0].size(1);
    return {constant<float>({name, 0}, parts[0], ScalarType::Float, {side, rank}, device),
            constant<float>({name, 1}, parts[1], ScalarType::Float, {rank, side}, device), static_cast<int>(side),
            static_cast<int>(rank)};
}

void products(Tensor out, Maybe<Tensor> next, Tensors terms, Tensor table, bool residual, Maybe<Tensors> scales,
              Maybe<Integers> scaled, Maybe<Integers> sets, Maybe<Tensors> factors, double scale, Maybe<Tensor> more,
              Tensors rows, Tensors columns, Tensor work, std::int64_t stream) {
    const Modal modal{sets, factors, scale, more};
    Call call(out, next, {terms, table, residual, scales, scaled}, stream, &modal);
    if (call.empty()) return;
    const Shape& shape = call.row.shape;
    const DenseAxis vertical = make_axis("rows", rows, shape.height, call.device);
    const DenseAxis horizontal = make_axis("columns", columns, shape.width, call.device);
    check(cuda::between_shared(vertical, cuda::between_columns(vertical)) <= cuda::largest_shared,
          "rows: side and rank must be at most ", cuda::largest_between, " together, got ", vertical.side, " and ",
          vertical.rank);
    const cuda::Factors own =
        make_factors(sets_of(call.row), modal, shape.planes(), {shape.planes(), vertical.rank, horizontal.rank},
                     ScalarType::Float, call.device);
    const std::int64_t count = own.sets * shape.planes() * shape.height * horizontal.rank;
    float* const data = workspace("work", work, count, call.device);
    call.writes("work", work, terms);
    call.check_apart("table", table);
    for (std::size_t k = 0; scales && k < scales->size(); ++k)
        call.check_apart({"scales", static_cast<int>(k)}, (*scales)[k]);
    for (int k = 0; k < 2; ++k) call.check_apart({"rows", k}, rows[k]), call.check_apart({"columns", k}, columns[k]);
    modal.for_tensors([&](Name name, const Tensor& tensor) { call.check_apart(name, tensor); });
    cuda::products(call.row, vertical, horizontal, own, data, call.stream);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(CCF_LIBRARY, m) {
    m.def("cuda_products" CCF_DEVICE_ROW CCF_FACTORS
          "Tensor[] rows, Tensor[] columns, Tensor(c!) work, int stream) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(CCF_LIBRARY, CCF_KEY, m) { m.impl("cuda_products", TORCH_BOX(&products)); }

}  // namespace ccf
