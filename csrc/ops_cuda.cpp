// The ops of torch.ops.ccfast that run on a GPU: schemas, checks, and the way from tensors to kernels. Stable ABI only.
// All write to given buffers and queue their kernels on a stream; none allocates, waits, or reads device memory.
//
// Built with CCF_EMULATED (the tests) the same ops take tensors on the CPU, in a namespace of their own, and run the
// kernels in the emulator.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "checks.h"
#include "cuda/device.h"
#include "cuda/kernels.h"

namespace {

using ccf::check;
using ccf::Dtype;
using ccf::Name;
using ccf::same_sizes;
using ccf::Shape;
using ccf::sizes_of;
using ccf::cuda::BandedAxes;
using ccf::cuda::CyclicBand;
using ccf::cuda::DeviceRow;
using ccf::cuda::DeviceTerm;
using ccf::cuda::Groups;
using ccf::cuda::Spectral;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;
using Integers = std::vector<std::int64_t>;

constexpr std::int64_t largest_plane = 1 << 26;  // pixels: a grid has 65535 blocks of 1024 in y

// -------------------------------------------------------------------------------------------------- tensors
// The device of a call is that of its first term; every other tensor must be on it.
class Device {
public:
    explicit Device(const Tensor& tensor) : index_(index_of(tensor)), guard_(make_guard(index_)) {
        ccf::cuda::use_device(index_);
    }

    void* stream(std::int64_t handle) const { return ccf::cuda::current_stream(index_, handle); }
    bool holds(const Tensor& tensor) const { return on_device(tensor) && index_of(tensor) == index_; }

#if defined(CCF_EMULATED)
    static bool on_device(const Tensor& tensor) { return tensor.is_cpu(); }

private:
    struct Guard {};
    static int index_of(const Tensor&) { return 0; }
    static Guard make_guard(int) { return {}; }
#else
    static bool on_device(const Tensor& tensor) { return tensor.is_cuda(); }

private:
    using Guard = torch::stable::accelerator::DeviceGuard;
    static int index_of(const Tensor& tensor) { return tensor.get_device_index(); }
    static Guard make_guard(int index) { return Guard(index); }
#endif

