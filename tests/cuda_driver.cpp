// Runs every CUDA kernel in the emulator without torch, on arrays of exactly their size, for the sanitizers, and
// compares with the definition in double. sanitize.sh builds it; test_cuda.py tests more values, dtypes and sizes.
//
//     cuda_driver                 runs all kernels
//     cuda_driver CASE BARRIER    runs one kernel without one of its barriers, which ThreadSanitizer must report
#include <cmath>
#include <complex>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "../csrc/cuda/kernels.h"
#include "../csrc/math.h"
#include "cuda_emulator.h"

using namespace ccf;
using cuda::BandedAxes;
using cuda::CyclicBand;
using Number = std::complex<double>;
using Values = std::vector<double>;
using Project = std::function<Values(const Values&)>;

namespace {

int failures = 0;
constexpr double turn = 6.283185307179586;

double drawn(std::size_t i) { return std::sin(12.9898 * static_cast<double>(i) + 78.233); }

// A row of one term of every dtype, in two layouts, with the tensors behind the terms, the table, and both outputs.
struct Case {
    Shape shape;
    std::vector<float> floats, out;
    std::vector<bfloat16> brains, next;
    std::vector<float16> halves;
    std::vector<float> table{0.9f, 0.7f, 0.0f, 0.5f, -1.1f, 0.3f, 0.5f};
    cuda::DeviceRow row{};

    explicit Case(Shape s) : shape(s), floats(count()), out(count()), brains(count()), next(count()), halves(count()) {
        for (std::size_t i = 0; i < count(); ++i) {
            floats[i] = static_cast<float>(drawn(i));
            brains[i] = from_float<bfloat16>(static_cast<float>(drawn(i + 11)));
            halves[i] = from_float<float16>(static_cast<float>(drawn(i + 13)));
        }
        row.shape = shape;
        const std::int64_t plane = shape.plane(), image = shape.channels * plane;
        const bool fours = plane % 4 == 0;
        const auto add = [&](const void* data, Dtype dtype, std::initializer_list<std::int64_t> stride, bool vector) {
            cuda::DeviceTerm& term = row.terms[row.count++];
            term.data = data, term.dtype = dtype, term.vector = vector;
            std::copy(stride.begin(), stride.end(), term.stride);
        };
        add(floats.data(), Dtype::float32, {image, plane, shape.width, 1}, fours);
        add(brains.data(), Dtype::bfloat16, {image, plane, shape.width, 1}, fours);
        add(halves.data(), Dtype::float16, {image, 1, shape.width * shape.channels, shape.channels}, false);
        row.numbers = row.count;
        row.table = table.data();
        row.out = out.data(), row.out_dtype = Dtype::float32;
        row.next = next.data(), row.next_dtype = Dtype::bfloat16;
    }

    std::size_t count() const { return static_cast<std::size_t>(shape.planes() * shape.plane()); }

    // Returns the sum of coefficient times term, contiguous.
    Values sum(const float* coefficient) const {
        Values result(count());
        for (std::size_t i = 0; i < count(); ++i) {
            const auto n = static_cast<std::int64_t>(i);
            const std::int64_t pixel = n % shape.plane(), c = n / shape.plane() % shape.channels;
            const std::int64_t b = n / shape.plane() / shape.channels;
            const auto last = static_cast<std::size_t>((b * shape.plane() + pixel) * shape.channels + c);
            result[i] = coefficient[0] * static_cast<double>(floats[i]) +
                        coefficient[1] * static_cast<double>(to_float(brains[i])) +
                        coefficient[2] * static_cast<double>(to_float(halves[last]));
        }
        return result;
    }

