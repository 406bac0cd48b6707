#include "shapes.h"

#include <type_traits>

#include "fourier.cuh"
#include "kernels.h"
#include "products.cuh"
#include "separable.cuh"

namespace ccf::cuda {
namespace {

template <int N>
void add_side(std::vector<KernelShape>& shapes) {
    const std::string side = std::to_string(N);
    for (const char* rows : {"rows_forward", "rows_inverse"})
        shapes.push_back({rows, side, row_threads, row_shared<N>});
    for (const char* columns : {"columns_multiply", "columns_factors"})
        shapes.push_back({columns, side, column_threads<N>, column_shared<N>});
    for (int factor = 2; factor <= 8 && factor <= column_lines(N); factor *= 2)
        for (const char* columns : {"columns_alias", "columns_alias_factors"})
            shapes.push_back({columns, side + ", " + std::to_string(factor), column_threads<N>, column_shared<N>});
}

}  // namespace

std::vector<KernelShape> kernel_shapes() {
    std::vector<KernelShape> shapes;
    add_side<64>(shapes), add_side<128>(shapes), add_side<256>(shapes);
    add_side<512>(shapes), add_side<1024>(shapes), add_side<2048>(shapes);
    for (const char* tile : {"8", "16", "32"})
        for (const char* ends : {"terms_to_field", "field_to_field", "field_to_row"})
            shapes.push_back({"banded", std::string(tile) + ", " + ends, banded_threads, largest_shared});
    for (const char* pass : {"lincomb_combine", "lincomb_finish", "fourier_pack_planes", "fourier_unpack_planes"})
        for (const char* scaled : {"0", "1"}) shapes.push_back({pass, scaled, run_threads, 0});
    for (const char* pass : {"fourier_multiply_planes", "fourier_alias_planes"})
        shapes.push_back({pass, "", run_threads, 0});
    for (const char* ends : {"terms_to_field", "field_to_row"})
        shapes.push_back({"product", ends, product_threads, product_shared});
    for (const char* columns : {"4", "8", "16"})
        shapes.push_back({"rows_between", columns, product_threads, largest_shared});
    return shapes;
}

}  // namespace ccf::cuda
