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
    DeviceTerm term{tensor.const_data_ptr(), {}, dtype_on(device, name, tensor), false, false, 0, nullptr, {}};
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

void set_scales(DeviceRow& row, const Given& given, const Device& device) {
    const std::size_t count = given.scales ? given.scales->size() : 0, places = given.scaled ? given.scaled->size() : 0;
    check(count == places, "scaled: must be one place for each of scales, got ", places);
    for (std::size_t k = 0; k < count; ++k) {
        const Tensor& scale = (*given.scales)[k];
        const std::int64_t place = (*given.scaled)[k];
        const Name name{"scales", static_cast<int>(k)};
        check(place >= 0 && place < row.count, "scaled: must be places of terms, got ", place);
        DeviceTerm& term = row.terms[place];
        check(!term.scale, "scaled: must differ, got ", place, " twice");
        check(device.holds(scale) && scale.scalar_type() == ScalarType::Float, name,
              ": must be float32 on the GPU of the first term");
        scale_strides(scale, given.terms[0], term.scaling);
        term.scale = static_cast<const float*>(scale.const_data_ptr());
        term.per_element = term.scaling[2] != 0 || term.scaling[3] != 0;
        const std::int64_t last = row.shape.height * term.scaling[2] + row.shape.width * term.scaling[3];
        check(last <= INT32_MAX, name, ": must have planes that span less than 2^31 elements, got strides ",
              term.scaling[2], " and ", term.scaling[3]);
    }
}

void set_sets(DeviceRow& row, const Maybe<Integers>& sets) {
    const std::size_t count = sets ? sets->size() : 0;
    check(count <= static_cast<std::size_t>(row.count), "sets: must be at most one for each term, got ", count);
    row.numbers = row.count - static_cast<int>(count);
    for (std::size_t k = 0; k < count; ++k) {
        check((*sets)[k] >= 0 && (*sets)[k] < max_sets, "sets: must be from 0 to ", max_sets - 1, ", got ", (*sets)[k]);
        row.terms[row.numbers + static_cast<int>(k)].set = static_cast<std::int8_t>((*sets)[k]);
    }
}

DeviceRow make_row(const Given& given, const Device& device, const Modal* modal) {
    const auto& [terms, table, residual, scales, scaled] = given;
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
    row.numbers = row.count;
    if (modal) {
        row.weighted = modal->more.has_value();
        set_sets(row, modal->sets);
    }
    check(!residual || row.numbers == 3, "sets: of a residual must be empty");
    set_scales(row, given, device);
    row.table = constant<float>("table", table, ScalarType::Float, {residual ? 2 : 2 * row.numbers + 1}, device);
    return row;
}

}  // namespace

Call::Call(const Given& given, std::int64_t handle, const Modal* modal)
    : device(first_of(given.terms)), row(make_row(given, device, modal)), stream(device.stream(handle)) {}

Call::Call(const Tensor& out, const Maybe<Tensor>& next, const Given& given, std::int64_t handle, const Modal* modal)
    : Call(given, handle, modal) {
    const Tensors& terms = given.terms;
    const auto output = [&](Name name, const Tensor& tensor, void*& data, Dtype& dtype) {
        dtype = dtype_on(device, name, tensor);
        check_output(name, tensor, terms[0]);
        data = tensor.mutable_data_ptr();
        writes(name, tensor, terms);
        check_apart("table", given.table);
        for (std::size_t k = 0; given.scales && k < given.scales->size(); ++k)
            check_apart({"scales", static_cast<int>(k)}, (*given.scales)[k]);
    };
    output("out", out, row.out, row.out_dtype);
    if (next) output("next", *next, row.next, row.next_dtype);
}

int sets_of(const DeviceRow& row) {
    int sets = 1;
    for (int k = row.numbers; k < row.count; ++k) sets = std::max(sets, row.terms[k].set + 1);
    return sets;
}

Factors make_factors(int sets, const Modal& modal, std::int64_t groups, SizeList more, ScalarType dtype,
                     const Device& device) {
    Factors made{};
    made.sets = sets, made.scale = static_cast<float>(modal.scale);
    const std::int64_t height = more.begin()[1], width = more.begin()[2];
    const int given = modal.factors ? static_cast<int>(modal.factors->size()) : 0;
    check(given <= sets, "factors: must be those of the last of ", sets, " sets, got ", given);
    for (int k = 0; k < given; ++k) {
        const Tensor& factor = (*modal.factors)[k];
        const Name name{"factors", k};
        check(factor.dim() == 3 && (factor.size(0) == 1 || factor.size(0) == groups), name, ": must be (1 or ", groups,
              ", ", height, ", ", width, "), got ", sizes_of(factor));
        const int set = sets - given + k;
        made.data[set] = constant<float>(name, factor, ScalarType::Float, {factor.size(0), height, width}, device);
        made.stride[set] = factor.size(0) == 1 ? 0 : height * width;
    }
    if (modal.more) {
        check(made.data[0], "more: must come with factors of the first set");
        made.more = constant<void>("more", *modal.more, dtype, more, device);
    }
    return made;
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