    void compare(const char* name, const Project& project) const {
        const Values direct = sum(table.data()), projected = project(sum(table.data() + 3));
        for (std::size_t i = 0; i < count(); ++i) {
            const double want = direct[i] + projected[i];
            if (std::abs(out[i] - want) < 1e-5 && std::abs(to_float(next[i]) - 0.5 * want) < 0.02) continue;
            std::printf("%s %ldx%ldx%ldx%ld: element %zu is %g, not %g\n", name, shape.batch, shape.channels,
                        shape.height, shape.width, i, out[i], want);
            ++failures;
            return;
        }
    }
};

// ------------------------------------------------------------------------------------------- Fourier
// Transforms one plane along one of its two dimensions, by the definition of the transform.
void transform(std::vector<Number>& x, std::int64_t lines, std::int64_t line_step, std::int64_t n, std::int64_t step,
               double sign) {
    std::vector<Number> root(n), line(n);
    for (std::int64_t k = 0; k < n; ++k) root[k] = std::polar(1.0, sign * turn * static_cast<double>(k) / n);
    for (std::int64_t l = 0; l < lines; ++l) {
        for (std::int64_t f = 0; f < n; ++f) {
            line[f] = 0.0;
            for (std::int64_t k = 0; k < n; ++k) line[f] += x[l * line_step + k * step] * root[f * k % n];
        }
        for (std::int64_t f = 0; f < n; ++f) x[l * line_step + f * step] = line[f];
    }
}

// Transforms every plane, calls f on the spectrum, and transforms back.
Values in_spectrum(const Shape& shape, const Values& x, const std::function<void(std::vector<Number>&)>& f) {
    Values result(x.size());
    const std::int64_t h = shape.height, w = shape.width, plane = shape.plane();
    for (std::int64_t p = 0; p < shape.planes(); ++p) {
        std::vector<Number> z(x.begin() + p * plane, x.begin() + (p + 1) * plane);
        transform(z, h, w, w, 1, -1.0), transform(z, w, 1, h, w, -1.0);
        f(z);
        transform(z, h, w, w, 1, 1.0), transform(z, w, 1, h, w, 1.0);
        for (std::int64_t i = 0; i < plane; ++i) result[p * plane + i] = z[i].real();
    }
    return result;
}

// Makes the roots as kernels/cuda/fourier.py does.
std::vector<std::complex<float>> roots(int n) {
    std::vector<std::complex<float>> result;
    if (!cuda::has_transform(n)) return result;
    for (int done = 8; done < n; done *= cuda::radix(n, done))
        for (int q = 0; q < cuda::log2(cuda::radix(n, done)); ++q)
            for (int m = 0; m < done; ++m)
                result.emplace_back(std::polar(1.0, -turn * (1 << q) * m / (done * cuda::radix(n, done))));
    return result;
}

// The multiplier is even in the frequency, so that P is real.
float multiplier(std::int64_t h, std::int64_t w, const Shape& s) {
    const auto even = [](std::int64_t f, std::int64_t n) { return static_cast<double>(f < n - f ? f : n - f); };
    return static_cast<float>(std::cos(0.1 * even(h, s.height) + 0.3 * even(w, s.width)) / s.plane());
}

// The basis is the spectrum of a shifted impulse, with |v|^2 = 1 / S^2 of a set of aliases, over the number of pixels.
std::complex<float> basis(std::int64_t h, std::int64_t w, const Shape& s, int factor) {
    const double angle = turn * (static_cast<double>(h) / s.height + 2.0 * static_cast<double>(w) / s.width);
    return std::complex<float>(std::polar(1.0 / factor / std::sqrt(s.plane()), angle));
}

const cuda::Factors one_set{1, {}, {}, 1.0f, nullptr};

// With `split` the projected terms are three sets, and the factors of the last two the constant of a blur or ones.
void fourier(Shape shape, int factor, int groups, int chunk, bool split = false) {
    const auto plane = static_cast<std::size_t>(shape.plane());
    Case c(shape);
    const cuda::Groups made{groups, static_cast<int>(shape.planes()) / groups};
    std::vector<float> m(plane);
    std::vector<std::complex<float>> v(plane);
    for (std::size_t i = 0; i < plane; ++i) {
        const auto h = static_cast<std::int64_t>(i) / shape.width, w = static_cast<std::int64_t>(i) % shape.width;
        m[i] = multiplier(h, w, shape), v[i] = basis(h, w, shape, factor);
    }
    const auto row_roots = roots(static_cast<int>(shape.width)), column_roots = roots(static_cast<int>(shape.height));
    const void* const data = factor == 1 ? static_cast<const void*>(m.data()) : v.data();
    const cuda::Spectral spectral{data, 0, factor, row_roots.data(), column_roots.data()};
    const std::int64_t low_height = shape.height / factor, low_width = shape.width / factor;
    const std::vector<float> ones(static_cast<std::size_t>(low_height * low_width), 1.0f);
    cuda::Factors factors = one_set;
    if (split) {
        factors.sets = 3;
        for (int k = 1; k < 3; ++k) c.row.terms[k].set = k, factors.data[k] = factor == 1 ? m.data() : ones.data();
    }
    const auto apply = [&](std::vector<Number>& z) {
        if (factor == 1) {
            for (std::size_t i = 0; i < plane; ++i) z[i] *= m[i];
            return;
        }
        std::vector<Number> sums(low_height * low_width);
        const auto low = [&](std::size_t i) {
            const auto n = static_cast<std::int64_t>(i);
            return n / shape.width % low_height * low_width + n % shape.width % low_width;
        };
        for (std::size_t i = 0; i < plane; ++i) sums[low(i)] += Number(v[i]) * z[i];
        for (std::size_t i = 0; i < plane; ++i) z[i] = std::conj(Number(v[i])) * sums[low(i)];
    };
    if (cuda::has_transform(shape.height) && cuda::has_transform(shape.width)) {
        std::vector<std::complex<float>> scratch(factors.sets * chunk * plane);
        cuda::fourier(c.row, made, spectral, factors, scratch.data(), chunk, nullptr);
        c.compare("fourier", [&](const Values& x) { return in_spectrum(shape, x, apply); });
    }
    // These passes lie around another library's transforms, which are left out here.
    std::vector<std::complex<float>> z(factors.sets * made.all_pairs() * plane);
    cuda::fourier_pack(c.row, made, factors.sets, z.data(), nullptr);
    if (factor == 1) cuda::fourier_multiply(shape, made, spectral, factors, z.data(), nullptr);
    else
        cuda::fourier_alias(shape, made, spectral, factors, static_cast<int>(low_height), static_cast<int>(low_width),
                            z.data(), nullptr);
    cuda::fourier_unpack(c.row, made, z.data(), nullptr);
    c.compare("fourier_pack, unpack", [&](const Values& x) {
        Values y(x.size());
        for (std::int64_t p = 0; p < shape.planes(); ++p) {
            // The other plane of the pair is the imaginary part, which a complex basis mixes in.
            const std::int64_t of_group = p % made.planes, other = of_group ^ 1;
            const std::int64_t q = other < made.planes ? p - of_group + other : -1;
            std::vector<Number> a(plane);
            for (std::size_t i = 0; i < plane; ++i) {
                const double mine = x[p * plane + i], its = q < 0 ? 0.0 : x[q * plane + i];
                a[i] = of_group % 2 ? Number(its, mine) : Number(mine, its);
            }
            apply(a);
            for (std::size_t i = 0; i < plane; ++i) y[p * plane + i] = of_group % 2 ? a[i].imag() : a[i].real();
        }
        return y;
    });
}

// ------------------------------------------------------------------------------------------- separable
// A circular band matrix (rows, columns), whose entries `entry` gives, and its tiles.
struct Matrix {
    std::vector<float> taps;
    std::vector<std::int32_t> start, base;
    CyclicBand band;

