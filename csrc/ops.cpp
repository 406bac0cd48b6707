// The ops of torch.ops.ccfast: schemas, checks, and the way from tensors to kernels. Stable ABI only, so that one build
// serves every torch from 2.10 on. All ops write to given buffers; none allocates a tensor.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "checks.h"
#include "cpu/kernels.h"

namespace {

using ccf::Band;
using ccf::BandedAxis;
using ccf::check;
using ccf::Dtype;
using ccf::Name;
using ccf::Packing;
using ccf::Row;
using ccf::same_sizes;
using ccf::Shape;
using ccf::shape_of;
using ccf::sizes_of;
using ccf::strides_of;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;
using Numbers = std::vector<double>;
using Places = std::vector<std::int64_t>;
template <class T>
using Some = std::optional<T>;  // None is read faster than an empty list

// No op has a derivative: what requires grad would silently lose it. The stable ABI does not show requires_grad, so that
// an op written in Python is asked, and only where grad mode is on, which the sampling loop is not.
void refuse_grad(const Tensors& tensors) {
    if (!aoti_torch_grad_mode_is_enabled()) return;
    std::array<StableIValue, 1> stack{torch::stable::detail::from(tensors)};
    TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("ccfast::any_requires_grad", "", stack.data(), TORCH_ABI_VERSION));
    check(!torch::stable::detail::to<bool>(stack[0]),
          "ccfast: its ops cannot be differentiated, but an input requires grad; pass x.detach() or use no_grad");
}
void refuse_grad(const Tensor& tensor) {
    if (aoti_torch_grad_mode_is_enabled()) refuse_grad(Tensors{tensor});
}

// -------------------------------------------------------------------------------------------------- rows
Dtype dtype_of(Name name, const Tensor& tensor) {
    check(tensor.is_cpu(), name, ": must be on the CPU");
    switch (tensor.scalar_type()) {
        case ScalarType::Float: return Dtype::float32;
        case ScalarType::BFloat16: return Dtype::bfloat16;
        case ScalarType::Half: return Dtype::float16;
        default: check(false, name, ": must be float32, bfloat16 or float16");
    }
    return {};
}

// `scales` multiply both coefficients of the terms whose places `scaled` lists.
struct Scales {
    const Some<Tensors>& tensors;
    const Some<Places>& places;

    std::size_t count() const { return tensors ? tensors->size() : 0; }
};

// One number a sample, or one an element, which is repeated along dimensions of size 1 and the one that it may lack.
void set_scale(ccf::Term& term, const Tensor& scale, const Tensor& like) {
    check(scale.scalar_type() == ScalarType::Float && scale.is_cpu(), "scales: must be float32 on the CPU");
    const std::int64_t dims = scale.dim(), missing = like.dim() - dims;
    term.scale = static_cast<const float*>(scale.const_data_ptr());
    term.scale_per_element = dims != 1;
    std::fill_n(term.scale_stride, 4, 0);
    bool fits = dims == 1 ? scale.size(0) == like.size(0) : missing == 0 || missing == 1;
    if (dims == 1) term.scale_stride[0] = scale.stride(0);
    for (std::int64_t d = 0; fits && dims > 1 && d < dims; ++d) {
        const std::int64_t at = d + missing, size = scale.size(d);
        fits = size == 1 || size == like.size(at);
        // a signal has no rows: its third dimension is the fourth of Shape
        if (size != 1) term.scale_stride[like.dim() == 3 && at == 2 ? 3 : at] = scale.stride(d);
    }
    check(fits, "scales: must be (B,), an image or a batch of images to fit ", sizes_of(like), ", got ",
          sizes_of(scale));
}

Row make_row(const Tensors& terms, const Numbers& direct, const Numbers& projected, const Scales& scales) {
    check(!terms.empty() && terms.size() <= ccf::max_terms, "terms: must be 1 to ", ccf::max_terms, " tensors, got ",
          terms.size());
    check(direct.empty() || direct.size() == terms.size(), "direct: must be one number for each term, got ",
          direct.size());
    check(projected.empty() || projected.size() == terms.size(), "projected: must be one number for each term, got ",
          projected.size());
    Row row;  // of the terms only those in use are set: a call has a few microseconds in all
    row.shape = shape_of({"terms", 0}, terms[0]);
    row.count = 0, row.out = row.next = nullptr, row.out_dtype = row.next_dtype = Dtype::float32, row.c_in = 1.0f;
    for (const Tensor& tensor : terms) {
        const int k = row.count++;
        const Name name{"terms", k};
        check(same_sizes(tensor, terms[0]), name, ": must be of shape ", sizes_of(terms[0]), ", got ",
              sizes_of(tensor));
        ccf::Term& term = row.terms[k];
        term.data = tensor.const_data_ptr();
        term.dtype = dtype_of(name, tensor);
        strides_of(tensor, term.stride);
        term.direct = direct.empty() ? 0.0f : static_cast<float>(direct[k]);
        term.projected = projected.empty() ? 0.0f : static_cast<float>(projected[k]);
        term.scale = nullptr, term.scale_per_element = false;
    }
    refuse_grad(terms);
    const std::size_t places = scales.places ? scales.places->size() : 0;
    check(scales.count() == places, "scaled: must be one place for each of scales, got ", places);
    for (std::size_t k = 0; k < places; ++k) {
        const std::int64_t place = (*scales.places)[k];
        refuse_grad((*scales.tensors)[k]);
        check(place >= 0 && place < row.count, "scaled: must be places of terms, got ", place);
        check(!row.terms[place].scale, "scaled: must differ, got ", place, " twice");
        set_scale(row.terms[place], (*scales.tensors)[k], terms[0]);
    }
    return row;
}

