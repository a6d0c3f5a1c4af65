/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Raw system calls for amd64 and arm64, and the two C library functions a
 * compiler may call on its own.  Results are the kernel's: -errno on failure.
 */
#ifndef JAILDAEMON_SYSCALL_LINUX_H
#define JAILDAEMON_SYSCALL_LINUX_H

#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && !defined(__ILP32__)
#define AUDIT_ARCH_OURS 0xc000003eU /* AUDIT_ARCH_X86_64 */
/* The kernel enters with argc at the stack pointer. */
__asm__(".globl _start\n_start:\n\txorl %ebp, %ebp\n\tmovq %rsp, %rdi\n"
	"\tandq $-16, %rsp\n\tcall helper_main\n");

static inline long
sys6(long n, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
	    : "=a"(ret)
	    : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	    : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__) && defined(__LP64__)
#define AUDIT_ARCH_OURS 0xc00000b7U /* AUDIT_ARCH_AARCH64 */
__asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tmov x30, xzr\n"
	"\tmov x0, sp\n\tbl helper_main\n");

static inline long
sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0"
	    : "+r"(x0)
	    : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
	    : "memory");
	return x0;
}
#else
#error "the helper knows the system calls of 64-bit x86 and 64-bit Arm only"
#endif

#define sys5(n, a, b, c, d, e) \
	sys6((n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define sys4(n, a, b, c, d) sys5(n, a, b, c, d, 0)
#define sys3(n, a, b, c) sys5(n, a, b, c, 0, 0)
#define sys2(n, a, b) sys5(n, a, b, 0, 0, 0)
#define sys1(n, a) sys5(n, a, 0, 0, 0, 0)
#define sys0(n) sys5(n, 0, 0, 0, 0, 0)

void *memset(void *, int, size_t);
void *memcpy(void *restrict, const void *restrict, size_t);
_Noreturn void helper_main(const long *);

static inline _Noreturn void
die(int code)
{
	for (;;)
		sys1(__NR_exit_group, code);
}

#endif
