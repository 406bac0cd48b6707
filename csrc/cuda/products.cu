// The three launches of the products with dense V.
#include "products.cuh"

#include "kernels.h"

namespace ccf::cuda {
namespace {

template <int Columns>
void launch_between(const DeviceRow& row, const DenseAxis& rows, const DenseAxis& columns, const Factors& factors,
                    float* work, void* stream) {
    const auto kernel = &rows_between<Columns>;
    const auto planes = static_cast<unsigned>(row.shape.planes());
    const auto blocks = static_cast<unsigned>((columns.rank + Columns - 1) / Columns);
    const std::size_t shared = between_shared(rows, Columns);
    allow_shared("products rows_between", kernel, shared);
    CCF_LAUNCH(kernel, dim3(planes, blocks), dim3(product_threads), shared, stream, static_cast<int>(planes), rows.side,
               rows.rank, columns.rank, rows.up, rows.down, factors, work);
    check_launch("products rows_between");
}

dim3 tiles(const DeviceRow& row, int width, int sets) {
    const std::int64_t rows = row.shape.planes() * row.shape.height;
    return {static_cast<unsigned>((rows + product_side - 1) / product_side),
            static_cast<unsigned>((width + product_side - 1) / product_side), static_cast<unsigned>(sets)};
}

}  // namespace

void products(const DeviceRow& row, const DenseAxis& rows, const DenseAxis& columns, const Factors& factors,
              float* work, void* stream) {
    const float* const none = nullptr;
    const auto down = &product<Ends::terms_to_field>;
    CCF_LAUNCH(down, tiles(row, columns.rank, factors.sets), dim3(product_threads), product_shared, stream, row,
               columns.side, columns.rank, none, columns.up, work);
    check_launch("products down");
    switch (between_columns(rows)) {
        case 16: launch_between<16>(row, rows, columns, factors, work, stream); break;
        case 8: launch_between<8>(row, rows, columns, factors, work, stream); break;
        default: launch_between<4>(row, rows, columns, factors, work, stream); break;
    }
    float* const no_field = nullptr;
    const auto up = &product<Ends::field_to_row>;
    CCF_LAUNCH(up, tiles(row, columns.side, 1), dim3(product_threads), product_shared, stream, row, columns.rank,
               columns.side, work, columns.down, no_field);
    check_launch("products up");
}

}  // namespace ccf::cuda