// in_place: out may be a contiguous float32 term, for an op that reads no other element of it than the one it writes.
void set_outputs(Row& row, const Tensor& like, const Tensor& out, const std::optional<Tensor>& next, double c_in,
                 const Tensors& terms, bool in_place) {
    const auto output = [&](Name name, const Tensor& tensor, void*& data, Dtype& dtype) {
        refuse_grad(tensor);
        check(same_sizes(tensor, like), name, ": must be of the terms' shape ", sizes_of(like), ", got ",
              sizes_of(tensor));
        check(tensor.is_contiguous(), name, ": must be contiguous");
        dtype = dtype_of(name, tensor);
        data = tensor.mutable_data_ptr();
        for (int k = 0; k < row.count; ++k) {
            const bool itself = in_place && row.terms[k].dtype == Dtype::float32 && dtype == Dtype::float32 &&
                                terms[k].is_contiguous();
            check(!data || row.terms[k].data != data || itself, name, ": must not be terms[", k, "]");
        }
    };
    output({"out"}, out, row.out, row.out_dtype);
    if (next) output({"next"}, *next, row.next, row.next_dtype);
    row.c_in = static_cast<float>(c_in);
}

Row make_row(const Tensor& out, const std::optional<Tensor>& next, double c_in, const Tensors& terms,
             const Numbers& direct, const Numbers& projected, const Scales& scales, bool in_place = false) {
    Row row = make_row(terms, direct, projected, scales);
    set_outputs(row, terms[0], out, next, c_in, terms, in_place);
    return row;
}

template <class T>
const T* constant(const char* name, const Tensor& tensor, ScalarType dtype, std::int64_t count) {
    refuse_grad(tensor);
    check(tensor.is_cpu() && tensor.is_contiguous() && tensor.scalar_type() == dtype, name,
          ": must be contiguous, on the CPU and of dtype ", torch::headeronly::toString(dtype));
    check(tensor.numel() == count, name, ": must have ", count, " elements, got shape ", sizes_of(tensor));
    return static_cast<const T*>(tensor.const_data_ptr());
}

// -------------------------------------------------------------------------------------------------- ops
void lincomb(Tensor out, std::optional<Tensor> next, double c_in, Tensors terms, Numbers direct, Some<Tensors> scales,
             Some<Places> scaled) {
    ccf::cpu::lincomb(make_row(out, next, c_in, terms, direct, {}, {scales, scaled}, true));
}

void mask(Tensor out, std::optional<Tensor> next, double c_in, Tensors terms, Numbers direct, Numbers projected,
          Some<Tensors> scales, Some<Places> scaled, Tensor mask) {
    const Row row = make_row(out, next, c_in, terms, direct, projected, {scales, scaled});
    const Shape& shape = row.shape;
    const bool own = mask.dim() == out.dim();  // one for each image
    check(own || mask.dim() == out.dim() - 1, "mask: must be an image or a batch of images, got ", sizes_of(mask));
    const std::int64_t channels = mask.size(own ? 1 : 0);
    check((!own || mask.size(0) == shape.batch) && (channels == 1 || channels == shape.channels),
          "mask: must fit out, got ", sizes_of(mask), " for ", sizes_of(out));
    const std::int64_t count = (own ? shape.batch : 1) * channels * shape.plane();
    const auto* data = constant<float>("mask", mask, ScalarType::Float, count);
    ccf::cpu::mask(row, {data, own ? channels * shape.plane() : 0, channels == 1 ? 0 : shape.plane()});
}

void block(Tensor out, std::optional<Tensor> next, double c_in, Tensors terms, Numbers direct, Numbers projected,
           Some<Tensors> scales, Some<Places> scaled, std::int64_t height, std::int64_t width) {
    const Row row = make_row(out, next, c_in, terms, direct, projected, {scales, scaled});
    check(height > 0 && width > 0 && row.shape.height % height == 0 && row.shape.width % width == 0,
          "height, width: must divide the sides of ", sizes_of(out), ", got ", height, ", ", width);
    ccf::cpu::block(row, height, width);
}

