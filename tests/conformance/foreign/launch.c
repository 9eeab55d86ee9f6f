// SPDX-License-Identifier: Apache-2.0
//
// A kernel in a process of another machine, under an emulator: reads a launch from standard input, runs every program,
// writes the arrays back to standard output. No C library: nothing but the kernel's own code is needed for a machine
// that no package of this system is made for.
//
// Input: u64 arguments, u64 programs, then per argument u64 kind (0: a value, 1: an array) and u64 value or bytes; an
// array's bytes follow, padded to 64. Output: the arrays in order, without padding.
typedef unsigned long u64;
typedef long i64;

int kvq_entry(const u64 *args, const i64 *program_id);

enum { kRead = 63, kWrite = 64, kExit = 93, kMaxArguments = 64 };
static char memory[256 << 20] __attribute__((aligned(64)));

static i64 call(i64 number, i64 a, i64 b, i64 c) {
  register i64 x8 __asm__("x8") = number;
  register i64 x0 __asm__("x0") = a;
  register i64 x1 __asm__("x1") = b;
  register i64 x2 __asm__("x2") = c;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}

static void leave(int code) {
  call(kExit, code, 0, 0);
  __builtin_unreachable();
}

static void read_all(char *to, u64 count) {
  while (count > 0) {
    i64 got = call(kRead, 0, (i64)to, (i64)count);
    if (got <= 0)
      leave(2);
    to += got;
    count -= (u64)got;
  }
}

static void write_all(const char *from, u64 count) {
  while (count > 0) {
    i64 put = call(kWrite, 1, (i64)from, (i64)count);
    if (put <= 0)
      leave(3);
    from += put;
    count -= (u64)put;
  }
}

void _start(void) {
  u64 header[2], kind[kMaxArguments][2], args[kMaxArguments], used = 0;
  read_all((char *)header, sizeof header);
  if (header[0] > kMaxArguments)
    leave(4);
  for (u64 i = 0; i < header[0]; ++i) {
    read_all((char *)kind[i], sizeof kind[i]);
    args[i] = kind[i][1];
    if (kind[i][0] == 0)
      continue;
    u64 padded = (kind[i][1] + 63) / 64 * 64;
    if (used + padded > sizeof memory)
      leave(5);
    args[i] = (u64)(memory + used);
    read_all(memory + used, padded);
    used += padded;
  }
  for (u64 program = 0; program < header[1]; ++program) {
    i64 id[3] = {(i64)program, 0, 0};
    if (kvq_entry(args, id) != 0)
      leave(6);
  }
  for (u64 i = 0; i < header[0]; ++i)
    if (kind[i][0] == 1)
      write_all((const char *)args[i], kind[i][1]);
  leave(0);
}
