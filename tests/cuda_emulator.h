// Runs the kernels of csrc/cuda on the CPU. csrc/cuda/platform.h includes this file where the compiler is not nvcc.
//
// The blocks of a launch run one after the other. Every thread of a block is a fiber (ucontext), and a barrier is where
// fibers change: one runs until it waits, then the next. A test then sees a kernel's numbers, and a sanitizer reports
//
//     AddressSanitizer             any access outside global memory or the block's shared memory, with its line;
//     UndefinedBehaviorSanitizer   misaligned vector accesses, overflows;
//     ThreadSanitizer              two accesses with no barrier between them; it is told that a change of fibers orders
//                                  nothing, and that a barrier orders what comes before it and what comes after it.
//
// A barrier that some threads of a block or warp never reach ends the program with a message, and a test of the
// sanitizers can leave out one barrier (skip_barrier). Shared memory starts as NaN. The emulator does not model races
// between blocks, atomics, shuffles, tensor cores, bank conflicts, or timing.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
// The emulator's own variables are shared by all fibers on purpose.
#define CCF_UNWATCHED inline __attribute__((no_sanitize("thread"), noinline))
#else
#define CCF_UNWATCHED inline
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr unsigned count() const { return x * y * z; }
};

struct alignas(16) float4 {
    float x, y, z, w;
};

namespace cuda_emulator {

constexpr std::size_t stack_bytes = 128 * 1024;
constexpr unsigned warp_size = 32;

// A barrier opens when all of its threads have arrived; `turn` counts how often it has. TSan's two objects are used in
// turn, so that a thread already at the next barrier is not ordered before threads that still leave this one.
struct Barrier {
    unsigned threads = 0, arrived = 0, turn = 0;
    char order[2];
};

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    dim3 index;
    unsigned number = 0;
    int barriers = 0;  // It counts those reached so far.
    bool finished = false;
    void *tsan = nullptr, *asan = nullptr;  // These are the sanitizers' handles.
};

struct Block {
    dim3 grid, size, index;
    std::deque<Fiber> fibers;  // Contexts point into them, so none may move.
    Fiber* current = nullptr;
    Barrier barrier;
    std::vector<Barrier> warp_barriers;
    std::unique_ptr<unsigned char[]> shared;
    std::function<void()> kernel;
    int skipped = -1;          // This barrier of every thread is left out.
    unsigned long events = 0;  // It counts openings of barriers and ends of threads.
    char ends;                 // TSan orders by it the ends of threads before what follows the block.

    ucontext_t scheduler;
    void *scheduler_tsan = nullptr, *scheduler_asan = nullptr;
    const void* scheduler_stack = nullptr;
    std::size_t scheduler_stack_size = 0;
};

CCF_UNWATCHED Block& block() {
    static thread_local Block instance;
    return instance;
}

// ------------------------------------------------------------------------------------------- what kernels ask
CCF_UNWATCHED dim3 thread_index() { return block().current->index; }
CCF_UNWATCHED dim3 block_index() { return block().index; }
CCF_UNWATCHED dim3 block_size() { return block().size; }
CCF_UNWATCHED dim3 grid_size() { return block().grid; }
CCF_UNWATCHED unsigned char* shared_memory() { return block().shared.get(); }

// ------------------------------------------------------------------------------------------- changes of fibers
CCF_UNWATCHED void run(Fiber& fiber) {
    Block& b = block();
    b.current = &fiber;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&b.scheduler_asan, fiber.stack.get(), stack_bytes);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&b.scheduler, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(b.scheduler_asan, nullptr, nullptr);
#endif
}

CCF_UNWATCHED void leave() {
    Block& b = block();
    Fiber& fiber = *b.current;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fiber.asan, b.scheduler_stack, b.scheduler_stack_size);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(b.scheduler_tsan, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&fiber.context, &b.scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber.asan, &b.scheduler_stack, &b.scheduler_stack_size);
#endif
}

CCF_UNWATCHED void arrive() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &block().scheduler_stack, &block().scheduler_stack_size);
#endif
}

CCF_UNWATCHED void begin() {
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&block().kernel);  // The launch comes after what the host did.
#endif
}

CCF_UNWATCHED void finish() {
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&block().ends);
#endif
    block().current->finished = true;
    ++block().events;
    leave();
}

