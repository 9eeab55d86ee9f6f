// SPDX-License-Identifier: Apache-2.0
//
// A report as JSON, with keys in a fixed order: equal reports give equal texts.
#include "runtime/ptxsim/report/counters.h"

#include <cinttypes>
#include <cstdio>
#include <string_view>

namespace kvq::ptxsim {

namespace {

// Bytes that begin no UTF-8 sequence of the text become U+FFFD: names and messages quote what stood in a file.
size_t utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned lead = byte(0);
  const size_t length = lead < 0x80                   ? 1
                        : lead >= 0xc2 && lead < 0xe0 ? 2
                        : (lead & 0xf0) == 0xe0       ? 3
                        : lead >= 0xf0 && lead < 0xf5 ? 4
                                                      : 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80)
      return 0;
  if ((lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xed && byte(1) > 0x9f) || (lead == 0xf0 && byte(1) < 0x90) ||
      (lead == 0xf4 && byte(1) > 0x8f))
    return 0;
  return length;
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const size_t length = utf8Length(text);
    const auto byte = static_cast<unsigned char>(text[0]);
    if (length == 0) {
      out += "\\ufffd";
    } else if (byte == '"' || byte == '\\') {
      out += '\\';
      out += text[0];
    } else if (byte < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\u%04x", byte);
      out += escaped;
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length ? length : 1);
  }
  return out + "\"";
}

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof(text), "\"0x%" PRIx64 "\"", value);
  return text;
}

std::string toJson(const Finding &finding) {
  std::string out = "{\"check\": " + quoted(nameOf(finding.check)) + ", \"kernel\": " + quoted(finding.kernel);
  out += ", \"line\": " + std::to_string(finding.line) + ", \"block\": [" + std::to_string(finding.block[0]) + ", " +
         std::to_string(finding.block[1]) + ", " + std::to_string(finding.block[2]) + "]";
  out += ", \"warp\": " + std::to_string(finding.warp) + ", \"lane\": " + std::to_string(finding.lane);
  out += ", \"space\": " + quoted(finding.space);
  out += ", \"address\": " + (finding.space.empty() ? std::string("\"\"") : hex(finding.address));
  out += ", \"allocation\": " + quoted(finding.allocation) + ", \"message\": " + quoted(finding.message);
  return out + "}";
}

std::string toJson(const Counters &counters) {
  std::string out = "{";
  for (const CounterField &field : kCounterFields)
    out += quoted(field.name) + ": " + std::to_string(counters.*field.value) + ", ";
  out += "\"classes\": {";
  for (int i = 0; i < kOpClasses; ++i)
    out += (i ? ", " : "") + quoted(nameOf(static_cast<OpClass>(i))) + ": " + std::to_string(counters.classes[i]);
  return out + "}}";
}

template <typename List, typename Text> std::string joined(const List &list, const char *separator, const Text &text) {
  std::string out;
  for (const auto &item : list)
    out += (out.empty() ? "" : separator) + text(item);
  return out;
}

} // namespace

std::string toJson(const Report &report) {
  std::string out = "{\"status\": " + quoted(statusName(report)) + ", \"kernel\": " + quoted(report.kernel) + ",\n";
  if (report.end != Report::End::Ok)
    out += " \"message\": " + quoted(report.message) + ",\n";
  out += " \"findings\": [" + joined(report.findings, ",\n  ", [](const Finding &f) { return toJson(f); }) + "],\n";
  out += " \"findings_total\": " + std::to_string(report.findingsTotal) + ",\n";
  out += " \"counters\": " + toJson(report.counters) + ",\n";
  const Coverage coverage = coverageOf(report);
  out += " \"coverage\": {\"lines\": " + std::to_string(coverage.lines) +
         ", \"executed\": " + std::to_string(coverage.executed) + ", \"missed\": [" +
         joined(coverage.missed, ", ", [](int line) { return std::to_string(line); }) + "]},\n";
  out += " \"lines\": [" + joined(report.lines, ", ", [](const LineCount &line) {
           return "[" + std::to_string(line.line) + ", " + std::to_string(line.warps) + ", " +
                  std::to_string(line.threads) + "]";
         });
  return out + "]}\n";
}

} // namespace kvq::ptxsim
