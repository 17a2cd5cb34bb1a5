// Lets g++ compile the kernels and run them on a CPU, for tests: the blocks of a launch one after another, the threads
// of a block as coroutines that switch at __syncthreads. Exactly one thread runs at any time.
//
// Made to find mistakes, not to be fast: shared memory is filled with NaN before every block, odd blocks run their
// threads in reverse order, `reverse` turns all orders round, and a barrier that only some threads reach is reported.
//
// Compiled with -fsanitize=thread, every thread is one to the sanitizer too. Only a barrier orders those of a block and
// nothing those of different blocks, so it reports what the order of the coroutines hides.

#pragma once

#include <cmath>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/mman.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define SHIM_UNSEEN __attribute__((no_sanitize_thread, noinline))
#else
#define SHIM_UNSEEN
#endif

#define SQD_HOST 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __syncthreads() shim::barrier()

struct ShimIndex {
    unsigned int x, y, z;
};
static ShimIndex threadIdx = {0, 0, 0}, blockIdx = {0, 0, 0}, blockDim = {1, 1, 1}, gridDim = {1, 1, 1};

namespace shim {

static char* shared_memory = nullptr;

constexpr size_t stack_bytes = 256 * 1024;

struct Place {  // where a coroutine, or the scheduler, goes on
#if defined(__x86_64__)
    void* stack_pointer = nullptr;
#else
    ucontext_t context;
#endif
    void* fake_stack = nullptr;
    void* sanitized = nullptr;  // what it is to the thread sanitizer
};

#if defined(__x86_64__)
// Save the registers that a called function must keep, change the stack, and take them from there.
extern "C" void sqd_shim_switch(void** from, void* to);
asm(R"(
.text
.p2align 4
.local sqd_shim_switch
.type sqd_shim_switch, @function
sqd_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size sqd_shim_switch, .-sqd_shim_switch
)");
#endif

struct Fiber {
    Place place;
    char* stack = nullptr;
    unsigned int thread = 0;
    bool finished = true;
    bool turn = false;  // of the barriers that it has passed
};

struct Launch {
    void (*body)(void*) = nullptr;
    void* arguments = nullptr;
};

static Launch current;
static Place scheduler;
static Fiber* running = nullptr;
static const void* scheduler_stack = nullptr;
static size_t scheduler_bytes = 0;
static std::vector<Fiber*> fibers;

// Places that order threads for the thread sanitizer: the start of a block, its barriers in turn, the end of a launch.
static char block_begins, barriers[2], launch_ends;

SHIM_UNSEEN inline void order(char* after, char* before) {
#if defined(__SANITIZE_THREAD__)
    if (after != nullptr) __tsan_acquire(after);
    if (before != nullptr) __tsan_release(before);
#else
    (void)after, (void)before;
#endif
}

SHIM_UNSEEN inline void leave(Place& from, Place& to, const void* bottom, size_t bytes) {
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to.sanitized, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from.fake_stack, bottom, bytes);
#else
    (void)bottom, (void)bytes;
#endif
#if defined(__x86_64__)
    sqd_shim_switch(&from.stack_pointer, to.stack_pointer);
#else
    swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

__attribute__((noinline)) SHIM_UNSEEN static void barrier() {
    Fiber* self = running;
    order(nullptr, &barriers[self->turn]);
    leave(self->place, scheduler, scheduler_stack, scheduler_bytes);
    order(&barriers[self->turn], nullptr);  // all have come here, and none has come to the next one
    self->turn = !self->turn;
}

SHIM_UNSEEN static void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_bytes);
#endif
    for (;;) {  // one thread after another on the same stack
        order(&block_begins, nullptr);
        running->turn = false;
        current.body(current.arguments);
        order(nullptr, &launch_ends);
        running->finished = true;
        leave(running->place, scheduler, scheduler_stack, scheduler_bytes);
    }
}

SHIM_UNSEEN inline Fiber* new_fiber() {
    Fiber* fiber = new Fiber;
#if defined(__SANITIZE_THREAD__)
    fiber->place.sanitized = __tsan_create_fiber(0);
#endif
    void* memory = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("sqd_mpi host shim: mmap");
        std::abort();
    }
    fiber->stack = static_cast<char*>(memory);
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(fiber->stack + stack_bytes) - 1;  // aligned as after a call
    *top = nullptr;
    *--top = reinterpret_cast<void*>(&fiber_main);
    for (int k = 0; k < 6; ++k) *--top = nullptr;
    fiber->place.stack_pointer = top;
#else
    getcontext(&fiber->place.context);
    fiber->place.context.uc_stack.ss_sp = fiber->stack;
    fiber->place.context.uc_stack.ss_size = stack_bytes;
    fiber->place.context.uc_link = nullptr;
    makecontext(&fiber->place.context, &fiber_main, 0);
#endif
    return fiber;
}

// The coroutine of a thread: the first one that is free, or, as seen by the thread sanitizer, one for every thread, but
// not the same in every block.
SHIM_UNSEEN inline Fiber* fiber_of(size_t first_free, unsigned int thread, unsigned int n_threads) {
#if defined(__SANITIZE_THREAD__)
    const size_t number = (thread + 17 * static_cast<size_t>(blockIdx.x)) % n_threads;
#else
    const size_t number = first_free;
    (void)thread, (void)n_threads;
#endif
    while (number >= fibers.size()) fibers.push_back(new_fiber());
    return fibers[number];
}

