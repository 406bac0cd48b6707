// ccfast._C: importing it loads the op library, which it is linked to, and so registers torch.ops.ccfast.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "philox.h"
#if defined(CCF_CUDA_ARCHS)
#include "cuda/shapes.h"
#endif

namespace py = pybind11;

namespace {

#if defined(CCF_NO_CLONES) || !defined(__x86_64__)
const std::vector<std::string> clones{"default"};
std::string active_clone() { return "default"; }
#else
const std::vector<std::string> clones{"x86-64-v4", "x86-64-v3", "default"};

std::string active_clone() {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4")) return "x86-64-v4";
    if (__builtin_cpu_supports("x86-64-v3")) return "x86-64-v3";
    return "default";
}
#endif

// A row of the table of kernels: kernel, variant, architecture, threads of a block, registers, bytes spilled, bytes of
// stack, bytes of shared memory, barriers.
using KernelRow = std::tuple<std::string, std::string, int, int, int, int, int, std::size_t, int>;

#if defined(CCF_CUDA_ARCHS)
struct Compiled {
    const char *kernel, *variant;
    int arch, registers, spills, stack, shared, barriers;
};
const Compiled compiled[] = {
#include "kernel_report.inc"
};

std::vector<std::string> cuda_archs() {
    std::vector<std::string> archs;
    std::istringstream text(CCF_CUDA_ARCHS);
    for (std::string arch; std::getline(text, arch, ';');) archs.push_back(arch);
    return archs;
}

std::vector<KernelRow> kernels() {
    std::vector<KernelRow> rows;
    for (const ccf::cuda::KernelShape& shape : ccf::cuda::kernel_shapes())
        for (const Compiled& c : compiled)
            if (shape.kernel == c.kernel && shape.variant == c.variant)
                rows.emplace_back(c.kernel, c.variant, c.arch, shape.threads, c.registers, c.spills, c.stack,
                                  c.shared + shape.shared, c.barriers);
    return rows;
}
#else
std::vector<std::string> cuda_archs() { return {}; }
std::vector<KernelRow> kernels() { return {}; }
#endif

py::dict build_info() {
    py::dict info;
    info["compiler"] = std::string("g++ ") + __VERSION__;
    info["isa_clones"] = clones;
    info["isa_active"] = active_clone();
    info["cuda_archs"] = cuda_archs();
    info["torch_built"] = CCF_TORCH_BUILT;
    info["torch_target"] = CCF_TORCH_TARGET;
    return info;
}

// The four words behind the noise, for the test that every backend draws the same.
std::array<std::uint32_t, 4> philox(const std::array<std::uint32_t, 4>& counter, std::uint64_t key) {
    const auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    const ccf::Words words = ccf::philox({counter[0], counter[1], counter[2], counter[3]}, k0, k1);
    return {words.c0, words.c1, words.c2, words.c3};
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "Loads the ops of torch.ops.ccfast; torch must have been imported before.";
    m.def("build_info", &build_info, "Compiler, copies of the loops by instruction set, CUDA architectures, torch.");
    m.def("kernels", &kernels,
          "Kernels of the GPU, by architecture: kernel, variant, architecture, threads of a block, registers, bytes "
          "spilled, bytes of stack, bytes of shared memory, barriers.");
    m.def("philox", &philox, py::arg("counter"), py::arg("key"), "Philox 4x32-10: four words of a counter.");
}
