// A block takes Fourier transforms of N = 64 .. 2048 points. Each thread holds 8 points, and N / 8 threads share a
// transform.
//
// The form is Stockham's, in natural order before and after. In the stage with radix R after stages with product S,
// butterfly j (of N / R) takes x[j + r N/R], r = 0 .. R-1, times exp(-+2 pi i (j mod S) r / (S R)), and its outputs are
// x[(j div S) S R + j mod S + r S]. Thread t does butterflies t + b T (T = N / 8), so before the first stage and after
// the last it holds x[t + k T], k = 0 .. 7; between two stages the values change hands through shared memory.
#pragma once

#include "params.h"
#include "platform.h"

namespace ccf::cuda {

constexpr int held = 8;  // A thread holds so many points.

struct alignas(8) Complex {
    float re, im;
};

__device__ __forceinline__ Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
__device__ __forceinline__ Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
__device__ __forceinline__ Complex operator*(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
__device__ __forceinline__ Complex conjugate(Complex a) { return {a.re, -a.im}; }
__device__ __forceinline__ Complex times(float f, Complex a) { return {f * a.re, f * a.im}; }

// a exp(Sign i pi / 2)
template <int Sign>
__device__ __forceinline__ Complex quarter_turn(Complex a) {
    return Sign < 0 ? Complex{a.im, -a.re} : Complex{-a.im, a.re};
}

// ------------------------------------------------------------------------------------------- butterflies
template <int Sign>
__device__ __forceinline__ void butterfly(Complex& a, Complex& b) {
    const Complex sum = a + b;
    b = a - b;
    a = sum;
}

template <int Sign>
__device__ __forceinline__ void butterfly(Complex& a, Complex& b, Complex& c, Complex& d) {
    butterfly<Sign>(a, c);
    butterfly<Sign>(b, d);
    d = quarter_turn<Sign>(d);
    butterfly<Sign>(a, b);
    butterfly<Sign>(c, d);
    const Complex second = c;  // Here (a, b, c, d) are outputs 0, 2, 1, 3.
    c = b;
    b = second;
}

// Eight values at distance 1.
template <int Sign>
__device__ __forceinline__ void butterfly(Complex* v) {
    constexpr float half = 0.70710678118654752f;  // This is sqrt(1/2).
    butterfly<Sign>(v[0], v[2], v[4], v[6]);
    butterfly<Sign>(v[1], v[3], v[5], v[7]);
    // the odd half times exp(Sign 2 pi i r / 8), r = 1, 2, 3
    const Complex turned = quarter_turn<Sign>(v[3]), back = quarter_turn<Sign>(v[7]);
    v[3] = {half * (v[3].re + turned.re), half * (v[3].im + turned.im)};
    v[5] = quarter_turn<Sign>(v[5]);
    v[7] = {half * (back.re - v[7].re), half * (back.im - v[7].im)};
    Complex even[4] = {v[0], v[2], v[4], v[6]}, odd[4] = {v[1], v[3], v[5], v[7]};
#pragma unroll
    for (int r = 0; r < 4; ++r) v[r] = even[r] + odd[r], v[r + 4] = even[r] - odd[r];
}

// ------------------------------------------------------------------------------------------- stages
// Roots of unity of a transform: for each stage but the first, with S and R as above, the powers 2^q, q < log2 R, of
// exp(-2 pi i m / (S R)), m = 0 .. S-1, as [q][m]; kernels/cuda/fourier.py makes the table in float64.

// v[b + r B] is input r of butterfly b (B of them); times w^r.
template <int Sign, int R>
__device__ __forceinline__ void twist(Complex* v, unsigned m, int done, const Complex* __restrict__ roots) {
    constexpr int B = held / R;
    Complex power[3];
#pragma unroll
    for (int q = 0; q < log2(R); ++q) power[q] = Sign < 0 ? roots[q * done + m] : conjugate(roots[q * done + m]);
    v[B] = v[B] * power[0];
    if constexpr (R >= 4) {
        v[2 * B] = v[2 * B] * power[1];
        v[3 * B] = v[3 * B] * (power[0] * power[1]);
    }
    if constexpr (R == 8) {
        v[4] = v[4] * power[2];
        v[5] = v[5] * (power[0] * power[2]);
        v[6] = v[6] * (power[1] * power[2]);
        v[7] = v[7] * (power[0] * power[1] * power[2]);
    }
}

template <int Sign, int R>
__device__ __forceinline__ void butterflies(Complex* v) {
    constexpr int B = held / R;
    if constexpr (R == 8) butterfly<Sign>(v);
#pragma unroll
    for (int b = 0; b < B && R < 8; ++b) {
        if constexpr (R == 4) butterfly<Sign>(v[b], v[b + B], v[b + 2 * B], v[b + 3 * B]);
        if constexpr (R == 2) butterfly<Sign>(v[b], v[b + B]);
    }
}

// The stages from the one after `Done` on. `exchange` has write(position, more, value) and read(position, more), at
// position + more, and barrier().
// `Fresh` says that no thread can still be reading what the first write overwrites.
template <int N, int Sign, bool Fresh, int Done = 1, class Exchange>
__device__ __forceinline__ void transform(Complex* v, unsigned t, const Complex* __restrict__ roots,
                                          const Exchange& exchange) {
    constexpr int R = radix(N, Done), B = held / R, T = N / held;
#pragma unroll
    for (int b = 0; b < B && Done > 1; ++b) twist<Sign, R>(v + b, (t + b * T) % Done, Done, roots);
    butterflies<Sign, R>(v);
    if constexpr (Done * R < N) {
        if (!Fresh || Done > 1) exchange.barrier();
#pragma unroll
        for (int b = 0; b < B; ++b) {
            const unsigned j = t + b * T, position = j / Done * (Done * R) + j % Done;
#pragma unroll
            for (int r = 0; r < R; ++r) exchange.write(position, r * Done, v[b + r * B]);
        }
        exchange.barrier();
#pragma unroll
        for (int k = 0; k < held; ++k) v[k] = exchange.read(t, k * T);
        transform<N, Sign, Fresh, Done * R>(v, t, roots + (Done > 1 ? Done * log2(R) : 0), exchange);
    }
}

// ------------------------------------------------------------------------------------------- shared memory
// Points of `Lines` neighbouring columns, [position][line]. Positions that a first stage writes are 8 apart; the rows
// skipped after each 8 (16 where there is one line) spread them over all banks. Warp: the threads that share the tile
// are of one warp.
template <int Lines, bool Warp>
struct Tile {
    static constexpr unsigned every = Lines >= 16 ? 0 : Lines == 1 ? 16 : 8;

    static constexpr unsigned slot(unsigned position) {
        return (position + (every ? position / (every ? every : 1) : 0)) * Lines;
    }
    static constexpr int size(int n) { return slot(n); }

    Complex* data;

    // In every stage the two parts of a position add up without a carry into the skipped rows, so that their slots add
    // up too and those of `more`, known to the compiler, are part of the instruction.
    __device__ __forceinline__ void write(unsigned position, unsigned more, Complex value) const {
        data[slot(position) + slot(more)] = value;
    }
    __device__ __forceinline__ Complex read(unsigned position, unsigned more) const {
        return data[slot(position) + slot(more)];
    }
    __device__ __forceinline__ void barrier() const {
        if constexpr (Warp) __syncwarp();
        else __syncthreads();
    }
};

}  // namespace ccf::cuda
