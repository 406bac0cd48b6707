// The checks that all ops of the GPU make of their arguments, the row that these become, and the stream of a call.
#include "arguments_cuda.h"

namespace ccf::cuda {
namespace {

Dtype dtype_on(const Device& device, Name name, const Tensor& tensor) {
    check(device.holds(tensor), name, ": must be on the GPU of the first term");
    return dtype_of(name, tensor);
}

bool aligned(const void* data, std::int64_t bytes) { return reinterpret_cast<std::uintptr_t>(data) % bytes == 0; }

DeviceTerm make_term(Name name, const Tensor& tensor, const Shape& shape, const Device& device) {
    DeviceTerm term{tensor.const_data_ptr(), {}, dtype_on(device, name, tensor), false};
    strides_of(tensor, term.stride);
    const auto& stride = term.stride;
    const bool contiguous = stride[3] == 1 && (shape.height == 1 || stride[2] == shape.width);
    const bool fours = shape.plane() % 4 == 0 && (shape.batch == 1 || stride[0] % 4 == 0) &&
                       (shape.channels == 1 || stride[1] % 4 == 0);
    term.vector = contiguous && fours && aligned(term.data, term.dtype == Dtype::float32 ? 16 : 8);
    return term;
}

const Tensor& first_of(const Tensors& terms) {
    check_count(terms, max_terms);
    check(Device::on_device(terms[0]), Name{"terms", 0}, ": must be on a GPU");
    return terms[0];
}

DeviceRow make_row(const Tensors& terms, const Tensor& table, bool residual, const Device& device) {
    DeviceRow row{};
    row.shape = shape_of({"terms", 0}, terms[0]);
    check(row.shape.plane() < largest_plane, "terms: must have fewer than ", largest_plane, " pixels a plane, got ",
          sizes_of(terms[0]));
    check(row.shape.planes() <= INT32_MAX, "terms: must have fewer planes, got ", sizes_of(terms[0]));
    for (const Tensor& tensor : terms) {
        const Name name{"terms", row.count};
        dtype_on(device, name, tensor);
        check_term(name, tensor, terms[0]);
        row.terms[row.count++] = make_term(name, tensor, row.shape, device);
    }
    check(!residual || row.count == 3, "terms: of a residual must be three (ybar, x, F), got ", row.count);
    row.residual = residual;
    row.table = constant<float>("table", table, ScalarType::Float, {residual ? 2 : 2 * row.count + 1}, device);
    return row;
}

}  // namespace

Call::Call(const Tensors& terms, const Tensor& table, bool residual, std::int64_t handle)
    : device(first_of(terms)), row(make_row(terms, table, residual, device)), stream(device.stream(handle)) {}

Call::Call(const Tensor& out, const Maybe<Tensor>& next, const Tensors& terms, const Tensor& table, bool residual,
           std::int64_t handle)
    : Call(terms, table, residual, handle) {
    const auto output = [&](Name name, const Tensor& tensor, void*& data, Dtype& dtype) {
        dtype = dtype_on(device, name, tensor);
        check_output(name, tensor, terms[0]);
        data = tensor.mutable_data_ptr();
        writes(name, tensor, terms);
        check_apart("table", table);
    };
    output("out", out, row.out, row.out_dtype);
    if (next) output("next", *next, row.next, row.next_dtype);
}

namespace {

// The stream that -1 stands for: torch's current one.
std::int64_t stream(std::int64_t device) {
    return reinterpret_cast<std::int64_t>(current_stream(static_cast<int>(device), -1));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(CCF_LIBRARY, m) { m.def("cuda_stream(int device) -> int"); }
STABLE_TORCH_LIBRARY_IMPL(CCF_LIBRARY, CompositeExplicitAutograd, m) { m.impl("cuda_stream", TORCH_BOX(&stream)); }

}  // namespace ccf::cuda
