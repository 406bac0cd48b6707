// The table of kernels shows how each is launched beside what the compiler made of it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace ccf::cuda {

struct KernelShape {
    std::string kernel, variant;  // They are as in the template: columns_alias, "256, 4".
    int threads;                  // A block has so many.
    std::size_t shared;           // A block has at most so many bytes of dynamic shared memory.
};

// The one name that the op library shows to ccfast._C.
__attribute__((visibility("default"))) std::vector<KernelShape> kernel_shapes();

}  // namespace ccf::cuda
