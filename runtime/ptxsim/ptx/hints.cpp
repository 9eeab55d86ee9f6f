// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/ptx/reader.h"

#include <algorithm>

namespace kvq::ptxsim {
namespace {

using Words = std::initializer_list<std::string_view>;
constexpr Words kLoads = {"ca", "cg", "cs", "lu", "cv", "nc"};
constexpr Words kStores = {"wb", "cg", "cs", "wt"};
constexpr Words kCopies = {"ca", "cg"};
constexpr Words kEviction = {"L1::evict_normal", "L1::evict_unchanged",
                             "L1::evict_first",  "L1::evict_last",
                             "L1::no_allocate",  "L2::evict_normal",
                             "L2::evict_first",  "L2::evict_last",
                             "L2::cache_hint",   "L2::64B",
                             "L2::128B",         "L2::256B"};
constexpr Words kPolicyOnly = {"L2::cache_hint"};

bool has(Words words, std::string_view word) { return std::find(words.begin(), words.end(), word) != words.end(); }

} // namespace

bool isHint(std::string_view opcode, std::string_view modifier) {
  if (opcode == "ld" || opcode == "ldu")
    return has(kLoads, modifier) || has(kEviction, modifier);
  if (opcode == "st")
    return has(kStores, modifier) || has(kEviction, modifier);
  if (opcode == "cp")
    return has(kCopies, modifier) || has(kEviction, modifier);
  if (opcode == "atom" || opcode == "red")
    return has(kPolicyOnly, modifier);
  return false;
}

} // namespace kvq::ptxsim
