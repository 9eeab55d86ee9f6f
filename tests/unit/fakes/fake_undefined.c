/* SPDX-License-Identifier: Apache-2.0
 *
 * An object that the loader must refuse: it needs a symbol from elsewhere.
 */
#include <stdint.h>

int32_t fake_elsewhere(int64_t value);

int32_t fake_kernel(const uint64_t *args, const int64_t *program_id) {
  return fake_elsewhere((int64_t)args[0]) + (int32_t)program_id[0];
}