SHIM_UNSEEN inline void resume(Fiber* fiber) {
    running = fiber;
    threadIdx.x = fiber->thread;
    leave(scheduler, fiber->place, fiber->stack, stack_bytes);
}

// Run all threads of one block; false if some finish while others wait at a barrier.
SHIM_UNSEEN inline bool run_block(unsigned int n_threads, bool reverse) {
    static std::vector<Fiber*> waiting;
    waiting.clear();
    size_t next = 0;  // fibers before this one wait at a barrier
    for (unsigned int k = 0; k < n_threads; ++k) {
        const unsigned int thread = reverse ? n_threads - 1 - k : k;
        Fiber* fiber = fiber_of(next, thread, n_threads);
        fiber->thread = thread;
        fiber->finished = false;
        resume(fiber);
        if (!fiber->finished) {
            waiting.push_back(fiber);
            ++next;
        }
    }
    while (!waiting.empty()) {
        if (waiting.size() != n_threads) return false;
        size_t n_left = 0;
        for (Fiber* fiber : waiting) {
            resume(fiber);
            if (!fiber->finished) waiting[n_left++] = fiber;
        }
        waiting.resize(n_left);
    }
    return true;
}

template <class... A>
struct Call {
    void (*kernel)(A...);
    void** arguments;

    template <size_t... I>
    void at(std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
    }
    static void body(void* self) { static_cast<Call*>(self)->at(std::index_sequence_for<A...>{}); }
};

// Shared memory for one block, full of NaN. The thread sanitizer forgets at a new mapping what the block before did.
SHIM_UNSEEN inline char* new_shared_memory(char* old, size_t bytes) {
#if defined(__SANITIZE_THREAD__)
    if (old != nullptr) munmap(old, bytes);
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    for (size_t k = 0; k < bytes; ++k) static_cast<volatile char*>(memory)[k] = -1;
    return static_cast<char*>(memory);
#else
    void* memory = old;
    if (memory == nullptr && posix_memalign(&memory, 128, bytes) != 0) std::abort();
    std::memset(memory, 0xff, bytes);
    return static_cast<char*>(memory);
#endif
}

SHIM_UNSEEN inline void free_shared_memory(char* memory, size_t bytes) {
#if defined(__SANITIZE_THREAD__)
    if (memory != nullptr) munmap(memory, bytes);
#else
    (void)bytes;
    std::free(memory);
#endif
}

// Status: 0 done, 1 a barrier that not all threads of a block reached.
template <class... A>
SHIM_UNSEEN int launch(void (*kernel)(A...), int64_t n_blocks, int64_t n_threads, int64_t shared_bytes, void** arguments,
           int reverse) {
    Call<A...> call{kernel, arguments};
    current = Launch{&Call<A...>::body, &call};
    gridDim.x = static_cast<unsigned int>(n_blocks);
    blockDim.x = static_cast<unsigned int>(n_threads);
    const size_t bytes = shared_bytes > 0 ? shared_bytes : 1;
#if defined(__SANITIZE_THREAD__)
    scheduler.sanitized = __tsan_get_current_fiber();
#endif
    bool good = true;
    for (int64_t block = 0; block < n_blocks && good; ++block) {
        blockIdx.x = static_cast<unsigned int>(reverse ? n_blocks - 1 - block : block);
        shared_memory = new_shared_memory(shared_memory, bytes);
        order(nullptr, &block_begins);
        good = run_block(blockDim.x, (blockIdx.x % 2 == 1) != (reverse != 0));
    }
    if (!good) fibers.clear();  // those that wait inside a kernel cannot be used again
    order(&launch_ends, nullptr);
    free_shared_memory(shared_memory, bytes);
    shared_memory = nullptr;
    return good ? 0 : 1;
}

template <class T>
constexpr char letter() {
    using U = std::remove_cv_t<T>;
    return std::is_same_v<U, double>               ? 'd'
           : std::is_same_v<U, float>              ? 'f'
           : std::is_same_v<U, long long>          ? 'q'
           : std::is_same_v<U, unsigned long long> ? 'Q'
           : std::is_same_v<U, int>                ? 'i'
           : std::is_same_v<U, unsigned int>       ? 'I'
           : std::is_same_v<U, short>              ? 'h'
           : std::is_same_v<U, unsigned short>     ? 'H'
           : std::is_same_v<U, signed char>        ? 'b'
           : std::is_same_v<U, unsigned char>      ? 'B'
                                                   : '?';
}

// One letter for each parameter, with P before that of what a pointer points to.
template <class... A>
const char* types(void (*)(A...)) {
    static const std::string text = [] {
        std::string all;
        ((all += std::is_pointer_v<A> ? "P" : "", all += letter<std::remove_pointer_t<A>>()), ...);
        return all;
    }();
    return text.c_str();
}

}  // namespace shim

// Made for every kernel of a file by host_device.py.
#define SQD_LAUNCHER(kernel)                                                                                   \
    extern "C" int sqd_launch_##kernel(int64_t n_blocks, int64_t n_threads, int64_t shared_bytes, void** args, \
                                       int reverse) {                                                          \
        return shim::launch(&kernel, n_blocks, n_threads, shared_bytes, args, reverse);                        \
    }                                                                                                          \
    extern "C" const char* sqd_types_##kernel() { return shim::types(&kernel); }

extern "C" void* sqd_allocate(int64_t n_bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, n_bytes > 0 ? n_bytes : 1) != 0) return nullptr;
    std::memset(memory, 0xff, n_bytes);  // NaN
    return memory;
}

extern "C" void sqd_free(void* memory) { std::free(memory); }
