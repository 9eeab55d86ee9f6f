// SPDX-License-Identifier: Apache-2.0
#include "runtime/format/schedule.h"

#include "runtime/format/knobs.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace kvq {

namespace {

constexpr Knob<Schedule> kKnobs[] = {{"tile_tokens", &Schedule::tileTokens}, {"rows", &Schedule::rows},
                                     {"vectors", &Schedule::vectors},        {"prefetch", &Schedule::prefetch},
                                     {"blocks", &Schedule::blocks, true},    {"warps", &Schedule::warps, true}};
constexpr std::string_view kDefaultMark = " (default)";

// In doublings: tiles of 32 and 64 tokens are as far apart as those of 64 and 128.
double distance(const Schedule &a, const Schedule &b) {
  double sum = 0;
  for (const Knob<Schedule> &knob : kKnobs)
    sum += std::fabs(std::log2((a.*knob.value + 1.0) / (b.*knob.value + 1.0)));
  return sum;
}

} // namespace

std::string toText(const Schedule &schedule) { return knobsToText(kKnobs, schedule); }

Result<Schedule> parseSchedule(std::string_view text) { return parseKnobs(kKnobs, "schedule", text); }

std::string toText(const ScheduleSpace &space) {
  std::string text;
  for (const Schedule &schedule : space.schedules)
    text += toText(schedule) + std::string(schedule == space.standard ? kDefaultMark : "") + "\n";
  return text;
}

Result<ScheduleSpace> parseScheduleSpace(std::string_view text) {
  ScheduleSpace space;
  int defaults = 0;
  for (std::string_view line : text::split(text, '\n')) {
    if (line.empty())
      continue;
    const bool isDefault = line.ends_with(kDefaultMark);
    auto schedule = parseSchedule(line.substr(0, line.size() - (isDefault ? kDefaultMark.size() : 0)));
    if (!schedule.isOk())
      return schedule.status();
    space.schedules.push_back(schedule.value());
    if (isDefault)
      space.standard = schedule.value();
    defaults += isDefault;
  }
  if (defaults != 1)
    return Status(Code::InvalidArgument, "a list of schedules has " + std::to_string(defaults) +
                                             " default ones: mark one with" + std::string(kDefaultMark));
  return space;
}

Status checkSchedule(const ScheduleSpace &space, const Schedule &schedule) {
  // Knob by knob, among the schedules that have the earlier ones.
  std::vector<Schedule> left = space.schedules;
  for (const Knob<Schedule> &knob : kKnobs) {
    std::set<int> values;
    for (const Schedule &legal : left)
      values.insert(legal.*knob.value);
    std::erase_if(left, [&](const Schedule &legal) { return legal.*knob.value != schedule.*knob.value; });
    if (!left.empty())
      continue;
    std::string known;
    for (int value : values)
      known += (known.empty() ? "" : ", ") + std::to_string(value);
    const Schedule &nearest =
        *std::min_element(space.schedules.begin(), space.schedules.end(), [&](const Schedule &a, const Schedule &b) {
          return distance(a, schedule) < distance(b, schedule);
        });
    return {Code::InvalidArgument, "the schedule " + toText(schedule) + " has " + std::string(knob.name) + " " +
                                       std::to_string(schedule.*knob.value) + ", which can be " + known +
                                       " here: the nearest that fits is " + toText(nearest)};
  }
  return Status::ok();
}

} // namespace kvq
