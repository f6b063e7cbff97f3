// A stack and the place where its thread stopped.
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

namespace emulated {

constexpr size_t FIBER_STACK = 256 << 10;

/// A fresh stack, the page under which may not be touched.
static inline char* fiber_stack() {
    char* stack = (char*)mmap(nullptr, FIBER_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) abort();
    mprotect(stack, 4096, PROT_NONE);
    return stack;
}

#if defined(__x86_64__)

struct Fiber { void* sp; char* stack; };

// Keeps the registers that a call must keep (System V ABI) on the stack that is left, and takes them from the other one.
extern "C" void corella_switch(void** save, void* load) __attribute__((visibility("hidden")));
asm(".text\n.globl corella_switch\n.hidden corella_switch\n.type corella_switch,@function\ncorella_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");

static inline void start_fiber(Fiber& fiber, void (*entry)()) {
    if (!fiber.stack) fiber.stack = fiber_stack();
    // Six registers and the entry; behind them the stack is aligned as after a call.
    void** top = (void**)(fiber.stack + FIBER_STACK) - 1;
    top[-1] = (void*)entry;
    for (int i = 2; i <= 7; i++) top[-i] = nullptr;
    top[0] = nullptr;
    fiber.sp = top - 7;
}
static inline void switch_fiber(Fiber& from, Fiber& to) { corella_switch(&from.sp, to.sp); }

#else

}  // namespace emulated
#include <ucontext.h>
namespace emulated {

struct Fiber { ucontext_t context; char* stack; };

static inline void start_fiber(Fiber& fiber, void (*entry)()) {
    if (!fiber.stack) fiber.stack = fiber_stack();
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = FIBER_STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
}
static inline void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

#endif

}  // namespace emulated
