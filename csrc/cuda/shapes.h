// The table of kernels shows how each is launched beside what the compiler made of it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace ccf::cuda {

struct KernelShape {
    std::string kernel, variant;  // as in the template: columns_alias, "256, 4"
    int threads;                  // of a block
    std::size_t shared;           // dynamic shared memory of a block, at most
};

// The one name that the op library shows to ccfast._C.
__attribute__((visibility("default"))) std::vector<KernelShape> kernel_shapes();

}  // namespace ccf::cuda
