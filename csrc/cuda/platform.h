// A kernel file gets what it needs of CUDA from nvcc, or from the emulator of the tests (tests/cuda_emulator.h), which
// any C++ compiler takes. Kernels are launched by CCF_LAUNCH and have dynamic shared memory by CCF_SHARED only.
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#define CCF_LAUNCH(kernel, grid, block, shared, stream, ...) \
    kernel<<<grid, block, shared, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)

// One unsized array serves all kernels of a file, whatever type they see in it.
#define CCF_SHARED(T, name)                                     \
    extern __shared__ __align__(16) unsigned char ccf_shared[]; \
    T* const name = reinterpret_cast<T*>(ccf_shared)

namespace ccf::cuda {

// This follows every launch, so that an error carries the kernel's name.
inline void check_cuda(const char* kernel, cudaError_t error) {
    if (error == cudaSuccess) return;
    throw std::runtime_error(std::string(kernel) + ": launch failed, " + cudaGetErrorName(error) + ": " +
                             cudaGetErrorString(error));
}

inline void check_launch(const char* kernel) { check_cuda(kernel, cudaGetLastError()); }

// Allows more than the 48 KB of shared memory that a block gets unasked. It is cheap and queues nothing on the stream,
// so that it may happen while a graph is captured.
template <class Kernel>
void allow_shared(const char* name, Kernel* kernel, std::size_t bytes) {
    if (bytes > 48 * 1024)
        check_cuda(name,
                   cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}

}  // namespace ccf::cuda

#else

#include "cuda_emulator.h"

#define CCF_LAUNCH(kernel, grid, block, shared, stream, ...) \
    ((void)(stream), cuda_emulator::launch(grid, block, shared, [&] { kernel(__VA_ARGS__); }))

#define CCF_SHARED(T, name) T* const name = reinterpret_cast<T*>(cuda_emulator::shared_memory())

namespace ccf::cuda {

inline void check_launch(const char*) {}

template <class Kernel>
void allow_shared(const char*, Kernel*, std::size_t) {}

}  // namespace ccf::cuda

#endif