    int index_;
    Guard guard_;
};

Dtype dtype_of(Name name, const Tensor& tensor, const Device& device) {
    check(device.holds(tensor), name, ": must be on the GPU of the first term");
    switch (tensor.scalar_type()) {
        case ScalarType::Float: return Dtype::float32;
        case ScalarType::BFloat16: return Dtype::bfloat16;
        case ScalarType::Half: return Dtype::float16;
        default: check(false, name, ": must be float32, bfloat16 or float16");
    }
    return {};
}

template <class T>
const T* constant(Name name, const Tensor& tensor, ScalarType dtype, std::int64_t count, const Device& device) {
    check(device.holds(tensor) && tensor.is_contiguous() && tensor.scalar_type() == dtype, name,
          ": must be contiguous, on the GPU of the first term and of dtype ", torch::headeronly::toString(dtype));
    check(tensor.numel() == count, name, ": must have ", count, " elements, got shape ", sizes_of(tensor));
    return static_cast<const T*>(tensor.const_data_ptr());
}

bool aligned(const void* data, std::int64_t bytes) { return reinterpret_cast<std::uintptr_t>(data) % bytes == 0; }

DeviceTerm make_term(Name name, const Tensor& tensor, const Shape& shape, const Device& device) {
    DeviceTerm term{tensor.const_data_ptr(), {}, dtype_of(name, tensor, device), false};
    ccf::strides_of(tensor, term.stride);
    const auto& stride = term.stride;
    const bool contiguous = stride[3] == 1 && (shape.height == 1 || stride[2] == shape.width);
    const bool fours = shape.plane() % 4 == 0 && (shape.batch == 1 || stride[0] % 4 == 0) &&
                       (shape.channels == 1 || stride[1] % 4 == 0);
    term.vector = contiguous && fours && aligned(term.data, term.dtype == Dtype::float32 ? 16 : 8);
    return term;
}

const Tensor& first_of(const Tensors& terms) {
    check(!terms.empty() && terms.size() <= ccf::cuda::max_terms, "terms: must be 1 to ", ccf::cuda::max_terms,
          " tensors, got ", terms.size());
    check(Device::on_device(terms[0]), Name{"terms", 0}, ": must be on a GPU");
    return terms[0];
}

DeviceRow make_row(const Tensors& terms, const Tensor& table, bool residual, const Device& device) {
    DeviceRow row{};
    row.shape = ccf::shape_of({"terms", 0}, terms[0]);
    check(row.shape.plane() < largest_plane, "terms: must have fewer than ", largest_plane, " pixels a plane, got ",
          sizes_of(terms[0]));
    check(row.shape.planes() <= INT32_MAX, "terms: must have fewer planes, got ", sizes_of(terms[0]));
    for (const Tensor& tensor : terms) {
        const Name name{"terms", row.count};
        check(same_sizes(tensor, terms[0]), name, ": must be of shape ", sizes_of(terms[0]), ", got ",
              sizes_of(tensor));
        row.terms[row.count++] = make_term(name, tensor, row.shape, device);
    }
    check(!residual || row.count == 3, "terms: of a residual must be three (ybar, x, F), got ", row.count);
    row.residual = residual;
    row.table = constant<float>({"table"}, table, ScalarType::Float, residual ? 2 : 2 * row.count + 1, device);
    return row;
}

void set_outputs(DeviceRow& row, const Tensors& terms, const Tensor& out, const std::optional<Tensor>& next,
                 const Device& device) {
    const auto output = [&](Name name, const Tensor& tensor, void*& data, Dtype& dtype) {
        check(same_sizes(tensor, terms[0]), name, ": must be of the terms' shape ", sizes_of(terms[0]), ", got ",
              sizes_of(tensor));
        check(tensor.is_contiguous(), name, ": must be contiguous");
        dtype = dtype_of(name, tensor, device);
        data = tensor.mutable_data_ptr();
        for (int k = 0; k < row.count; ++k)
            check(!data || row.terms[k].data != data, name, ": must not be terms[", k, "]");
    };
    output({"out"}, out, row.out, row.out_dtype);
    if (next) output({"next"}, *next, row.next, row.next_dtype);
}

// A row, its device, and its stream: what every op begins with.
struct Call {
    Device device;
    DeviceRow row;
    void* stream;

