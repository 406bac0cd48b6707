// The checks that all ops of the CPU make of their arguments, and the row that these become.
#include "arguments.h"

#include <torch/csrc/stable/ops.h>

#include <array>

namespace ccf {

// The stable ABI does not show requires_grad, so that an op written in Python is asked. It is asked only where grad
// mode is on, which it is not in the sampling loop.
namespace {

bool any_requires_grad(const Tensors& tensors) {
    std::array<StableIValue, 1> stack{torch::stable::detail::from(tensors)};
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("ccfast::any_requires_grad", "", stack.data(), TORCH_ABI_VERSION));
    return torch::stable::detail::to<bool>(stack[0]);
}

}  // namespace

void refuse_grad(Name name, const Tensor& tensor) {
    check(!aoti_torch_grad_mode_is_enabled() || !any_requires_grad({tensor}), name,
          ": ops of ccfast cannot be differentiated, but an input requires grad; pass x.detach() or use no_grad");
}

void refuse_grad(Name name, const Tensors& tensors) {
    if (!aoti_torch_grad_mode_is_enabled() || !any_requires_grad(tensors)) return;
    for (std::size_t k = 0; k < tensors.size(); ++k) refuse_grad({name.text, static_cast<int>(k)}, tensors[k]);
}

namespace {

Dtype dtype_on_cpu(Name name, const Tensor& tensor) {
    check(tensor.is_cpu(), name, ": must be on the CPU");
    return dtype_of(name, tensor);
}

// The dispatcher, which resolves or refuses such tensors among all other arguments, does not look into optional lists.
void check_plain(Name name, const Tensor& tensor) {
    std::int32_t layout = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(tensor.get(), &layout));
    check(layout == aoti_torch_layout_strided(), name, ": must be a strided tensor, got a sparse one");
    std::array<StableIValue, 1> stack{torch::stable::detail::from(tensor)};
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::is_neg", "", stack.data(), TORCH_ABI_VERSION));
    check(!torch::stable::detail::to<bool>(stack[0]), name, ": must not be a negated view, pass x.resolve_neg()");
}

void set_scale(Term& term, const Tensor& scale, const Tensor& like) {
    check(scale.scalar_type() == ScalarType::Float && scale.is_cpu(), "scales: must be float32 on the CPU");
    term.scale = static_cast<const float*>(scale.const_data_ptr());
    term.scale_per_element = scale.dim() != 1;
    scale_strides(scale, like, term.scale_stride);
}

void set_scales(Row& row, const Scales& scales, const Tensor& like) {
    const std::size_t places = scales.places ? scales.places->size() : 0;
    check(scales.count() == places, "scaled: must be one place for each of scales, got ", places);
    for (std::size_t k = 0; k < places; ++k) {
        const std::int64_t place = (*scales.places)[k];
        const Name name{"scales", static_cast<int>(k)};
        check_plain(name, (*scales.tensors)[k]);
        refuse_grad(name, (*scales.tensors)[k]);
        check(place >= 0 && place < row.count, "scaled: must be places of terms, got ", place);
        check(!row.terms[place].scale, "scaled: must differ, got ", place, " twice");
        set_scale(row.terms[place], (*scales.tensors)[k], like);
    }
}

}  // namespace

Row make_row(const Tensors& terms, const Numbers& direct, const Numbers& projected, const Scales& scales) {
    check_count(terms, max_terms);
    check(direct.empty() || direct.size() == terms.size(), "direct: must be one number for each term, got ",
          direct.size());
    check(projected.empty() || projected.size() == terms.size(), "projected: must be one number for each term, got ",
          projected.size());
    Row row;  // Only the terms in use are set, since a call has a few microseconds in all.
    row.shape = shape_of({"terms", 0}, terms[0]);
    row.count = 0, row.out = row.next = nullptr, row.out_dtype = row.next_dtype = Dtype::float32, row.c_in = 1.0f;
    for (const Tensor& tensor : terms) {
        const int k = row.count++;
        const Name name{"terms", k};
        Term& term = row.terms[k];
        term.dtype = dtype_on_cpu(name, tensor);
        check_term(name, tensor, terms[0]);
        term.data = tensor.const_data_ptr();
        strides_of(tensor, term.stride);
        term.direct = direct.empty() ? 0.0f : static_cast<float>(direct[k]);
        term.projected = projected.empty() ? 0.0f : static_cast<float>(projected[k]);
        term.scale = nullptr, term.scale_per_element = false;
    }
    refuse_grad("terms", terms);
    set_scales(row, scales, terms[0]);
    return row;
}

Row make_row(const Tensor& out, const Maybe<Tensor>& next, double c_in, const Tensors& terms, const Numbers& direct,
             const Numbers& projected, const Scales& scales, bool in_place) {
    Row row = make_row(terms, direct, projected, scales);
    const auto output = [&](Name name, const Tensor& tensor, void*& data, Dtype& dtype) {
        refuse_grad(name, tensor);
        dtype = dtype_on_cpu(name, tensor);
        check_output(name, tensor, terms[0]);
        data = tensor.mutable_data_ptr();
        const Written written(name, tensor);
        for (int k = 0; k < row.count; ++k) {
            const bool itself = in_place && row.terms[k].data == data && row.terms[k].dtype == Dtype::float32 &&
                                dtype == Dtype::float32 && terms[k].is_contiguous();
            if (!itself) written.check_apart({"terms", k}, terms[k]);
        }
        if (scales.tensors)
            for (std::size_t k = 0; k < scales.count(); ++k)
                written.check_apart({"scales", static_cast<int>(k)}, (*scales.tensors)[k]);
    };
    output("out", out, row.out, row.out_dtype);
    if (next) {
        output("next", *next, row.next, row.next_dtype);
        Written("next", *next).check_apart("out", out);
    }
    row.c_in = static_cast<float>(c_in);
    return row;
}

void check_apart(const Tensor& out, const Maybe<Tensor>& next, Name name, const Tensor& tensor) {
    Written("out", out).check_apart(name, tensor);
    if (next) Written("next", *next).check_apart(name, tensor);
}

STABLE_TORCH_LIBRARY_FRAGMENT(ccfast, m) { m.def("any_requires_grad(Tensor[] tensors) -> bool"); }

}  // namespace ccf
