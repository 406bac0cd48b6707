// The op library runs on the threads of torch's pool, and the sanitizers' driver, which has no torch, on its own.
#pragma once

#include <cstdint>

#if defined(CCF_STANDALONE)
#include <algorithm>
#include <thread>
#include <vector>
#else
#include <torch/csrc/stable/ops.h>
#endif

namespace ccf::cpu {

// Calls f(begin, end) for disjoint ranges that cover [0, items). An item has per_item elements, by which the work is
// shared out. The result of an item must not depend on the range that it is in.
template <class F>
void parallel_for(std::int64_t items, std::int64_t per_item, const F& f) {
    if (items <= 0) return;
#if defined(CCF_STANDALONE)
    (void)per_item;
    constexpr std::int64_t threads = 3;
    std::vector<std::thread> pool;
    for (std::int64_t t = 0; t < threads; ++t)
        if (items * t / threads < items * (t + 1) / threads)
            pool.emplace_back([&, t] { f(items * t / threads, items * (t + 1) / threads); });
    for (auto& thread : pool) thread.join();
#else
    constexpr std::int64_t elements = 32768;  // Below this a second thread costs more than it brings, as in ATen.
    const std::int64_t grain = (elements + per_item - 1) / (per_item > 0 ? per_item : 1);
    torch::stable::parallel_for(0, items, grain > 0 ? grain : 1, f);
#endif
}

}  // namespace ccf::cpu
