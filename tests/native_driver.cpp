// Runs every CPU kernel without torch, on three threads and on arrays of exactly their size, for the sanitizers, and
// compares with the definition in double. sanitize.sh builds it; test_native.py tests more values and dtypes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <vector>

#include "../csrc/cpu/kernels.h"
#include "../csrc/math.h"

using namespace ccf;
using Values = std::vector<double>;

namespace {

int failures = 0;

double drawn(std::size_t i) { return std::sin(12.9898 * static_cast<double>(i) + 78.233); }

// A row of one term of every dtype, with the tensors behind the terms and both outputs. Where it is strided, the terms
// have two layouts, and coefficients of every element of a plane and of every column; else all are contiguous.
struct Case {
    Shape shape;
    std::vector<std::vector<float>> floats;
    std::vector<bfloat16> brains;
    std::vector<float16> halves;
    std::vector<float> out;
    std::vector<bfloat16> next;
    std::vector<float> scale, elements;
    Row row{};

    explicit Case(Shape s, bool strided = true)
        : shape(s), floats(2), out(count()), next(count()), scale(s.batch), elements(s.plane()) {
        for (auto& values : floats) values.resize(count());
        brains.resize(count()), halves.resize(count());
        for (std::size_t i = 0; i < count(); ++i) {
            floats[0][i] = static_cast<float>(drawn(i));
            floats[1][i] = static_cast<float>(drawn(i + 7));
            brains[i] = from_float<bfloat16>(static_cast<float>(drawn(i + 11)));
            halves[i] = from_float<float16>(static_cast<float>(drawn(i + 13)));
        }
        for (std::size_t b = 0; b < scale.size(); ++b) scale[b] = 1.0f + static_cast<float>(b);
        row.shape = shape;
        const std::int64_t plane = shape.plane();
        const std::int64_t planes_first[4] = {shape.channels * plane, plane, shape.width, 1};
        std::int64_t channels_last[4] = {shape.channels * plane, 1, shape.width * shape.channels, shape.channels};
        if (!strided) std::copy_n(planes_first, 4, channels_last);
        for (std::size_t i = 0; i < elements.size(); ++i) elements[i] = static_cast<float>(drawn(i + 17));
        add(floats[0].data(), Dtype::float32, planes_first, 0.9f, 0.5f);
        add(floats[1].data(), Dtype::float32, channels_last, -0.4f, 0.0f);
        add(brains.data(), Dtype::bfloat16, planes_first, 0.7f, -1.1f);
        add(halves.data(), Dtype::float16, channels_last, 0.0f, 0.3f);
        row.terms[0].scale = scale.data(), row.terms[0].scale_stride[0] = 1;
        if (strided) {
            for (Term* term : {&row.terms[2], &row.terms[3]})
                term->scale = elements.data(), term->scale_per_element = true, term->scale_stride[3] = 1;
            row.terms[2].scale_stride[2] = shape.width;
        }
        row.out = out.data(), row.out_dtype = Dtype::float32;
        row.next = next.data(), row.next_dtype = Dtype::bfloat16;
        row.c_in = 0.5f;
    }

    std::size_t count() const { return static_cast<std::size_t>(shape.planes() * shape.plane()); }

    void add(const void* data, Dtype dtype, const std::int64_t* stride, float direct, float projected) {
        Term& term = row.terms[row.count++];
        term = {data, {}, dtype, direct, projected, nullptr, {}, false};
        for (int d = 0; d < 4; ++d) term.stride[d] = stride[d];
    }