    Call(const Tensors& terms, const Tensor& table, bool residual, std::int64_t handle)
        : device(first_of(terms)), row(make_row(terms, table, residual, device)), stream(device.stream(handle)) {}
    Call(const Tensor& out, const std::optional<Tensor>& next, const Tensors& terms, const Tensor& table, bool residual,
         std::int64_t handle)
        : Call(terms, table, residual, handle) {
        set_outputs(row, terms, out, next, device);
    }
    bool empty() const { return !row.shape.planes() || !row.shape.plane(); }
};

// -------------------------------------------------------------------------------------------------- fourier
Groups make_groups(const Shape& shape, std::int64_t groups) {
    check(groups > 0 && shape.planes() % groups == 0, "groups: must divide ", shape.planes(), " planes, got ", groups);
    return {static_cast<int>(groups), static_cast<int>(shape.planes() / groups)};
}

// (1 or groups, H, W), complex with a decimation
Spectral make_spectral(const Tensor& data, const Shape& shape, std::int64_t groups, bool complex, const Device& device) {
    check(data.dim() == 3 && (data.size(0) == 1 || data.size(0) == groups),
          "constant: must be (1 or groups, H, W), got ", sizes_of(data));
    const auto dtype = complex ? ScalarType::ComplexFloat : ScalarType::Float;
    const void* values = constant<void>({"constant"}, data, dtype, data.size(0) * shape.plane(), device);
    return {values, data.size(0) == 1 ? 0 : shape.plane(), 1, nullptr, nullptr};
}

const void* make_roots(Name name, const Tensor& roots, std::int64_t side, const Device& device) {
    return constant<void>(name, roots, ScalarType::ComplexFloat, ccf::cuda::root_count(static_cast<int>(side)), device);
}

void fourier(Tensor out, std::optional<Tensor> next, Tensors terms, Tensor table, bool residual, Tensor data,
             Tensor row_roots, Tensor column_roots, Tensor scratch, std::int64_t groups, std::int64_t factor,
             std::int64_t stream) {
    const Call call(out, next, terms, table, residual, stream);
    if (call.empty()) return;
    const Shape& shape = call.row.shape;
    check(ccf::cuda::has_transform(shape.height) && ccf::cuda::has_transform(shape.width),
          "terms: sides must be powers of two from ", ccf::cuda::smallest_side, " to ", ccf::cuda::largest_side,
          ", got ", sizes_of(terms[0]));
    check(factor == 1 || factor == 2 || factor == 4 || (factor == 8 && shape.height < 2048),
          "factor: must be 1, 2, 4 or, below 2048 rows, 8, got ", factor);
    Spectral spectral = make_spectral(data, shape, groups, factor > 1, call.device);
    spectral.factor = static_cast<int>(factor);
    spectral.row_roots = make_roots({"row_roots"}, row_roots, shape.width, call.device);
    spectral.column_roots = make_roots({"column_roots"}, column_roots, shape.height, call.device);
    check(scratch.dim() == 3 && scratch.size(0) > 0 && scratch.size(0) <= UINT16_MAX,
          "scratch: must be (pairs, H, W) with 1 to 65535 pairs, got ", sizes_of(scratch));
    constant<void>({"scratch"}, scratch, ScalarType::ComplexFloat, scratch.size(0) * shape.plane(), call.device);
    ccf::cuda::fourier(call.row, make_groups(shape, groups), spectral, scratch.mutable_data_ptr(),
                       static_cast<int>(scratch.size(0)), call.stream);
}

void* make_spectrum(const Tensor& spectrum, const Shape& shape, const Groups& groups, const Device& device) {
    constant<void>({"spectrum"}, spectrum, ScalarType::ComplexFloat, groups.all_pairs() * shape.plane(), device);
    return spectrum.mutable_data_ptr();
}

void fourier_pack(Tensor spectrum, Tensors terms, Tensor table, bool residual, std::int64_t groups,
                  std::int64_t stream) {
    const Call call(terms, table, residual, stream);
    if (call.empty()) return;
    const Groups made = make_groups(call.row.shape, groups);
    ccf::cuda::fourier_pack(call.row, made, make_spectrum(spectrum, call.row.shape, made, call.device), call.stream);
}

void fourier_unpack(Tensor out, std::optional<Tensor> next, Tensors terms, Tensor table, bool residual, Tensor spectrum,
                    std::int64_t groups, std::int64_t stream) {
    const Call call(out, next, terms, table, residual, stream);
    if (call.empty()) return;
    const Groups made = make_groups(call.row.shape, groups);
    ccf::cuda::fourier_unpack(call.row, made, make_spectrum(spectrum, call.row.shape, made, call.device), call.stream);
}

// A stack of complex planes (groups * pairs, H, W) as the kernels see it: every plane a pair of real ones.
Shape spectrum_shape(const Tensor& spectrum) {
    check(Device::on_device(spectrum), "spectrum: must be on a GPU");
    check(spectrum.dim() == 3, "spectrum: must be (planes, H, W), got ", sizes_of(spectrum));
    const Shape shape{1, 2 * spectrum.size(0), spectrum.size(1), spectrum.size(2)};
    check(shape.plane() < largest_plane, "spectrum: must have fewer than ", largest_plane, " pixels a plane, got ",
          sizes_of(spectrum));
    return shape;
}

void fourier_multiply(Tensor spectrum, Tensor multiplier, std::int64_t groups, std::int64_t stream) {
    const Shape shape = spectrum_shape(spectrum);
    if (!shape.planes() || !shape.plane()) return;
    const Device device(spectrum);
    const Groups made = make_groups(shape, groups);
    const Spectral spectral = make_spectral(multiplier, shape, groups, false, device);
    ccf::cuda::fourier_multiply(shape, made, spectral, make_spectrum(spectrum, shape, made, device),
                                device.stream(stream));
}

void fourier_alias(Tensor spectrum, Tensor basis, std::int64_t groups, std::int64_t low_height, std::int64_t low_width,
                   std::int64_t stream) {
    const Shape shape = spectrum_shape(spectrum);
    if (!shape.planes() || !shape.plane()) return;
    check(low_height > 0 && low_width > 0 && shape.height % low_height == 0 && shape.width % low_width == 0,
          "low_height, low_width: must divide the sides of ", sizes_of(spectrum), ", got ", low_height, ", ",
          low_width);
    const Device device(spectrum);
    const Groups made = make_groups(shape, groups);
    const Spectral spectral = make_spectral(basis, shape, groups, true, device);
    ccf::cuda::fourier_alias(shape, made, spectral, static_cast<int>(low_height), static_cast<int>(low_width),
                             make_spectrum(spectrum, shape, made, device), device.stream(stream));
}

// -------------------------------------------------------------------------------------------------- separable
// Taps (width, rows), starts (rows) and bases (tiles) of a band; that these lie inside the matrix is not looked up, as
// it would wait for the device: kernels/cuda/bands.py makes them.
CyclicBand make_band(const char* name, int place, const Tensors& parts, const Integers& layout, std::int64_t rows,
                     std::int64_t columns, const Device& device) {
    const Tensor &taps = parts[3 * place], &start = parts[3 * place + 1], &base = parts[3 * place + 2];
    const std::int64_t tile = layout[2 * place], extent = layout[2 * place + 1];
    check(tile == 8 || tile == 16 || tile == 32, name, ": tiles must be 8, 16 or 32, got ", tile);
    check(extent > 0 && extent < 2 * columns, name, ": extents must be below twice ", columns, " columns, got ", extent);
    check(taps.dim() == 2 && taps.size(0) > 0 && taps.size(0) <= extent, name,
          ": taps must be (width, rows), width 1 to the extent ", extent, ", got ", sizes_of(taps));
    const std::int64_t width = taps.size(0), tiles = (rows + tile - 1) / tile;
    return {constant<float>({name, 3 * place}, taps, ScalarType::Float, width * rows, device),
            constant<std::int32_t>({name, 3 * place + 1}, start, ScalarType::Int, rows, device),
            constant<std::int32_t>({name, 3 * place + 2}, base, ScalarType::Int, tiles, device),
            static_cast<int>(rows),
            static_cast<int>(columns),
            static_cast<int>(width),
            static_cast<int>(tile),
            static_cast<int>(extent)};
}

BandedAxes make_axes(const char* name, const Tensors& parts, const Integers& layout, std::int64_t high,
                     const Device& device) {
    check(parts.size() == 9 && layout.size() == 6, name, ": must be nine tensors and six numbers, got ", parts.size(),
          " and ", layout.size());
    const std::int64_t low = parts[1].numel();
    check(low > 0 && low <= high, name, ": must have 1 to ", high, " rows, got ", low);
    return {make_band(name, 0, parts, layout, low, high, device), make_band(name, 1, parts, layout, low, low, device),
            make_band(name, 2, parts, layout, high, low, device)};
}

void separable(Tensor out, std::optional<Tensor> next, Tensors terms, Tensor table, bool residual, Tensors rows,
               Tensors columns, Integers rows_layout, Integers columns_layout, Tensor low, std::int64_t stream) {
    const Call call(out, next, terms, table, residual, stream);
    if (call.empty()) return;
    const BandedAxes vertical = make_axes("rows", rows, rows_layout, call.row.shape.height, call.device);
    const BandedAxes horizontal = make_axes("columns", columns, columns_layout, call.row.shape.width, call.device);
    const CyclicBand* const pairs[][2] = {{&vertical.down, &horizontal.down},
                                          {&vertical.inverse, &horizontal.inverse},
                                          {&vertical.up, &horizontal.up}};
    for (const auto& [r, c] : pairs) {
        check(r->tile == c->tile, "layouts: tiles must be the same for rows and columns, got ", r->tile, " and ",
              c->tile);
        check(banded_shared(*r, *c) <= ccf::cuda::largest_shared, "layouts: a tile must take at most ", ccf::cuda::largest_shared,
              " bytes, got ", banded_shared(*r, *c));
    }
    const std::int64_t count = call.row.shape.planes() * vertical.down.rows * horizontal.down.rows;
    constant<float>({"low"}, low, ScalarType::Float, 2 * count, call.device);
    ccf::cuda::separable(call.row, vertical, horizontal, static_cast<float*>(low.mutable_data_ptr()), call.stream);
}

// -------------------------------------------------------------------------------------------------- around any P
void combine(Tensor field, Tensors terms, Tensor table, bool residual, std::int64_t stream) {
    const Call call(terms, table, residual, stream);
    if (call.empty()) return;
    constant<float>({"field"}, field, ScalarType::Float, call.row.shape.planes() * call.row.shape.plane(), call.device);
    ccf::cuda::combine(call.row, static_cast<float*>(field.mutable_data_ptr()), call.stream);
}

// Without a field P(...) = 0: a linear combination.
void finish(Tensor out, std::optional<Tensor> next, Tensors terms, Tensor table, bool residual,
            std::optional<Tensor> field, std::int64_t stream) {
    const Call call(out, next, terms, table, residual, stream);
    if (call.empty()) return;
    const std::int64_t count = call.row.shape.planes() * call.row.shape.plane();
    const float* data = field ? constant<float>({"field"}, *field, ScalarType::Float, count, call.device) : nullptr;
    ccf::cuda::finish(call.row, data, call.stream);
}

// What -1 in place of a stream stands for.
std::int64_t stream(std::int64_t device) {
    return reinterpret_cast<std::int64_t>(ccf::cuda::current_stream(static_cast<int>(device), -1));
}

}  // namespace

