// Lets g++ compile the kernels and run them on a CPU, for tests: the blocks of a launch one after another, the threads
// of a block as coroutines that switch at __syncthreads. Exactly one thread runs at any time.
//
// Made to find mistakes, not to be fast: shared memory is filled with NaN before every block, odd blocks run their
// threads in reverse order, `reverse` turns all orders round, and a barrier that only some threads reach is reported.

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

inline void leave(Place& from, Place& to, const void* bottom, size_t bytes) {
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

__attribute__((noinline)) static void barrier() {
    Fiber* self = running;
    leave(self->place, scheduler, scheduler_stack, scheduler_bytes);
}

static void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_bytes);
#endif
    for (;;) {  // one thread after another on the same stack
        current.body(current.arguments);
        running->finished = true;
        leave(running->place, scheduler, scheduler_stack, scheduler_bytes);
    }
}

inline Fiber* new_fiber() {
    Fiber* fiber = new Fiber;
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

inline void resume(Fiber* fiber) {
    running = fiber;
    threadIdx.x = fiber->thread;
    leave(scheduler, fiber->place, fiber->stack, stack_bytes);
}

// Run all threads of one block; false if some finish while others wait at a barrier.
inline bool run_block(unsigned int n_threads, bool reverse) {
    static std::vector<Fiber*> waiting;
    waiting.clear();
    size_t next = 0;  // fibers before this one wait at a barrier
    for (unsigned int k = 0; k < n_threads; ++k) {
        if (next == fibers.size()) fibers.push_back(new_fiber());
        Fiber* fiber = fibers[next];
        fiber->thread = reverse ? n_threads - 1 - k : k;
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

// Status: 0 done, 1 a barrier that not all threads of a block reached.
template <class... A>
int launch(void (*kernel)(A...), int64_t n_blocks, int64_t n_threads, int64_t shared_bytes, void** arguments,
           int reverse) {
    Call<A...> call{kernel, arguments};
    current = Launch{&Call<A...>::body, &call};
    gridDim.x = static_cast<unsigned int>(n_blocks);
    blockDim.x = static_cast<unsigned int>(n_threads);
    void* memory = nullptr;
    if (posix_memalign(&memory, 128, shared_bytes > 0 ? shared_bytes : 1) != 0) std::abort();
    shared_memory = static_cast<char*>(memory);
    bool good = true;
    for (int64_t block = 0; block < n_blocks && good; ++block) {
        blockIdx.x = static_cast<unsigned int>(reverse ? n_blocks - 1 - block : block);
        std::memset(shared_memory, 0xff, shared_bytes);  // NaN
        good = run_block(blockDim.x, (blockIdx.x % 2 == 1) != (reverse != 0));
    }
    if (!good) fibers.clear();  // those that wait inside a kernel cannot be used again
    std::free(memory);
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