// A fiber runs the same thread of all blocks, one block after the other.
inline void fiber_main() {
    arrive();
    for (;;) {
        begin();
        block().kernel();
        finish();
    }
}

CCF_UNWATCHED void wait(Barrier& barrier) {
    if (block().current->barriers++ == block().skipped) return;
    const unsigned turn = barrier.turn;
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&barrier.order[turn % 2]);
#endif
    if (++barrier.arrived == barrier.threads) {
        barrier.arrived = 0, ++barrier.turn, ++block().events;
    } else {
        while (barrier.turn == turn) leave();
    }
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&barrier.order[turn % 2]);
#endif
}

CCF_UNWATCHED void wait_for_block() { wait(block().barrier); }
CCF_UNWATCHED void wait_for_warp() { wait(block().warp_barriers[block().current->number / warp_size]); }

// ------------------------------------------------------------------------------------------- launches
CCF_UNWATCHED void prepare(std::size_t shared_bytes) {
    Block& b = block();
    const unsigned threads = b.size.count();
    // It lies on the heap and has exactly this size, so that ASan sees its end. Every float starts as NaN.
    b.shared.reset(new unsigned char[shared_bytes + 1]);
    std::memset(b.shared.get(), 0xFF, shared_bytes);
    b.barrier = {};
    b.barrier.threads = threads;
    b.warp_barriers.assign((threads + warp_size - 1) / warp_size, {});
    for (unsigned warp = 0; warp < b.warp_barriers.size(); ++warp)
        b.warp_barriers[warp].threads = threads - warp * warp_size < warp_size ? threads % warp_size : warp_size;
    while (b.fibers.size() < threads) b.fibers.emplace_back();
    for (unsigned i = 0; i < threads; ++i) {
        Fiber& fiber = b.fibers[i];
        fiber.finished = false, fiber.number = i, fiber.barriers = 0;
        fiber.index = {i % b.size.x, i / b.size.x % b.size.y, i / (b.size.x * b.size.y)};
        if (fiber.stack) continue;
        fiber.stack.reset(new char[stack_bytes]);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get(), fiber.context.uc_stack.ss_size = stack_bytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, &fiber_main, 0);
#if defined(__SANITIZE_THREAD__)
        fiber.tsan = __tsan_create_fiber(0);
#endif
    }
}

CCF_UNWATCHED void run_block(std::size_t shared_bytes) {
    Block& b = block();
    const unsigned threads = b.size.count();
    prepare(shared_bytes);
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&b.kernel);
#endif
    for (unsigned alive = threads; alive;) {
        const unsigned long before = b.events;
        alive = 0;
        for (unsigned i = 0; i < threads; ++i) {
            if (!b.fibers[i].finished) run(b.fibers[i]);
            alive += !b.fibers[i].finished;
        }
        if (alive && b.events == before) {
            std::fprintf(stderr, "cuda_emulator: %u of %u threads of block (%u, %u, %u) wait for ever at a barrier\n",
                         alive, threads, b.index.x, b.index.y, b.index.z);
            std::abort();
        }
    }
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&b.ends);
#endif
}

// Leaves out the k-th barrier that every thread reaches, in all launches from now on.
inline void skip_barrier(int k) { block().skipped = k; }

template <class Kernel>
void launch(dim3 grid, dim3 size, std::size_t shared_bytes, Kernel kernel) {
    Block& b = block();
    b.grid = grid, b.size = size, b.kernel = kernel;
#if defined(__SANITIZE_THREAD__)
    b.scheduler_tsan = __tsan_get_current_fiber();
#endif
    for (b.index.z = 0; b.index.z < grid.z; ++b.index.z)
        for (b.index.y = 0; b.index.y < grid.y; ++b.index.y)
            for (b.index.x = 0; b.index.x < grid.x; ++b.index.x) run_block(shared_bytes);
}

}  // namespace cuda_emulator

#define threadIdx (cuda_emulator::thread_index())
#define blockIdx (cuda_emulator::block_index())
#define blockDim (cuda_emulator::block_size())
#define gridDim (cuda_emulator::grid_size())

#define __syncthreads() cuda_emulator::wait_for_block()
#define __syncwarp() cuda_emulator::wait_for_warp()
