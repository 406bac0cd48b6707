#include "device.h"

#include "platform.h"

#if defined(__CUDACC__)

#include <dlfcn.h>

namespace ccf::cuda {
namespace {

using GetStream = int (*)(std::int32_t device, void** stream);

// Torch's libraries are loaded without making their names global, and a torch for the CPU has no libtorch_cuda; so it
// is neither linked nor loaded, but asked for where it is in the process already.
GetStream find_get_stream() {
    void* const library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return library ? reinterpret_cast<GetStream>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
}

}  // namespace

void use_device(int device) { check_cuda("use_device", cudaSetDevice(device)); }

void* current_stream(int device, std::int64_t handle) {
    if (handle >= 0) return reinterpret_cast<void*>(handle);
    static const GetStream get_stream = find_get_stream();
    void* stream = nullptr;
    if (!get_stream || get_stream(device, &stream))
        throw std::runtime_error(
            "stream: -1 asks torch for the current one, and this torch does not say; pass a handle");
    return stream;
}

}  // namespace ccf::cuda

#else

namespace ccf::cuda {

void use_device(int) {}
void* current_stream(int, std::int64_t) { return nullptr; }

}  // namespace ccf::cuda

#endif