void channel(Tensor out, std::optional<Tensor> next, double c_in, Tensors terms, Numbers direct, Numbers projected,
             Some<Tensors> scales, Some<Places> scaled, Tensor direction) {
    const Row row = make_row(out, next, c_in, terms, direct, projected, {scales, scaled});
    ccf::cpu::channel(row, constant<float>("direction", direction, ScalarType::Float, row.shape.channels));
}

// Taps (rows, width) and starts (rows): the band must lie inside the columns.
Band band(const char* name, const Tensor& taps, const Tensor& starts, std::int64_t rows, std::int64_t columns) {
    check(taps.dim() == 2, name, ": must be (rows, width), got ", sizes_of(taps));
    const std::int64_t width = taps.size(1);
    const Band band{constant<float>(name, taps, ScalarType::Float, rows * width),
                    constant<std::int64_t>(name, starts, ScalarType::Long, rows), rows, width};
    for (std::int64_t i = 0; i < rows; ++i)
        check(band.start[i] >= 0 && band.start[i] + width <= columns, name, ": row ", i, " leaves the matrix");
    return band;
}

// An axis: taps and starts of H, taps and starts of H^T, (H H^T)^-1.
BandedAxis banded_axis(const char* name, const Tensors& parts, std::int64_t high) {
    check(parts.size() == 5, name, ": must be five tensors, got ", parts.size());
    const std::int64_t low = parts[1].numel();
    check(low > 0, name, ": must have a row");
    return {band(name, parts[0], parts[1], low, high), band(name, parts[2], parts[3], high, low),
            constant<float>(name, parts[4], ScalarType::Float, low * low)};
}

void separable(Tensor out, std::optional<Tensor> next, double c_in, Tensors terms, Numbers direct, Numbers projected,
               Some<Tensors> scales, Some<Places> scaled, Tensors rows, Tensors columns, Tensor scratch) {
    const Row row = make_row(out, next, c_in, terms, direct, projected, {scales, scaled});
    const BandedAxis vertical = banded_axis("rows", rows, row.shape.height);
    const BandedAxis horizontal = banded_axis("columns", columns, row.shape.width);
    const std::int64_t low = vertical.down.rows * horizontal.down.rows;
    constant<float>("scratch", scratch, ScalarType::Float, row.shape.planes() * low);
    ccf::cpu::separable(row, vertical, horizontal, static_cast<float*>(scratch.mutable_data_ptr()));
}

// groups: sets of planes that share a multiplier; only planes of one group are packed together.
Packing packing(const char* name, const Tensor& spectrum, const Shape& shape, std::int64_t groups) {
    check(groups > 0 && shape.planes() % groups == 0, "groups: must divide ", shape.planes(), " planes, got ", groups);
    Packing result{nullptr, groups, shape.planes() / groups};
    constant<float>(name, spectrum, ScalarType::ComplexFloat, groups * result.pairs() * shape.plane());
    result.spectrum = static_cast<float*>(spectrum.mutable_data_ptr());
    return result;
}

void fourier_pack(Tensor spectrum, Tensors terms, Numbers projected, Some<Tensors> scales, Some<Places> scaled,
                  std::int64_t groups) {
    const Row row = make_row(terms, {}, projected, {scales, scaled});
    if (row.shape.planes()) ccf::cpu::fourier_pack(row, packing("spectrum", spectrum, row.shape, groups));
}

void fourier_unpack(Tensor out, std::optional<Tensor> next, double c_in, Tensors terms, Numbers direct, Some<Tensors> scales,
                    Some<Places> scaled, Tensor spectrum, std::int64_t groups) {
    const Row row = make_row(out, next, c_in, terms, direct, {}, {scales, scaled});
    if (row.shape.planes()) ccf::cpu::fourier_unpack(row, packing("spectrum", spectrum, row.shape, groups));
}

// A stack of complex planes (groups * pairs, H, W) as the kernels see it: every plane a pair of real ones.
Shape spectrum_shape(const Tensor& spectrum) {
    check(spectrum.dim() == 3, "spectrum: must be (planes, H, W), got ", sizes_of(spectrum));
    return {1, 2 * spectrum.size(0), spectrum.size(1), spectrum.size(2)};
}

std::int64_t constant_stride(const Tensor& constants, std::int64_t groups, const Shape& shape) {
    check(constants.dim() == 3 && (constants.size(0) == 1 || constants.size(0) == groups),
          "multiplier: must be (1 or groups, H, W), got ", sizes_of(constants));
    return constants.size(0) == 1 ? 0 : shape.plane();
}

