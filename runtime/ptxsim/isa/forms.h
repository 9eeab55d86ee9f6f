// SPDX-License-Identifier: Apache-2.0
//
// From the names of a form to the arguments of a handler template.
#pragma once

#include "runtime/ptxsim/decode/registry.h"

#include <string>
#include <type_traits>
#include <utility>

namespace kvq::ptxsim {

template <typename T> constexpr const char *kTypeName = nullptr;
template <> inline constexpr const char *kTypeName<uint8_t> = "u8";
template <> inline constexpr const char *kTypeName<int8_t> = "s8";
template <> inline constexpr const char *kTypeName<uint16_t> = "u16";
template <> inline constexpr const char *kTypeName<int16_t> = "s16";
template <> inline constexpr const char *kTypeName<uint32_t> = "u32";
template <> inline constexpr const char *kTypeName<int32_t> = "s32";
template <> inline constexpr const char *kTypeName<uint64_t> = "u64";
template <> inline constexpr const char *kTypeName<int64_t> = "s64";
template <> inline constexpr const char *kTypeName<float> = "f32";
template <> inline constexpr const char *kTypeName<double> = "f64";

// "b32" for every type of four bytes.
template <typename T> inline std::string bitsName() { return "b" + std::to_string(8 * sizeof(T)); }

template <typename... T, typename Body> void forTypes(Body body) { (body.template operator()<T>(), ...); }

// "$ = $ $" with the type's name, or its bits' name, for each $.
inline std::string withType(std::string text, const std::string &name) {
  for (size_t at = 0; (at = text.find('$', at)) != std::string::npos; at += name.size())
    text.replace(at, 1, name);
  return text;
}

// table.add for one type: $ in the pattern and in the operands is the type's name.
template <typename T, typename What>
Table::Added addTyped(Table &table, const char *pattern, const char *operands, OpClass opClass, What what) {
  return table.add(withType(pattern, kTypeName<T>).c_str(), withType(operands, kTypeName<T>).c_str(), opClass, what);
}

// body.operator()<I>() for I == value, which lies in 0..N-1.
template <int N, typename Body> Handler pick(int value, Body body) {
  Handler found = nullptr;
  [&]<int... I>(std::integer_sequence<int, I...>) {
    (void)((value == I ? (found = body.template operator()<I>(), true) : false) || ...);
  }(std::make_integer_sequence<int, N>());
  return found;
}

// body.operator()<true or false>().
template <typename Body> Handler pickBool(bool value, Body body) {
  return value ? body.template operator()<true>() : body.template operator()<false>();
}

} // namespace kvq::ptxsim
