// SPDX-License-Identifier: Apache-2.0
//
// Adding counters up, and what follows from a report's lines.
#include "runtime/ptxsim/report/counters.h"

namespace kvq::ptxsim {

void Counters::add(const Counters &other) {
  for (const CounterField &field : kCounterFields)
    this->*field.value += other.*field.value;
  for (int i = 0; i < kOpClasses; ++i)
    classes[i] += other.classes[i];
}

Coverage coverageOf(const Report &report) {
  Coverage coverage;
  coverage.lines = report.lines.size();
  for (const LineCount &line : report.lines) {
    if (line.warps)
      ++coverage.executed;
    else
      coverage.missed.push_back(line.line);
  }
  return coverage;
}

const char *statusName(const Report &report) {
  switch (report.end) {
  case Report::End::Deadlock:
    return "deadlock";
  case Report::End::Limit:
    return "limit";
  case Report::End::Trap:
    return "trap";
  case Report::End::Ok:
    break;
  }
  return report.findings.empty() ? "ok" : "findings";
}

} // namespace kvq::ptxsim
