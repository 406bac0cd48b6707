// The three launches of the banded kernel: down, inverse and up.
#include "separable.cuh"

#include <type_traits>

#include "kernels.h"

namespace ccf::cuda {
namespace {

template <int Tile, Ends E>
void launch_tile(const char* name, const DeviceRow& row, const CyclicBand& rows, const CyclicBand& columns,
                 const float* from, float* to, void* stream) {
    const auto kernel = &banded<Tile, E>;
    const auto tiles = [](const CyclicBand& band) { return static_cast<unsigned>((band.rows + Tile - 1) / Tile); };
    const dim3 grid(static_cast<unsigned>(row.shape.planes()), tiles(rows), tiles(columns));
    const std::size_t shared = banded_shared(rows, columns);
    allow_shared(name, kernel, shared);
    CCF_LAUNCH(kernel, grid, dim3(banded_threads), shared, stream, row, rows, columns, from, to);
    check_launch(name);
}

template <Ends E>
void launch(const char* name, const DeviceRow& row, const CyclicBand& rows, const CyclicBand& columns,
            const float* from, float* to, void* stream) {
    switch (rows.tile) {
        case 8: return launch_tile<8, E>(name, row, rows, columns, from, to, stream);
        case 16: return launch_tile<16, E>(name, row, rows, columns, from, to, stream);
        case 32: return launch_tile<32, E>(name, row, rows, columns, from, to, stream);
    }
}

}  // namespace

void separable(const DeviceRow& row, const BandedAxes& rows, const BandedAxes& columns, float* low, void* stream) {
    float* const solved = low + row.shape.planes() * rows.down.rows * columns.down.rows;
    launch<Ends::terms_to_field>("separable down", row, rows.down, columns.down, nullptr, low, stream);
    launch<Ends::field_to_field>("separable inverse", row, rows.inverse, columns.inverse, low, solved, stream);
    launch<Ends::field_to_row>("separable up", row, rows.up, columns.up, solved, nullptr, stream);
}

}  // namespace ccf::cuda
