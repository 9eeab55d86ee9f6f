// SPDX-License-Identifier: Apache-2.0
//
// What names mean in one scope: the module, a function, or a pair of braces. Ranges such as %r<100> take one entry.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>

namespace kvq::ptxsim::reader {

struct Entity {
  enum class Kind : uint8_t { None, Register, Variable, ModuleVariable, Function, Label };
  Kind kind = Kind::None;
  uint32_t index = 0;
};

// Names refer to the text of the module.
class Scope {
public:
  Entity find(std::string_view name) const;
  // False if the scope has the name, or one of the range, already.
  bool declare(std::string_view name, Entity entity);
  bool declareRange(std::string_view prefix, uint32_t count, uint32_t firstRegister);

private:
  struct Range {
    uint32_t count, first;
  };
  std::unordered_map<std::string_view, Entity> names_;
  std::unordered_map<std::string_view, Range> ranges_;
  // For each way to read a name as prefix and number, the lowest number that is taken: what a range must not reach.
  std::unordered_map<std::string_view, uint32_t> lowest_;
};

} // namespace kvq::ptxsim::reader
