// SPDX-License-Identifier: Apache-2.0
//
// Counts calls of the allocator by any thread and any library of the process, operator new included.
#pragma once

#include <cstdint>

namespace kvq_test {

int64_t allocations(); // so far

} // namespace kvq_test
