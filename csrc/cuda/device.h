// A call is for one device and one stream.
#pragma once

#include <cstdint>

namespace ccf::cuda {

// Makes the device current for the CUDA runtime of this library. Torch's is another copy of it, and its device guard
// restores the device of both, since what is current is the driver's.
void use_device(int device);

// Returns `handle`, or for -1 the stream on which torch queues its work at this moment, which must not be kept.
void* current_stream(int device, std::int64_t handle);

}  // namespace ccf::cuda
