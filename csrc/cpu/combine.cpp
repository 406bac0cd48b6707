#include "combine.h"

#include <type_traits>

#include "../math.h"

namespace ccf::cpu {
namespace {

constexpr bool little_endian = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;

// The types of a vector of floats, of their bits, of as many halves and of twice as many halves; with one lane they are
// plain numbers. They never cross a call, since all that takes them is inlined into functions whose registers they fit.
template <int lanes>
struct Lanes {
    typedef float Floats __attribute__((vector_size(4 * lanes)));
    typedef std::uint32_t Words __attribute__((vector_size(4 * lanes)));
    typedef std::uint16_t Halves __attribute__((vector_size(2 * lanes)));
    typedef std::uint16_t TwiceHalves __attribute__((vector_size(4 * lanes)));
};
template <>
struct Lanes<1> {
    using Floats = float;
    using Words = std::uint32_t;
    using Halves = std::uint16_t;
};

template <class To, class From>
CCF_HD To convert(From from) {
    if constexpr (std::is_arithmetic_v<From>) return static_cast<To>(from);
    else return __builtin_convertvector(from, To);
}

template <class V, class T>
CCF_HD V read(const T* data) {
    V value;
    memcpy(&value, data, sizeof(value));
    return value;
}

// Widens halves to words. GCC would convert the two parts of a register and join them: four operations in place of one.
template <int lanes>
CCF_HD auto widen(typename Lanes<lanes>::Halves halves) {
    using Words = typename Lanes<lanes>::Words;
#if defined(__x86_64__)
    if constexpr (lanes >= 8) {
        Words words;
        asm("vpmovzxwd %1, %0" : "=v"(words) : "vm"(halves));
        return words;
    }
#endif
    return convert<Words>(halves);
}

template <int lanes, class T>
CCF_HD auto load(const T* data) {
    using L = Lanes<lanes>;
    using F = typename L::Floats;
    if constexpr (std::is_same_v<T, float>) return read<F>(data);
    else {
        const auto bits = widen<lanes>(read<typename L::Halves>(data));
        if constexpr (std::is_same_v<T, bfloat16>) return from_bfloat16<F>(bits);
        else return from_float16<F>(bits);
    }
}

template <int lanes, class T, class F>
CCF_HD void save(T* data, F value) {
    using L = Lanes<lanes>;
    if constexpr (std::is_same_v<T, float>) memcpy(data, &value, sizeof(value));
    else {
        typename L::Words bits;
        if constexpr (std::is_same_v<T, bfloat16>) bits = to_bfloat16<typename L::Words>(value);
        else bits = to_float16<typename L::Words>(value);
        const auto halves = convert<typename L::Halves>(bits);
        memcpy(data, &halves, sizeof(halves));
    }
}

// Prefetching looks this many bytes ahead. The pieces of many tensors in turn are runs too short for the processor's
// own.
constexpr std::int64_t ahead = 2048;

// Adds plain s to u and masked s to v, from element i of the source s on, times its factors where it has any.
template <class T, int lanes, int n, class F>
CCF_HD void add_run(const Source& source, const T* data, std::int64_t i, bool masked, F* u, F* v) {
    if constexpr (lanes > 1) {
        for (std::int64_t line = 0; line < static_cast<std::int64_t>(n * lanes * sizeof(T)); line += 64)
            __builtin_prefetch(reinterpret_cast<const char*>(data) + ahead + line);
    }
    const float plain = source.plain, in_mask = source.masked;
    if (source.factor) {
#pragma GCC unroll 8
        for (int j = 0; j < n; ++j) {
            const F value = load<lanes>(data + j * lanes) * load<lanes>(source.factor + i + j * lanes);
            u[j] += plain * value;
            if (masked) v[j] += in_mask * value;
        }
        return;
    }
    // a row whose tensors are in the L2 cache is bound by arithmetic, so that products with zero are left out
    if (plain != 0.0f || !masked) {
#pragma GCC unroll 8
        for (int j = 0; j < n; ++j) u[j] += plain * load<lanes>(data + j * lanes);
    }
    if (masked && in_mask != 0.0f) {
#pragma GCC unroll 8
        for (int j = 0; j < n; ++j) v[j] += in_mask * load<lanes>(data + j * lanes);
    }
}

// Saves two vectors at once: one shuffle picks the upper halves of their rounded words, which saves shifts.
template <int lanes, class F>
CCF_HD void save_two(bfloat16* data, F first, F second) {
    using Halves = typename Lanes<lanes>::TwiceHalves;
    const auto a = bit_cast<Halves>(round_to_bfloat16<typename Lanes<lanes>::Words>(first));
    const auto b = bit_cast<Halves>(round_to_bfloat16<typename Lanes<lanes>::Words>(second));
    Halves upper;
    for (int k = 0; k < 2 * lanes; ++k) upper[k] = static_cast<std::uint16_t>(2 * k + 1);
    const Halves both = __builtin_shuffle(a, b, upper);
    memcpy(data, &both, sizeof(both));
}

template <class T, int lanes, int n, class F>
CCF_HD void add_source(const Source& source, std::int64_t i, bool masked, F* u, F* v) {
    const T* data = static_cast<const T*>(source.data) + i;
    for (std::int64_t run = 0; run < source.runs; ++run, data += source.stride)
        add_run<T, lanes, n>(source, data, i, masked, u, v);
}

template <int lanes, int n, class T, class F>
CCF_HD void save_all(T* data, float c, const F* value) {
    if constexpr (std::is_same_v<T, bfloat16> && n % 2 == 0 && little_endian) {
#pragma GCC unroll 8
        for (int j = 0; j < n; j += 2) save_two<lanes>(data + j * lanes, c * value[j], c * value[j + 1]);
    } else {
#pragma GCC unroll 8
        for (int j = 0; j < n; ++j) save<lanes>(data + j * lanes, c * value[j]);
    }
}

template <int lanes, int n, class F>
CCF_HD void save_as(Dtype dtype, void* data, std::int64_t i, float c, const F* value) {
    switch (dtype) {
        case Dtype::float32: return save_all<lanes, n>(static_cast<float*>(data) + i, c, value);
        case Dtype::bfloat16: return save_all<lanes, n>(static_cast<bfloat16*>(data) + i, c, value);
        case Dtype::float16: return save_all<lanes, n>(static_cast<float16*>(data) + i, c, value);
    }
}

// Adds up from element i on as long as n vectors are left. The dtype of a source is looked at once for all n.
template <int lanes, int n, bool masked>
CCF_HD std::int64_t pass(std::int64_t i, const Source* sources, int count, const float* mask, std::int64_t size,
                         const Sink& sink) {
    using F = typename Lanes<lanes>::Floats;
    constexpr int step = n * lanes;
    for (; i + step <= size; i += step) {
        F u[n]{}, v[n]{};
        for (int k = 0; k < count; ++k) {
            const Source& s = sources[k];
            switch (s.dtype) {
                case Dtype::float32: add_source<float, lanes, n>(s, i, masked, u, v); break;
                case Dtype::bfloat16: add_source<bfloat16, lanes, n>(s, i, masked, u, v); break;
                case Dtype::float16: add_source<float16, lanes, n>(s, i, masked, u, v); break;
            }
        }
        if constexpr (masked) {
#pragma GCC unroll 8
            for (int j = 0; j < n; ++j) u[j] += load<lanes>(mask + i + j * lanes) * v[j];
        }
        save_as<lanes, n>(sink.out_dtype, sink.out, i, 1.0f, u);
        if (sink.next) save_as<lanes, n>(sink.next_dtype, sink.next, i, sink.c_in, u);
    }
    return i;
}

// How many vectors a step takes: more of them share the look at a source, until the registers run out.
template <int lanes>
constexpr int together = lanes == 16 ? 8 : 4;

template <int lanes>
CCF_HD void passes(const Source* sources, int count, const float* mask, std::int64_t size, const Sink& sink) {
    if (mask) {
        std::int64_t i = pass<lanes, together<lanes>, true>(0, sources, count, mask, size, sink);
        i = pass<lanes, 1, true>(i, sources, count, mask, size, sink);
        pass<1, 1, true>(i, sources, count, mask, size, sink);
    } else {
        std::int64_t i = pass<lanes, together<lanes>, false>(0, sources, count, mask, size, sink);
        i = pass<lanes, 1, false>(i, sources, count, mask, size, sink);
        pass<1, 1, false>(i, sources, count, mask, size, sink);
    }
}

// These are no clones, since each has vectors of its own length.
#if !defined(CCF_NO_CLONES) && defined(__x86_64__)
#define CCF_VERSION(isa) __attribute__((target(isa)))
CCF_VERSION("arch=x86-64-v4")
void run(const Source* sources, int count, const float* mask, std::int64_t size, const Sink& sink) {
    passes<16>(sources, count, mask, size, sink);
}
CCF_VERSION("arch=x86-64-v3")
void run(const Source* sources, int count, const float* mask, std::int64_t size, const Sink& sink) {
    passes<8>(sources, count, mask, size, sink);
}
#else
#define CCF_VERSION(isa)
#endif
CCF_VERSION("default")
void run(const Source* sources, int count, const float* mask, std::int64_t size, const Sink& sink) {
    passes<4>(sources, count, mask, size, sink);
}

}  // namespace

void combine(const Source* sources, int count, const float* mask, std::int64_t size, const Sink& sink) {
    run(sources, count, mask, size, sink);  // The loader chooses the version that the processor can run.
}

}  // namespace ccf::cpu
