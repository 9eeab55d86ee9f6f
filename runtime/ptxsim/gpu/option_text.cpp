// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/gpu/option_text.h"

#include "runtime/ptxsim/report/report.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <vector>

namespace kvq::ptxsim {

static std::string checkNames() {
  std::string names;
  for (int i = 0; i < kChecks; ++i)
    names += (i ? ", " : "") + std::string(nameOf(static_cast<Check>(i)));
  return names;
}

Result<uint32_t> parseChecks(const std::string &text) {
  uint32_t checks = 0;
  size_t begin = 0;
  for (bool first = true; begin <= text.size(); first = false) {
    const size_t end = std::min(text.find(',', begin), text.size());
    std::string word = text.substr(begin, end - begin);
    begin = end + 1;
    const bool leaveOut = word.starts_with('-');
    word.erase(0, leaveOut);
    if (first && leaveOut)
      checks = Options().checks;
    uint32_t named = word == "all" ? Options().checks : 0;
    for (int i = 0; i < kChecks; ++i)
      if (word == nameOf(static_cast<Check>(i)))
        named = 1u << i;
    if (!named && word != "none")
      return Status(Code::InvalidArgument, "there is no check '" + word + "': use all, none or " + checkNames());
    checks = leaveOut ? checks & ~named : word == "none" ? 0 : checks | named;
  }
  return checks;
}

Result<uint64_t> parseNumber(const std::string &text, uint64_t least, uint64_t most) {
  char *end = nullptr;
  errno = 0;
  const bool digit = !text.empty() && text[0] >= '0' && text[0] <= '9';
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  const uint64_t value = digit ? std::strtoull(text.c_str(), &end, hex ? 16 : 10) : 0;
  if (!digit || *end || errno || value < least || value > most)
    return Status(Code::InvalidArgument,
                  "'" + text + "' is no number from " + std::to_string(least) + " to " + std::to_string(most));
  return value;
}

template <typename Value> static Status assign(Value &to, const std::string &text, uint64_t least, uint64_t most) {
  auto value = parseNumber(text, least, most);
  if (value.isOk())
    to = static_cast<Value>(value.value());
  return value.status();
}

template <typename Value>
static Status choose(Value &to, const std::string &text, const std::vector<std::pair<const char *, Value>> &choices) {
  std::string names;
  for (const auto &[name, value] : choices) {
    if (text == name) {
      to = value;
      return Status::ok();
    }
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return {Code::InvalidArgument, "'" + text + "' is none of " + names};
}

static Status setChecks(Options &options, const std::string &value) {
  auto checks = parseChecks(value);
  if (checks.isOk())
    options.checks = checks.value();
  return checks.status();
}

static Status setMma(Options &options, const std::string &value) {
  return choose<MmaMode>(
      options.mma, value,
      {{"exact", MmaMode::Exact}, {"sequential", MmaMode::Sequential}, {"truncate", MmaMode::Truncate}});
}

static Status setCpAsync(Options &options, const std::string &value) {
  return choose<CpAsyncMode>(
      options.cpAsync, value,
      {{"latest", CpAsyncMode::Latest}, {"earliest", CpAsyncMode::Earliest}, {"random", CpAsyncMode::Random}});
}

static constexpr std::string_view kNames[] = {"checks", "schedule", "seed",    "mma",   "subnormals",
                                              "approx", "cp-async", "threads", "limit", "max-findings"};

std::span<const std::string_view> optionNames() { return kNames; }

Status setOption(Options &options, std::string_view name, const std::string &value) {
  if (name == "checks")
    return setChecks(options, value);
  if (name == "schedule")
    return choose<Schedule>(options.schedule, value,
                            {{"reconverge", Schedule::Reconverge}, {"lowest-pc", Schedule::LowestPc}});
  if (name == "seed")
    return assign(options.seed, value, 0, UINT64_MAX);
  if (name == "mma")
    return setMma(options, value);
  if (name == "subnormals")
    return choose<bool>(options.flushSubnormals, value, {{"keep", false}, {"flush", true}});
  if (name == "approx")
    return choose<bool>(options.disturb, value, {{"exact", false}, {"ulp", true}});
  if (name == "cp-async")
    return setCpAsync(options, value);
  if (name == "threads")
    return assign(options.threads, value, 1, 1024);
  if (name == "limit")
    return assign(options.limit, value, 1, UINT64_MAX);
  if (name == "max-findings")
    return assign(options.maxFindings, value, 1, 1'000'000);
  return {Code::InvalidArgument, "there is no option '" + std::string(name) + "'"};
}

} // namespace kvq::ptxsim
