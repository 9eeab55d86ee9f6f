// SPDX-License-Identifier: Apache-2.0
//
// Texts of named numbers in a fixed order, "tile_tokens=64,rows=8": how structs of plain numbers are written and read.
#pragma once

#include "runtime/format/status.h"
#include "runtime/format/text.h"

#include <algorithm>
#include <string>
#include <string_view>

namespace kvq {

template <typename Values> struct Knob {
  std::string_view name;
  int Values::*value;
  bool isOptional = false; // left out where it is 0; such knobs are the last ones
};

template <typename Values, size_t N> std::string knobsToText(const Knob<Values> (&knobs)[N], const Values &values) {
  std::string text;
  for (const Knob<Values> &knob : knobs)
    if (!knob.isOptional || values.*knob.value != 0)
      text += (text.empty() ? "" : ",") + std::string(knob.name) + "=" + std::to_string(values.*knob.value);
  return text;
}

// All knobs in their order, each once. InvalidArgument: which one is wrong of the text, which messages call `what`.
template <typename Values, size_t N>
Result<Values> parseKnobs(const Knob<Values> (&knobs)[N], const char *what, std::string_view text) {
  const std::vector<std::string_view> parts = text::split(text, ',');
  const auto refused = [&](const std::string &why) {
    return Status(Code::InvalidArgument, "the " + std::string(what) + " " + text::quote(text) + " " + why +
                                             ": write it as in " + knobsToText(knobs, Values()));
  };
  Values values;
  for (size_t i = 0; i < N; ++i) {
    const std::string name(knobs[i].name);
    if (knobs[i].isOptional && i >= parts.size())
      break;
    if (i >= parts.size() || parts[i].substr(0, parts[i].find('=')) != name)
      return refused("has no knob " + name + " in place " + std::to_string(i + 1));
    const std::string_view value = parts[i].substr(std::min(parts[i].size(), name.size() + 1));
    const auto number = text::parseDecimal(value);
    if (!number)
      return refused("has " + text::quote(value) + " for " + name + ", which is no number");
    if (knobs[i].isOptional && *number == 0)
      return refused("has " + name + "=0, which is left out");
    values.*knobs[i].value = *number;
  }
  if (parts.size() > N)
    return refused("has " + text::quote(parts[N]) + " behind its last knob");
  return values;
}

} // namespace kvq
