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
  bool isOptional = false; // left out where it has its default; such knobs are the last ones
};

template <typename Values, size_t N> std::string knobsToText(const Knob<Values> (&knobs)[N], const Values &values) {
  std::string text;
  for (const Knob<Values> &knob : knobs)
    if (!knob.isOptional || values.*knob.value != Values().*knob.value)
      text += (text.empty() ? "" : ",") + std::string(knob.name) + "=" + std::to_string(values.*knob.value);
  return text;
}

// All knobs in their order, each once, without optional ones that have their default. InvalidArgument: which one is
// wrong of the text, which messages call `what`.
template <typename Values, size_t N>
Result<Values> parseKnobs(const Knob<Values> (&knobs)[N], const char *what, std::string_view text) {
  const std::vector<std::string_view> parts = text::split(text, ',');
  const auto refused = [&](const std::string &why) {
    return Status(Code::InvalidArgument, "the " + std::string(what) + " " + text::quote(text) + " " + why +
                                             ": write it as in " + knobsToText(knobs, Values()));
  };
  Values values;
  size_t place = 0;
  for (const Knob<Values> &knob : knobs) {
    const std::string name(knob.name);
    if (place >= parts.size() || parts[place].substr(0, parts[place].find('=')) != name) {
      if (knob.isOptional)
        continue;
      return refused("has no knob " + name + " in place " + std::to_string(place + 1));
    }
    const std::string_view value = parts[place].substr(std::min(parts[place].size(), name.size() + 1));
    const auto number = text::parseDecimal(value);
    if (!number)
      return refused("has " + text::quote(value) + " for " + name + ", which is no number");
    if (knob.isOptional && *number == Values().*knob.value)
      return refused("has " + name + "=" + std::to_string(*number) + ", which is left out");
    values.*knob.value = *number;
    ++place;
  }
  if (place < parts.size())
    return refused("has " + text::quote(parts[place]) + " behind its last knob");
  return values;
}

} // namespace kvq
