// SPDX-License-Identifier: Apache-2.0
//
// The canonical text of a schedule: every field, in one order.
#include "runtime/format/schedule.h"

#include "runtime/format/text.h"

#include <array>

namespace kvq {

// schedule_c1
struct ScheduleField {
  std::string_view name;
  int Schedule::*value;
  int low, high, step;
};
static constexpr std::array<ScheduleField, 4> kFields = {{
    {"tile_tokens", &Schedule::tileTokens, 16, 256, 16},
    {"rows", &Schedule::rows, 1, 16, 1},
    {"vectors", &Schedule::vectors, 1, 16, 1},
    {"prefetch", &Schedule::prefetch, 0, 8, 1},
}};

std::string toText(const Schedule &schedule) {
  std::string text;
  for (const ScheduleField &field : kFields)
    text += (text.empty() ? "" : ",") + std::string(field.name) + "=" + std::to_string(schedule.*field.value);
  return text;
}

Result<Schedule> parseSchedule(std::string_view text) {
  const auto invalid = [](std::string message) { return Status(Code::InvalidArgument, std::move(message)); };
  const std::vector<std::string_view> parts = text::split(text, ',');
  if (parts.size() != kFields.size())
    return invalid("schedule " + text::quote(text) + " has " + std::to_string(parts.size()) +
                   " fields, not 4: write it as in " + toText(Schedule()));
  Schedule schedule;
  for (size_t i = 0; i < kFields.size(); ++i) {
    const ScheduleField &field = kFields[i];
    const std::string name = std::string(field.name) + "=";
    const bool isNamed = parts[i].substr(0, name.size()) == name;
    const auto number = isNamed ? text::parseDecimal(parts[i].substr(name.size())) : std::nullopt;
    if (!number || *number < field.low || *number > field.high || *number % field.step != 0)
      return invalid("field " + text::quote(parts[i]) + " of a schedule is not legal: write " + name + " and " +
                     (field.step > 1 ? "a multiple of " + std::to_string(field.step) : "a number") + " from " +
                     std::to_string(field.low) + " to " + std::to_string(field.high));
    schedule.*field.value = *number;
  }
  return schedule;
}

} // namespace kvq
