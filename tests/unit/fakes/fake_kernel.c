/* SPDX-License-Identifier: Apache-2.0
 *
 * A kernel as the compiler would emit it, for tests that need an object without a compiler: constants, a table of
 * pointers (absolute relocations), writable data and a call inside of the object.
 */
#include <stdint.h>

static const int32_t primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};
static const int32_t squares[8] = {0, 1, 4, 9, 16, 25, 36, 49};
const int32_t *const fake_tables[2] = {primes, squares};
volatile int64_t fake_bias = 1000;

__attribute__((noinline)) static int32_t look_up(int64_t table, int64_t index) {
  return fake_tables[table & 1][index & 7];
}

/* args: ptr<i32> out, i64 table. Program i writes out[i]; program 99 fails. */
int32_t fake_kernel(const uint64_t *args, const int64_t *program_id) {
  if (program_id[0] == 99)
    return 7;
  ((int32_t *)args[0])[program_id[0]] = look_up((int64_t)args[1], program_id[0]) + (int32_t)fake_bias;
  return 0;
}
