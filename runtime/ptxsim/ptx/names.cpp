// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/ptx/names.h"

#include <string>

namespace kvq::ptxsim::reader {
namespace {

constexpr size_t kDigits = 7; // of the largest number in a range

// Calls body(prefix, number) for every way to split the name that a range could have made: no leading zeros.
template <typename Body> void forSplits(std::string_view name, Body body) {
  uint32_t number = 0, scale = 1;
  for (size_t digits = 1; digits <= kDigits && digits < name.size(); ++digits, scale *= 10) {
    char c = name[name.size() - digits];
    if (c < '0' || c > '9')
      return;
    number += uint32_t(c - '0') * scale;
    if (c != '0' || digits == 1)
      body(name.substr(0, name.size() - digits), number);
  }
}

} // namespace

Entity Scope::find(std::string_view name) const {
  if (auto found = names_.find(name); found != names_.end())
    return found->second;
  Entity entity;
  if (ranges_.empty())
    return entity;
  forSplits(name, [&](std::string_view prefix, uint32_t number) {
    auto range = ranges_.find(prefix);
    if (range != ranges_.end() && number < range->second.count)
      entity = {Entity::Kind::Register, range->second.first + number};
  });
  return entity;
}

bool Scope::declare(std::string_view name, Entity entity) {
  if (find(name).kind != Entity::Kind::None)
    return false;
  names_.emplace(name, entity);
  forSplits(name, [&](std::string_view prefix, uint32_t number) {
    auto [place, fresh] = lowest_.emplace(prefix, number);
    if (!fresh && number < place->second)
      place->second = number;
  });
  return true;
}

bool Scope::declareRange(std::string_view prefix, uint32_t count, uint32_t firstRegister) {
  if (count == 0)
    return true;
  auto lowest = lowest_.find(prefix);
  // Names of this range end in at least one digit more than the prefix: %r1<5> makes %r10, which %r<20> makes as well.
  std::string first = std::string(prefix) + "0";
  if ((lowest != lowest_.end() && lowest->second < count) || find(first).kind != Entity::Kind::None)
    return false;
  ranges_.emplace(prefix, Range{count, firstRegister});
  uint32_t tens = 10;
  forSplits(prefix, [&](std::string_view shorter, uint32_t number) {
    // No range makes leading zeros, or numbers of more than kDigits digits.
    if (number == 0 || number > 1'000'000)
      return;
    auto [place, fresh] = lowest_.emplace(shorter, number * tens);
    if (!fresh && number * tens < place->second)
      place->second = number * tens;
  });
  return true;
}

} // namespace kvq::ptxsim::reader
