// SPDX-License-Identifier: Apache-2.0
//
// A report for reading: what was wrong, what it cost, and the listing with executions beside each line.
#include "runtime/ptxsim/report/counters.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <map>
#include <string_view>

namespace kvq::ptxsim {

namespace {

template <typename... Args> std::string format(const char *pattern, Args... args) {
  char text[256];
  std::snprintf(text, sizeof(text), pattern, args...);
  return text;
}

// What a counter means beside another one: sectors of a request, wavefronts of a request.
std::string ratio(const char *what, uint64_t count, uint64_t of) {
  return of ? format("  (%.2f %s)", static_cast<double>(count) / static_cast<double>(of), what) : std::string();
}

std::string comment(const Counters &c, uint64_t Counters::*value) {
  if (value == &Counters::threadInstructions)
    return ratio("active lanes of 32", c.threadInstructions, c.warpInstructions);
  if (value == &Counters::globalSectors)
    return ratio("a request", c.globalSectors, c.globalRequests);
  if (value == &Counters::globalBytes)
    return ratio("of a sector's 32", c.globalBytes, c.globalSectors);
  if (value == &Counters::sharedWavefronts)
    return ratio("a request", c.sharedWavefronts, c.sharedRequests);
  return "";
}

std::string where(const Finding &finding) {
  std::string text = format("line %d, block (%u, %u, %u), warp %d, lane %d", finding.line, finding.block[0],
                            finding.block[1], finding.block[2], finding.warp, finding.lane);
  if (!finding.space.empty())
    text += ", " + finding.space + format(" 0x%" PRIx64, finding.address);
  if (!finding.allocation.empty())
    text += " in " + finding.allocation;
  return text;
}

std::string classes(const Counters &counters) {
  std::vector<int> used;
  for (int i = 0; i < kOpClasses; ++i)
    if (counters.classes[i])
      used.push_back(i);
  std::sort(used.begin(), used.end(), [&](int a, int b) {
    return counters.classes[a] != counters.classes[b] ? counters.classes[a] > counters.classes[b] : a < b;
  });
  std::string text;
  for (int i : used)
    text += format("  %-28s %16" PRIu64 "  %5.1f %%\n", nameOf(static_cast<OpClass>(i)), counters.classes[i],
                   100.0 * static_cast<double>(counters.classes[i]) /
                       static_cast<double>(std::max<uint64_t>(counters.warpInstructions, 1)));
  return text;
}

} // namespace

std::string toTable(const Report &report) {
  std::string text = "kernel " + report.kernel + ": " + statusName(report) + "\n";
  if (!report.message.empty())
    text += report.message + "\n";
  for (const Finding &finding : report.findings)
    text += std::string(nameOf(finding.check)) + ": " + finding.message + "\n  " + where(finding) + "\n";
  if (report.findingsTotal > report.findings.size())
    text += std::to_string(report.findingsTotal - report.findings.size()) +
            " more findings, repeated or beyond the limit\n";
  for (const CounterField &field : kCounterFields)
    text += format("  %-28s %16" PRIu64, field.title, report.counters.*field.value) +
            comment(report.counters, field.value) + "\n";
  text += "warp instructions by class\n" + classes(report.counters);
  const Coverage coverage = coverageOf(report);
  text += format("coverage: %zu of %zu lines", coverage.executed, coverage.lines);
  for (size_t i = 0; i < coverage.missed.size(); ++i)
    text += (i ? ", " : "; not executed: ") + std::to_string(coverage.missed[i]);
  return text + "\n";
}

std::string annotate(const Report &report, std::string_view text) {
  std::map<int, const LineCount *> counts;
  std::map<int, std::vector<const Finding *>> findings;
  for (const LineCount &line : report.lines)
    counts[line.line] = &line;
  for (const Finding &finding : report.findings)
    findings[finding.line].push_back(&finding);
  std::string out = format("%6s %14s %16s\n", "line", "warps", "threads");
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const auto found = counts.find(number);
    if (found == counts.end())
      out += format("%6d %31s", number, "");
    else if (found->second->warps == 0)
      out += format("%6d %14s %16s", number, "-", "not executed");
    else
      out += format("%6d %14" PRIu64 " %16" PRIu64, number, found->second->warps, found->second->threads);
    out += " | ";
    out += line;
    out += "\n";
    if (const auto here = findings.find(number); here != findings.end())
      for (const Finding *finding : here->second)
        out += format("%38s ^ ", "") + nameOf(finding->check) + ": " + finding->message + "\n";
  }
  return out;
}

} // namespace kvq::ptxsim
