// SPDX-License-Identifier: Apache-2.0
//
// Reports as JSON, as a table and as a listing.
#include "runtime/ptxsim/report/counters.h"

#include <gtest/gtest.h>

namespace kvq::ptxsim {
namespace {

Report sample() {
  Report report;
  report.kernel = "k";
  report.counters.warpInstructions = 4;
  report.counters.threadInstructions = 64;
  report.counters.globalRequests = 2;
  report.counters.globalSectors = 8;
  report.counters.classes[static_cast<int>(OpClass::Matrix)] = 3;
  report.counters.classes[static_cast<int>(OpClass::Alu)] = 1;
  report.lines = {{2, 4, 64}, {3, 0, 0}};
  return report;
}

Finding finding() {
  Finding finding;
  finding.check = Check::SharedRace;
  finding.kernel = "k";
  finding.line = 2;
  finding.block[1] = 7;
  finding.lane = 31;
  finding.space = "shared";
  finding.address = 0x10;
  finding.allocation = "tile";
  finding.message = "say \"no\"\n";
  return finding;
}

TEST(PtxsimReport, JsonHasAllOfIt) {
  Report report = sample();
  EXPECT_NE(toJson(report).find("{\"status\": \"ok\", \"kernel\": \"k\",\n \"findings\": [],"), std::string::npos);
  EXPECT_EQ(toJson(report).find("\"message\""), std::string::npos);
  report.findings.push_back(finding());
  report.findingsTotal = 5;
  const std::string json = toJson(report);
  for (const char *part :
       {"\"status\": \"findings\"", "{\"check\": \"shared-race\", \"kernel\": \"k\", \"line\": 2, \"block\": [0, 7, 0]",
        "\"warp\": 0, \"lane\": 31, \"space\": \"shared\", \"address\": \"0x10\", \"allocation\": \"tile\"",
        "\"message\": \"say \\\"no\\\"\\u000a\"}", "\"findings_total\": 5", "\"warp_instructions\": 4", "\"mma\": 3",
        "\"coverage\": {\"lines\": 2, \"executed\": 1, \"missed\": [3]}", "\"lines\": [[2, 4, 64], [3, 0, 0]]"})
    EXPECT_NE(json.find(part), std::string::npos) << part << "\n" << json;
}

TEST(PtxsimReport, NamesFromFilesStayText) {
  Report report = sample();
  report.kernel = "a\xff"
                  "\xc3\xa9\xed\xa0\x80\x01\\";
  EXPECT_NE(toJson(report).find("\"a\\ufffd\xc3\xa9\\ufffd\\ufffd\\ufffd\\u0001\\\\\""), std::string::npos)
      << toJson(report);
}

TEST(PtxsimReport, StatusOfTheEnd) {
  Report report = sample();
  report.findings.push_back(finding());
  for (const auto &[end, name] : {std::pair(Report::End::Ok, "findings"), std::pair(Report::End::Deadlock, "deadlock"),
                                  std::pair(Report::End::Limit, "limit"), std::pair(Report::End::Trap, "trap")}) {
    report.end = end;
    report.message = "warp 0 waits at line 2";
    EXPECT_STREQ(statusName(report), name);
    EXPECT_EQ(toJson(report).find("\"message\": \"warp 0") != std::string::npos, end != Report::End::Ok);
  }
}

TEST(PtxsimReport, CountersAddUp) {
  Counters sum = sample().counters;
  Counters other;
  uint64_t value = 1;
  for (const CounterField &field : kCounterFields)
    other.*field.value = value++;
  other.classes[kOpClasses - 1] = 9;
  sum.add(other);
  EXPECT_EQ(sum.warpInstructions, 5u);
  EXPECT_EQ(sum.uniqueGlobalBytesWritten, value - 1);
  EXPECT_EQ(sum.classes[kOpClasses - 1], 9u);
  EXPECT_EQ(sum.classes[static_cast<int>(OpClass::Matrix)], 3u);
}

TEST(PtxsimReport, EveryCheckAndClassHasItsName) {
  std::string names;
  for (int i = 0; i < kChecks; ++i)
    names += std::string(nameOf(static_cast<Check>(i))) + " ";
  EXPECT_EQ(names,
            "bounds align uninit-register uninit-memory shared-race warp-race global-race in-flight barrier mask "
            "collective ");
  EXPECT_STREQ(nameOf(OpClass::MatrixLoad), "matrix_load");
  EXPECT_STREQ(nameOf(OpClass::AsyncCopy), "async_copy");
}

TEST(PtxsimReport, TableAndListing) {
  Report report = sample();
  report.findings.push_back(finding());
  report.findingsTotal = 3;
  const std::string table = toTable(report);
  for (const char *part : {"kernel k: findings", "shared-race: say", "line 2, block (0, 7, 0), warp 0, lane 31",
                           "2 more findings", "(4.00 a request)", "coverage: 1 of 2 lines; not executed: 3"})
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
  const std::string listing = annotate(report, "first\n  second\nthird");
  EXPECT_NE(listing.find("     1                                 | first\n"), std::string::npos) << listing;
  EXPECT_NE(listing.find("     2              4               64 |   second\n"), std::string::npos) << listing;
  EXPECT_NE(listing.find("^ shared-race"), std::string::npos);
  EXPECT_NE(listing.find("not executed | third\n"), std::string::npos);
}

} // namespace
} // namespace kvq::ptxsim
