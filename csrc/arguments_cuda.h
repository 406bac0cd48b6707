// The arguments of an op of the GPU as its kernels take them. These ops queue their kernels on a stream; none waits, or
// reads device memory.
//
// out = sum_k c_k a_k terms_k + P(sum_k c_k b_k terms_k), next = c_in out, table = [a, b, c_in]; with residual
// out = ybar - P(p x + q F), terms = [ybar, x, F], table = [p, q]. c_k is 1 but for the places in `scaled`, where
// `scales` holds one number an image or element. stream: a handle, or -1 for torch's current one.
//
// Ops that know the modes of an operator take `sets`, the set of each of the last terms, which then are not in the
// table: V sum_j f_j V^T (sum of set j), where `factors` are those of the last sets, and `scale` multiplies them all.
// `more` is added to what the first set is transformed to, and out then has no part of ybar in a residual.
//
// Built with CCF_EMULATED (the tests) the same ops take tensors on the CPU, in a namespace of their own, and run the
// kernels in the emulator.
#pragma once

#if !defined(CCF_EMULATED)
#include <torch/csrc/stable/accelerator.h>
#endif

#include "checks.h"
#include "cuda/device.h"
#include "cuda/kernels.h"

#if defined(CCF_EMULATED)
#define CCF_LIBRARY ccfast_emulated
#define CCF_KEY CPU
#else
#define CCF_LIBRARY ccfast
#define CCF_KEY CUDA
#endif

#define CCF_TERMS "Tensor[] terms, Tensor table, bool residual, Tensor[]? scales, int[]? scaled, "
#define CCF_FACTORS "int[]? sets, Tensor[]? factors, float scale, Tensor? more, "
#define CCF_DEVICE_ROW "(Tensor(a!) out, Tensor(b!)? next, " CCF_TERMS

namespace ccf::cuda {

constexpr std::int64_t largest_plane = 1 << 26;  // It is in pixels: a grid has 65535 blocks of 1024 in y.

// The device of a call is that of its first term; every other tensor must be on it.
class Device {
public:
    explicit Device(const Tensor& tensor) : index_(index_of(tensor)), guard_(make_guard(index_)) { use_device(index_); }

    void* stream(std::int64_t handle) const { return current_stream(index_, handle); }
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

template <class T>
const T* constant(Name name, const Tensor& tensor, ScalarType dtype, SizeList sizes, const Device& device) {
    check_data(name, tensor, dtype, device.holds(tensor), "on the GPU of the first term");
    check_sizes(name, tensor, sizes);
    return static_cast<const T*>(tensor.const_data_ptr());
}

// Returns a place to work in, whose shape does not matter.
inline float* workspace(Name name, const Tensor& tensor, std::int64_t count, const Device& device) {
    check_data(name, tensor, ScalarType::Float, device.holds(tensor), "on the GPU of the first term");
    check_elements(name, tensor, count);
    return static_cast<float*>(tensor.mutable_data_ptr());
}

// What the row of an op is made from.
struct Given {
    const Tensors& terms;
    const Tensor& table;
    bool residual;
    const Maybe<Tensors>& scales;
    const Maybe<Integers>& scaled;
};

// What the factors of an op are made from.
struct Modal {
    const Maybe<Integers>& sets;
    const Maybe<Tensors>& factors;
    double scale;
    const Maybe<Tensor>& more;

    // Calls apart(name, tensor) for every tensor.
    template <class F>
    void for_tensors(const F& apart) const {
        for (std::size_t k = 0; factors && k < factors->size(); ++k)
            apart(Name{"factors", static_cast<int>(k)}, (*factors)[k]);
        if (more) apart(Name{"more"}, *more);
    }
};

// Returns the number of sums that a row transforms.
int sets_of(const DeviceRow& row);

// The factors of so many sets, (1 or groups, height, width) each, and `more`, (all, height, width) of a dtype.
Factors make_factors(int sets, const Modal& modal, std::int64_t groups, SizeList more, ScalarType dtype,
                     const Device& device);

// Every op begins with a row, its device and its stream.
struct Call {
    Device device;
    DeviceRow row;
    void* stream;
    std::vector<Written> written;  // Its outputs overlap neither each other nor what is read.

    Call(const Given& given, std::int64_t handle, const Modal* modal = nullptr);
    Call(const Tensor& out, const Maybe<Tensor>& next, const Given& given, std::int64_t handle,
         const Modal* modal = nullptr);

    // The outputs so far must not share memory with this tensor.
    void check_apart(Name name, const Tensor& tensor) const {
        for (const Written& output : written) output.check_apart(name, tensor);
    }
    // The op writes this tensor, too.
    void writes(Name name, const Tensor& tensor, const Tensors& terms) {
        check_apart(name, tensor);
        written.emplace_back(name, tensor);
        for (int k = 0; k < row.count; ++k) written.back().check_apart({"terms", k}, terms[k]);
    }

    bool empty() const { return !row.shape.planes() || !row.shape.plane(); }
};

}  // namespace ccf::cuda
