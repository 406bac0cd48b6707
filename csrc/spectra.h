// The checks that the fourier ops of the CPU and of the GPU make of complex planes and of their constants.
#pragma once

#include "checks.h"

namespace ccf {

// Groups are sets of planes of one image; only planes of one group are packed together. (A stack of complex planes is
// one image here: it does not say which of them belong together.)
inline void check_groups(std::int64_t groups, const Shape& shape) {
    check(groups > 0 && shape.planes() % groups == 0 && groups % shape.batch == 0, "groups: must be a multiple of ",
          shape.batch, " images that divides ", shape.planes(), " planes, got ", groups);
}

inline std::int64_t pairs_of(std::int64_t groups, const Shape& shape) {
    return groups * ((shape.planes() / groups + 1) / 2);
}

// A stack of complex planes (groups * pairs, H, W) as the kernels see it: every plane is a pair of real ones.
inline Shape spectrum_shape(const Tensor& spectrum) {
    check(spectrum.dim() == 3, "spectrum: must be (planes, H, W), got ", sizes_of(spectrum));
    return {1, 2 * spectrum.size(0), spectrum.size(1), spectrum.size(2)};
}

// Returns how far apart the planes of (1 or groups, H, W) constants are, which is 0 where one serves all groups.
inline std::int64_t group_stride(Name name, const Tensor& constants, std::int64_t groups, const Shape& shape) {
    check(constants.dim() == 3 && (constants.size(0) == 1 || constants.size(0) == groups) &&
              constants.size(1) == shape.height && constants.size(2) == shape.width,
          name, ": must be (1 or groups, H, W) with ", groups, " groups of planes (", shape.height, ", ", shape.width,
          "), got ", sizes_of(constants));
    return constants.size(0) == 1 ? 0 : shape.plane();
}

inline void check_low_sides(std::int64_t height, std::int64_t width, const Shape& shape, const Tensor& spectrum) {
    check_divides("low_height, low_width", height, width, shape, spectrum);
}

}  // namespace ccf