    Matrix(int rows, int columns, int width, int tile, const std::function<std::pair<int, float>(int, int)>& entry)
        : taps(width * rows), start(rows), base((rows + tile - 1) / tile) {
        int last = 0;
        for (int i = 0; i < rows; ++i) {
            start[i] = entry(i, 0).first;
            last = start[i] > last ? start[i] : last;
            for (int t = 0; t < width; ++t) taps[t * rows + i] = entry(i, t).second;
        }
        band = {taps.data(), start.data(), base.data(), rows, columns, width, tile, last + width};
    }
    Values apply(const Values& x) const {
        Values y(band.rows);
        for (int i = 0; i < band.rows; ++i)
            for (int t = 0; t < band.width; ++t)
                y[i] += static_cast<double>(taps[t * band.rows + i]) * x[(start[i] + t) % band.columns];
        return y;
    }
};

// The three factors are arbitrary, because the kernel does not ask that their product be a projection.
struct Axis {
    Matrix down, inverse, up;

    Axis(int high, int stride, int tile)
        : down(high / stride, high, 3, tile,
               [=](int i, int t) { return std::pair((stride * i + high - 1) % high, 0.5f - 0.2f * t); }),
          inverse(high / stride, high / stride, 2, tile, [=](int i, int t) { return std::pair(i, 1.0f - 0.4f * t); }),
          up(high, high / stride, 2, tile, [=](int i, int t) { return std::pair(i / stride, 0.3f + 0.1f * t); }) {}
    Values apply(const Values& x) const { return up.apply(inverse.apply(down.apply(x))); }
    BandedAxes bands() const { return {down.band, inverse.band, up.band}; }
};

void separable(Shape shape, int stride, int tile) {
    const int height = static_cast<int>(shape.height), width = static_cast<int>(shape.width);
    const Axis rows(height, stride, tile), columns(width, stride, tile);
    std::vector<float> low(2 * shape.planes() * (height / stride) * (width / stride));
    Case c(shape);
    cuda::separable(c.row, rows.bands(), columns.bands(), low.data(), nullptr);
    c.compare("separable", [&](Values x) {
        for (std::int64_t p = 0; p < shape.planes(); ++p) {
            double* const plane = x.data() + p * shape.plane();
            for (int h = 0; h < height; ++h) {
                const Values y = columns.apply(Values(plane + h * width, plane + (h + 1) * width));
                std::copy(y.begin(), y.end(), plane + h * width);
            }
            for (int w = 0; w < width; ++w) {
                Values column(height);
                for (int h = 0; h < height; ++h) column[h] = plane[h * width + w];
                column = rows.apply(column);
                for (int h = 0; h < height; ++h) plane[h * width + w] = column[h];
            }
        }
        return x;
    });
}

// ------------------------------------------------------------------------------------------- products
// V, (side, rank), and its transpose. The kernels do not ask that its columns be orthonormal.
struct Dense {
    std::vector<float> up, down;
    cuda::DenseAxis axis;