    // Returns the sum of coefficient times term, contiguous.
    Values sum(float Term::* coefficient) const {
        Values result(count());
        for (std::size_t i = 0; i < count(); ++i) {
            const auto n = static_cast<std::int64_t>(i);
            const std::int64_t w = n % shape.width, h = n / shape.width % shape.height;
            const std::int64_t c = n / shape.plane() % shape.channels, b = n / shape.plane() / shape.channels;
            for (int k = 0; k < row.count; ++k) {
                const Term& term = row.terms[k];
                const std::int64_t at =
                    b * term.stride[0] + c * term.stride[1] + h * term.stride[2] + w * term.stride[3];
                const double value = k < 2 ? floats[k][at] : k == 2 ? to_float(brains[at]) : to_float(halves[at]);
                const std::int64_t* const s = term.scale_stride;
                const float factor = term.scale ? term.scale[b * s[0] + c * s[1] + h * s[2] + w * s[3]] : 1.0f;
                result[i] += factor * value * term.*coefficient;
            }
        }
        return result;
    }

    void compare(const char* name, const std::function<Values(const Values&)>& project) const {
        const Values direct = sum(&Term::direct), projected = project(sum(&Term::projected));
        for (std::size_t i = 0; i < count(); ++i) {
            const double want = direct[i] + (projected.empty() ? 0.0 : projected[i]);
            if (std::abs(out[i] - want) < 1e-5 && std::abs(to_float(next[i]) - 0.5 * want) < 0.02) continue;
            std::printf("%s %ldx%ldx%ldx%ld: element %zu is %g, not %g\n", name, shape.batch, shape.channels,
                        shape.height, shape.width, i, out[i], want);
            ++failures;
            return;
        }
    }
};

void local_kinds(Shape shape, std::int64_t tile_height, std::int64_t tile_width, bool strided) {
    const auto plane = static_cast<std::size_t>(shape.plane());
    Case c(shape, strided);
    cpu::lincomb(c.row);
    c.compare("lincomb", [](const Values&) { return Values(); });

    std::vector<float> m(plane);
    for (std::size_t i = 0; i < plane; ++i) m[i] = i % 3 ? 1.0f : 0.0f;
    cpu::mask(c.row, {m.data(), 0, 0});
    c.compare("mask", [&](Values x) {
        for (std::size_t i = 0; i < x.size(); ++i) x[i] *= m[i % plane];
        return x;
    });

    cpu::block(c.row, tile_height, tile_width);
    c.compare("block", [&](const Values& x) {
        Values y(x.size());
        const auto tile = [&](std::size_t i) {
            const auto n = static_cast<std::int64_t>(i);
            return (n / shape.width / tile_height * tile_height * shape.width) +
                   n % shape.width / tile_width * tile_width;
        };
        for (std::size_t i = 0; i < x.size(); ++i) y[tile(i)] += x[i] / static_cast<double>(tile_height * tile_width);
        for (std::size_t i = x.size(); i-- > 0;) y[i] = y[tile(i)];
        return y;
    });

    const float equal = 1.0f / std::sqrt(static_cast<float>(shape.channels));
    std::vector<float> v(static_cast<std::size_t>(shape.channels), equal);
    cpu::channel(c.row, v.data());
    c.compare("channel", [&](const Values& x) {
        Values y(x.size());
        const auto channels = static_cast<std::size_t>(shape.channels);
        for (std::size_t i = 0; i < x.size(); ++i)
            for (std::size_t k = 0; k < channels; ++k)
                y[i] += x[(i / plane / channels * channels + k) * plane + i % plane] / static_cast<double>(channels);
        return y;
    });
}

// H takes every second row and column, so that H H^T = 1, and P keeps the elements with even indices.
void separable(Shape shape) {
    const auto axis = [](std::int64_t high, std::vector<float>& ones, std::vector<float>& up,
                         std::vector<float>& inverse, std::vector<std::int64_t>& even,
                         std::vector<std::int64_t>& half) {
        const std::int64_t low = (high + 1) / 2;
        ones.assign(low, 1.0f), inverse.assign(low * low, 0.0f), up.assign(high, 0.0f);
        even.resize(low), half.resize(high);
        for (std::int64_t i = 0; i < low; ++i) even[i] = 2 * i, inverse[i * low + i] = 1.0f, up[2 * i] = 1.0f;
        for (std::int64_t i = 0; i < high; ++i) half[i] = i / 2;
        return BandedAxis{{ones.data(), even.data(), low, 1}, {up.data(), half.data(), high, 1}, inverse.data()};
    };
    std::vector<float> ones[2], up[2], inverse[2];
    std::vector<std::int64_t> even[2], half[2];
    const BandedAxis rows = axis(shape.height, ones[0], up[0], inverse[0], even[0], half[0]);
    const BandedAxis columns = axis(shape.width, ones[1], up[1], inverse[1], even[1], half[1]);
    std::vector<float> scratch(shape.planes() * rows.down.rows * columns.down.rows);
    Case c(shape);
    cpu::separable(c.row, rows, columns, scratch.data());
    c.compare("separable", [&](Values x) {
        for (std::size_t i = 0; i < x.size(); ++i) {
            const auto n = static_cast<std::int64_t>(i);
            if (n % shape.width % 2 || n / shape.width % shape.height % 2) x[i] = 0.0;
        }
        return x;
    });
}

// There are no transforms in between. P multiplies the pixels by m, or by the products with conj(v) and v. As |v| = 1,
// these make the identity.
void fourier(Shape shape, std::int64_t groups) {
    const auto plane = static_cast<std::size_t>(shape.plane());
    Packing packing{nullptr, groups, shape.planes() / groups};
    std::vector<float> z(2 * groups * packing.pairs() * plane), spectrum(z.size()), m(plane), v(2 * plane);
    for (std::size_t i = 0; i < plane; ++i) m[i] = static_cast<float>(drawn(i)), v[2 * i] = 0.6f, v[2 * i + 1] = 0.8f;
    Packing from = packing;
    from.spectrum = spectrum.data(), packing.spectrum = z.data();
    Case c(shape);
    cpu::fourier_pack(c.row, from);
    cpu::fourier_multiply(packing, shape, spectrum.data(), m.data(), 0);
    cpu::fourier_unpack(c.row, packing);
    c.compare("fourier_multiply", [&](Values x) {
        for (std::size_t i = 0; i < x.size(); ++i) x[i] *= m[i % plane];
        return x;
    });
    cpu::fourier_alias(packing, shape, spectrum.data(), v.data(), 0, shape.height, shape.width);
    cpu::fourier_unpack(c.row, packing);
    c.compare("fourier_alias", [](const Values& x) { return x; });
}

void noise() {
    const std::int64_t batch = 3, count = 4099, seeds[] = {1, -2, 3}, samples[] = {0, 1, 2}, draws[] = {0, 0, 5};
    std::vector<float> out(batch * count, std::nanf(""));
    cpu::normal(out.data(), batch, count, {seeds, samples, draws, 4});
    double square = 0.0;
    for (const float value : out) square += static_cast<double>(value) * value / static_cast<double>(out.size());
    if (!(std::abs(square - 1.0) < 0.1)) std::printf("noise: variance %g\n", square), ++failures;
}

}  // namespace

int main() {
    for (const bool strided : {true, false}) {
        local_kinds({2, 3, 63, 65}, 9, 13, strided);
        local_kinds({3, 2, 1, 4097}, 1, 17, strided);
        local_kinds({1, 1, 1, 7}, 1, 7, strided);
        local_kinds({1, 3, 1000, 3}, 8, 3, strided);
        local_kinds({1, 2, 64, 80}, 4, 16, strided);
        local_kinds({0, 3, 4, 4}, 2, 2, strided);
    }
    for (const Shape shape : {Shape{2, 3, 63, 65}, {1, 1, 1, 7}, {1, 2, 1000, 3}, {0, 1, 8, 8}}) separable(shape);
    fourier({3, 3, 31, 9}, 1);
    fourier({3, 3, 31, 9}, 3);
    fourier({1, 1, 1, 5001}, 1);
    noise();
    std::printf(failures ? "%d failures\n" : "kernels: all as defined\n", failures);
    return failures != 0;
}