#if defined(CCF_EMULATED)
#define CCF_LIBRARY ccfast_emulated
#define CCF_KEY CPU
#else
#define CCF_LIBRARY ccfast
#define CCF_KEY CUDA
#endif

#define CCF_TERMS "Tensor[] terms, Tensor table, bool residual, "
#define CCF_ROW "(Tensor(a!) out, Tensor(b!)? next, " CCF_TERMS

STABLE_TORCH_LIBRARY_FRAGMENT(CCF_LIBRARY, m) {
    // out = sum_k a_k terms_k + P(sum_k b_k terms_k), next = c_in out, table = [a, b, c_in]; with residual
    // out = ybar - P(p x + q F), terms = [ybar, x, F], table = [p, q]. stream: a handle, or -1 for torch's current one.
    m.def("cuda_fourier" CCF_ROW
          "Tensor constant, Tensor row_roots, Tensor column_roots, Tensor(c!) scratch, int groups, int factor, "
          "int stream) -> ()");
    m.def("cuda_fourier_pack(Tensor(a!) spectrum, " CCF_TERMS "int groups, int stream) -> ()");
    m.def("cuda_fourier_multiply(Tensor(a!) spectrum, Tensor multiplier, int groups, int stream) -> ()");
    m.def(
        "cuda_fourier_alias(Tensor(a!) spectrum, Tensor basis, int groups, int low_height, int low_width, int stream) "
        "-> ()");
    m.def("cuda_fourier_unpack" CCF_ROW "Tensor spectrum, int groups, int stream) -> ()");
    m.def("cuda_separable" CCF_ROW
          "Tensor[] rows, Tensor[] columns, int[] rows_layout, int[] columns_layout, Tensor(c!) low, int stream) -> ()");
    m.def("cuda_combine(Tensor(a!) field, " CCF_TERMS "int stream) -> ()");
    m.def("cuda_finish" CCF_ROW "Tensor? field, int stream) -> ()");
    m.def("cuda_stream(int device) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(CCF_LIBRARY, CCF_KEY, m) {
    m.impl("cuda_fourier", TORCH_BOX(&fourier));
    m.impl("cuda_fourier_pack", TORCH_BOX(&fourier_pack));
    m.impl("cuda_fourier_multiply", TORCH_BOX(&fourier_multiply));
    m.impl("cuda_fourier_alias", TORCH_BOX(&fourier_alias));
    m.impl("cuda_fourier_unpack", TORCH_BOX(&fourier_unpack));
    m.impl("cuda_separable", TORCH_BOX(&separable));
    m.impl("cuda_combine", TORCH_BOX(&combine));
    m.impl("cuda_finish", TORCH_BOX(&finish));
}

STABLE_TORCH_LIBRARY_IMPL(CCF_LIBRARY, CompositeExplicitAutograd, m) { m.impl("cuda_stream", TORCH_BOX(&stream)); }
