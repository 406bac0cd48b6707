// torch.ops.ccfast.cuda_separable: P = H^T (H H^T)^-1 H on rows and columns, the three factors as bands.
#include "arguments_cuda.h"

namespace ccf {
namespace {

using cuda::BandedAxes;
using cuda::Call;
using cuda::constant;
using cuda::CyclicBand;
using cuda::Device;

// A band has taps (width, rows), starts (rows) and bases (tiles). Whether these lie inside the matrix is not looked up,
// since that would wait for the device; kernels/banded.py makes them so.
CyclicBand make_band(const char* name, int place, const Tensors& parts, const Integers& layout, std::int64_t rows,
                     std::int64_t columns, const Device& device) {
    const Tensor &taps = parts[3 * place], &start = parts[3 * place + 1], &base = parts[3 * place + 2];
    const std::int64_t tile = layout[2 * place], extent = layout[2 * place + 1];
    check(tile == 8 || tile == 16 || tile == 32, name, ": tiles must be 8, 16 or 32, got ", tile);
    check(extent > 0 && extent < 2 * columns, name, ": extents must be below twice ", columns, " columns, got ",
          extent);
    check(taps.dim() == 2 && taps.size(0) > 0 && taps.size(0) <= extent, name,
          ": taps must be (width, rows), width 1 to the extent ", extent, ", got ", sizes_of(taps));
    const std::int64_t width = taps.size(0), tiles = (rows + tile - 1) / tile;
    return {constant<float>({name, 3 * place}, taps, ScalarType::Float, {width, rows}, device),
            constant<std::int32_t>({name, 3 * place + 1}, start, ScalarType::Int, {rows}, device),
            constant<std::int32_t>({name, 3 * place + 2}, base, ScalarType::Int, {tiles}, device),
            static_cast<int>(rows),
            static_cast<int>(columns),
            static_cast<int>(width),
            static_cast<int>(tile),
            static_cast<int>(extent)};
}

BandedAxes make_axes(const char* name, const Tensors& parts, const Integers& layout, std::int64_t high,
                     const Device& device) {
    check(parts.size() == 9 && layout.size() == 6, name, ": must be nine tensors and six numbers, got ", parts.size(),
          " and ", layout.size());
    const std::int64_t low = parts[1].numel();
    check(low > 0 && low <= high, name, ": must have 1 to ", high, " rows, got ", low);
    return {make_band(name, 0, parts, layout, low, high, device), make_band(name, 1, parts, layout, low, low, device),
            make_band(name, 2, parts, layout, high, low, device)};
}

void check_tiles(const CyclicBand& rows, const CyclicBand& columns) {
    check(rows.tile == columns.tile, "layouts: tiles must be the same for rows and columns, got ", rows.tile, " and ",
          columns.tile);
    const std::size_t bytes = cuda::banded_shared(rows, columns);
    check(bytes <= cuda::largest_shared, "layouts: a tile must take at most ", cuda::largest_shared, " bytes, got ",
          bytes);
}

void separable(Tensor out, Maybe<Tensor> next, Tensors terms, Tensor table, bool residual, Maybe<Tensors> scales,
               Maybe<Integers> scaled, Tensors rows, Tensors columns, Integers rows_layout, Integers columns_layout,
               Tensor low, std::int64_t stream) {
    Call call(out, next, {terms, table, residual, scales, scaled}, stream);
    if (call.empty()) return;
    const BandedAxes vertical = make_axes("rows", rows, rows_layout, call.row.shape.height, call.device);
    const BandedAxes horizontal = make_axes("columns", columns, columns_layout, call.row.shape.width, call.device);
    check_tiles(vertical.down, horizontal.down);
    check_tiles(vertical.inverse, horizontal.inverse);
    check_tiles(vertical.up, horizontal.up);
    const std::int64_t count = call.row.shape.planes() * vertical.down.rows * horizontal.down.rows;
    float* const work = workspace("low", low, 2 * count, call.device);
    call.writes("low", low, terms);
    call.check_apart("table", table);
    for (int k = 0; k < 9; ++k) call.check_apart({"rows", k}, rows[k]), call.check_apart({"columns", k}, columns[k]);
    cuda::separable(call.row, vertical, horizontal, work, call.stream);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(CCF_LIBRARY, m) {
    m.def("cuda_separable" CCF_DEVICE_ROW
          "Tensor[] rows, Tensor[] columns, int[] rows_layout, int[] columns_layout, Tensor(c!) low, "
          "int stream) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(CCF_LIBRARY, CCF_KEY, m) { m.impl("cuda_separable", TORCH_BOX(&separable)); }

}  // namespace ccf
