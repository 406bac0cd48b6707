// The device and stream that a call is for.
#pragma once

#include <cstdint>

namespace ccf::cuda {

// Makes the device current for the CUDA runtime of this library. Torch's is another copy of it, and its device guard
// restores the device of both, since what is current is the driver's.
void use_device(int device);

// The stream on which torch queues its work at this moment, never to be kept: `handle`, or with -1 what torch says.
void* current_stream(int device, std::int64_t handle);

}  // namespace ccf::cuda