void fourier_multiply(Tensor out, Tensor spectrum, Tensor multiplier, std::int64_t groups) {
    const Shape shape = spectrum_shape(spectrum);
    if (!shape.planes()) return;
    const Packing to = packing("out", out, shape, groups), from = packing("spectrum", spectrum, shape, groups);
    const std::int64_t stride = constant_stride(multiplier, groups, shape);
    const auto* m = constant<float>("multiplier", multiplier, ScalarType::Float, multiplier.size(0) * shape.plane());
    ccf::cpu::fourier_multiply(to, shape, from.spectrum, m, stride);
}

void fourier_alias(Tensor out, Tensor spectrum, Tensor basis, std::int64_t groups, std::int64_t low_height,
                   std::int64_t low_width) {
    const Shape shape = spectrum_shape(spectrum);
    if (!shape.planes()) return;
    check(low_height > 0 && low_width > 0 && shape.height % low_height == 0 && shape.width % low_width == 0,
          "low_height, low_width: must divide the sides of ", sizes_of(spectrum), ", got ", low_height, ", ",
          low_width);
    const Packing to = packing("out", out, shape, groups), from = packing("spectrum", spectrum, shape, groups);
    const std::int64_t stride = constant_stride(basis, groups, shape);
    const auto* v = constant<float>("basis", basis, ScalarType::ComplexFloat, basis.size(0) * shape.plane());
    ccf::cpu::fourier_alias(to, shape, from.spectrum, v, stride, low_height, low_width);
}

void normal(Tensor out, Tensor seeds, Tensor samples, Tensor draws, std::int64_t step) {
    check(out.dim() > 0 && out.is_contiguous() && out.is_cpu() && out.scalar_type() == ScalarType::Float,
          "out: must be (B, ...), contiguous, float32 and on the CPU");
    refuse_grad(out);
    const std::int64_t batch = out.size(0);
    const ccf::NoiseKeys keys{constant<std::int64_t>("seeds", seeds, ScalarType::Long, batch),
                              constant<std::int64_t>("samples", samples, ScalarType::Long, batch),
                              constant<std::int64_t>("draws", draws, ScalarType::Long, batch), step};
    if (batch) ccf::cpu::normal(static_cast<float*>(out.mutable_data_ptr()), batch, out.numel() / batch, keys);
}

}  // namespace

#define CCF_ROW "(Tensor(a!) out, Tensor(b!)? next, float c_in, Tensor[] terms, float[] direct, "
#define CCF_SCALES "Tensor[]? scales, int[]? scaled"
#define CCF_PROJECTION CCF_ROW "float[] projected, " CCF_SCALES ", "

STABLE_TORCH_LIBRARY(ccfast, m) {
    // out = sum_k direct_k c_k terms_k + P(sum_k projected_k c_k terms_k), next = c_in out in the dtype of next; c_k is
    // 1 but for the places in scaled, where scales holds one number an image, (B,), or one an element. Of lincomb alone
    // out may be one of the terms.
    m.def("lincomb" CCF_ROW CCF_SCALES ") -> ()");
    m.def("mask" CCF_PROJECTION "Tensor mask) -> ()");
    m.def("block" CCF_PROJECTION "int height, int width) -> ()");
    m.def("channel" CCF_PROJECTION "Tensor direction) -> ()");
    m.def("separable" CCF_PROJECTION "Tensor[] rows, Tensor[] columns, Tensor(c!) scratch) -> ()");
    m.def("fourier_pack(Tensor(a!) spectrum, Tensor[] terms, float[] projected, " CCF_SCALES ", int groups) -> ()");
    m.def("fourier_multiply(Tensor(a!) out, Tensor spectrum, Tensor multiplier, int groups) -> ()");
    m.def(
        "fourier_alias(Tensor(a!) out, Tensor spectrum, Tensor basis, int groups, int low_height, int low_width) -> ()");
    m.def("fourier_unpack" CCF_ROW CCF_SCALES ", Tensor spectrum, int groups) -> ()");
    m.def("any_requires_grad(Tensor[] tensors) -> bool");
    m.def("normal(Tensor(a!) out, Tensor seeds, Tensor samples, Tensor draws, int step) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
    m.impl("lincomb", TORCH_BOX(&lincomb));
    m.impl("mask", TORCH_BOX(&mask));
    m.impl("block", TORCH_BOX(&block));
    m.impl("channel", TORCH_BOX(&channel));
    m.impl("separable", TORCH_BOX(&separable));
    m.impl("fourier_pack", TORCH_BOX(&fourier_pack));
    m.impl("fourier_multiply", TORCH_BOX(&fourier_multiply));
    m.impl("fourier_alias", TORCH_BOX(&fourier_alias));
    m.impl("fourier_unpack", TORCH_BOX(&fourier_unpack));
    m.impl("normal", TORCH_BOX(&normal));
}
