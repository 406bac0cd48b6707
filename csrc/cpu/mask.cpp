// P x = m x takes one pass; m is 0 or 1 for every element.
#include "kernels.h"
#include "pieces.h"

namespace ccf::cpu {

void mask(const Row& row, const Mask& mask) {
    store_pieces(row, [&](Reader& reader, const Place& at) {
        reader.masked(at, mask.data + at.image * mask.batch_stride + at.channel * mask.channel_stride + at.pixel);
    });
}

}  // namespace ccf::cpu