    Dense(int side, int rank) : up(side * rank), down(side * rank), axis{up.data(), down.data(), side, rank} {
        for (int i = 0; i < side; ++i)
            for (int k = 0; k < rank; ++k)
                up[i * rank + k] = down[k * side + i] = static_cast<float>(0.4 * drawn(i * rank + k));
    }
    double entry(int i, int k) const { return up[i * axis.rank + k]; }
};

// V f V^T of three sums with factors of their own, of which the first is 1.
void products(Shape shape, int rank_of_rows, int rank_of_columns) {
    const int height = static_cast<int>(shape.height), width = static_cast<int>(shape.width);
    const Dense rows(height, rank_of_rows), columns(width, rank_of_columns);
    Case c(shape);
    const std::vector<float> twice(rank_of_rows * rank_of_columns, 1.0f);
    cuda::Factors factors = one_set;
    factors.sets = 3;
    for (int k = 1; k < 3; ++k) c.row.terms[k].set = k, factors.data[k] = twice.data();
    std::vector<float> work(3 * shape.planes() * height * rank_of_columns);
    cuda::products(c.row, rows.axis, columns.axis, factors, work.data(), nullptr);
    c.compare("products", [&](const Values& x) {
        Values y(x.size());
        for (std::int64_t p = 0; p < shape.planes(); ++p)
            for (int a = 0; a < rank_of_rows; ++a)
                for (int b = 0; b < rank_of_columns; ++b) {
                    double inner = 0.0;
                    for (int h = 0; h < height; ++h)
                        for (int w = 0; w < width; ++w)
                            inner += rows.entry(h, a) * columns.entry(w, b) * x[p * shape.plane() + h * width + w];
                    for (int h = 0; h < height; ++h)
                        for (int w = 0; w < width; ++w)
                            y[p * shape.plane() + h * width + w] += rows.entry(h, a) * columns.entry(w, b) * inner;
                }
        return y;
    });
}

void lincomb(Shape shape) {
    Case c(shape);
    std::vector<float> field(c.count());
    cuda::combine(c.row, field.data(), nullptr);
    cuda::finish(c.row, field.data(), nullptr);
    c.compare("lincomb", [](const Values& x) { return x; });
}

}  // namespace

int main(int count, char** arguments) {
    if (count == 3) {
        cuda_emulator::skip_barrier(std::atoi(arguments[2]));
        const bool factor = !std::strcmp(arguments[1], "alias");
        if (!std::strcmp(arguments[1], "products")) products({1, 1, 8, 9}, 3, 4);
        else if (!std::strcmp(arguments[1], "separable")) separable({1, 1, 16, 16}, 2, 8);
        else fourier({1, 1, 64, 64}, factor ? 2 : 1, 1, 1);
        return 0;  // The sanitizer decides, not the values.
    }
    fourier({1, 3, 64, 64}, 1, 1, 1);
    fourier({2, 1, 64, 64}, 2, 2, 2);
    fourier({1, 1, 64, 128}, 4, 1, 1);
    fourier({2, 3, 9, 6}, 3, 2, 1);
    fourier({1, 3, 5, 7}, 1, 1, 1);
    fourier({1, 3, 64, 64}, 1, 1, 2, true);
    fourier({1, 1, 64, 64}, 2, 1, 1, true);
    fourier({2, 3, 9, 6}, 3, 2, 1, true);
    products({2, 1, 9, 11}, 4, 5);
    products({1, 2, 5, 70}, 5, 3);
    separable({2, 3, 24, 40}, 2, 8);
    separable({1, 1, 33, 66}, 3, 16);
    separable({1, 2, 8, 72}, 1, 32);
    lincomb({2, 3, 7, 9});
    lincomb({2, 2, 32, 36});
    std::printf(failures ? "%d failures\n" : "CUDA kernels: all as defined\n", failures);
    return failures != 0;
}
