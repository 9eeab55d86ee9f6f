// SPDX-License-Identifier: Apache-2.0
//
// A launch: its blocks over the workers, and the report made of what the workers saw.
#include "runtime/ptxsim/exec/launch.h"

#include "runtime/ptxsim/exec/block_run.h"
#include "runtime/ptxsim/memory/global_races.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <thread>
#include <tuple>

namespace kvq::ptxsim {

namespace {

constexpr int64_t kMostShared = 227 * 1024; // of a block, sm_90

Status checkLaunch(const Kernel &kernel, const Launch &launch) {
  const KernelAttributes &attributes = kernel.attributes;
  auto wrong = [&](const std::string &why) {
    return Status(Code::InvalidArgument, "launch of '" + attributes.name + "': " + why);
  };
  if (launch.grid.count() == 0 || launch.block.count() == 0)
    return wrong("grid and block must not be empty");
  if (launch.grid.x > 0x7fffffffu || launch.grid.y > 65535 || launch.grid.z > 65535)
    return wrong("the grid is beyond (2147483647, 65535, 65535)");
  if (launch.block.x > 1024 || launch.block.y > 1024 || launch.block.z > 64 ||
      launch.block.count() > attributes.maxThreads)
    return wrong("a block has " + std::to_string(launch.block.count()) + " threads where the kernel allows " +
                 std::to_string(attributes.maxThreads));
  const uint32_t given[3] = {launch.block.x, launch.block.y, launch.block.z};
  if (attributes.reqntid[0] && !std::equal(given, given + 3, attributes.reqntid))
    return wrong("the block must be (" + std::to_string(attributes.reqntid[0]) + ", " +
                 std::to_string(attributes.reqntid[1]) + ", " + std::to_string(attributes.reqntid[2]) +
                 "), as .reqntid says");
  if (launch.dynamicShared < 0 || attributes.sharedBytes + launch.dynamicShared > kMostShared)
    return wrong("a block needs " + std::to_string(attributes.sharedBytes + launch.dynamicShared) +
                 " bytes of shared memory; at most 232448 are there");
  if (int64_t(launch.params.size()) != attributes.paramBytes)
    return wrong("its parameters are " + std::to_string(attributes.paramBytes) + " bytes, " +
                 std::to_string(launch.params.size()) + " were given");
  return Status::ok();
}

// Seeded launches take the blocks in random order (Fisher and Yates), up to a size where the list is worth its memory.
std::vector<uint64_t> blockOrder(uint64_t count, uint64_t seed) {
  std::vector<uint64_t> order;
  if (seed == 0 || count > 1 << 22)
    return order;
  order.resize(count);
  std::iota(order.begin(), order.end(), uint64_t(0));
  Random random(seed);
  for (uint64_t i = count - 1; i > 0; --i)
    std::swap(order[i], order[random.below(uint32_t(i + 1))]);
  return order;
}

void collectLines(const Kernel &kernel, const std::vector<std::unique_ptr<BlockRun>> &runs, Report &report) {
  std::map<int, LineCount> lines;
  for (size_t i = 0; i < kernel.operations.size(); ++i) {
    const Op &op = kernel.operations[i];
    if (op.auxiliary)
      continue;
    uint64_t warps = 0, threads = 0;
    for (const auto &run : runs) {
      warps += run->worker().warpExecutions[i];
      threads += run->worker().threadExecutions[i];
    }
    LineCount &line = lines.emplace(op.line, LineCount{op.line, 0, 0}).first->second;
    line.warps += warps;
    line.threads += threads;
    report.counters.warpInstructions += warps;
    report.counters.threadInstructions += threads;
    report.counters.classes[int(op.opClass)] += warps;
  }
  for (const auto &[number, line] : lines)
    report.lines.push_back(line);
}

void collectFindings(const std::vector<std::unique_ptr<BlockRun>> &runs, int most, Report &report) {
  for (const auto &run : runs) {
    report.counters.add(run->worker().counters);
    report.findingsTotal += run->worker().findingsTotal;
    for (const Finding &finding : run->worker().findings)
      report.findings.push_back(finding);
  }
  // What several workers saw at one line counts once, as the one of the first block.
  std::sort(report.findings.begin(), report.findings.end(), [](const Finding &a, const Finding &b) {
    return std::tie(a.line, a.check, a.blockNumber) < std::tie(b.line, b.check, b.blockNumber);
  });
  const auto last = std::unique(report.findings.begin(), report.findings.end(), [](const Finding &a, const Finding &b) {
    return a.line == b.line && a.check == b.check;
  });
  report.findings.erase(last, report.findings.end());
  if (int(report.findings.size()) > most)
    report.findings.resize(size_t(std::max(0, most)));
}

} // namespace

Result<Report> launch(const Loaded &module, const Launch &launch, const Options &options, GlobalMemory &memory) {
  const Kernel *kernel = module.kernel(launch.kernel);
  if (!kernel)
    return Status(Code::InvalidArgument, "the module has no kernel '" + launch.kernel + "'");
  KVQ_RETURN_IF_ERROR(checkLaunch(*kernel, launch));

  LaunchState state;
  state.kernel = kernel;
  state.launch = &launch;
  state.options = options;
  state.memory = &memory;
  state.constants = &module.constants();
  state.sharedBytes = kernel->attributes.sharedBytes + launch.dynamicShared;
  const uint64_t blocks = launch.grid.count();
  // Blocks that talk to each other run one after the other: the order of their atomics would not be the same again.
  const int workers =
      kernel->blocksIndependent ? int(std::min<uint64_t>(blocks, std::clamp(options.threads, 1, 64))) : 1;
  GlobalRaces races(options, workers);
  state.races = &races;

  const std::vector<uint64_t> order = blockOrder(blocks, options.seed);
  std::vector<std::unique_ptr<BlockRun>> runs;
  for (int i = 0; i < workers; ++i)
    runs.push_back(std::make_unique<BlockRun>(state));
  std::vector<BlockEnd> ends;
  ends.resize(size_t(workers));
  std::atomic<uint64_t> next{0};
  std::atomic<int64_t> budget{int64_t(std::min<uint64_t>(options.limit, INT64_MAX))};
  std::atomic<bool> stop{false};
  auto work = [&](int worker) {
    for (uint64_t i = next++; i < blocks && !stop; i = next++) {
      ends[size_t(worker)] = runs[size_t(worker)]->run(order.empty() ? i : order[i], budget);
      if (ends[size_t(worker)].end != Report::End::Ok) {
        stop = true;
        return;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < workers; ++i)
    threads.emplace_back(work, i);
  work(0);
  for (std::thread &thread : threads)
    thread.join();

  Report report;
  report.kernel = kernel->attributes.name;
  const BlockEnd *first = nullptr;
  for (const BlockEnd &end : ends)
    if (end.end != Report::End::Ok && (!first || end.block < first->block))
      first = &end;
  if (first) {
    report.end = first->end;
    report.message = first->message;
  }
  collectFindings(runs, options.maxFindings, report);
  collectLines(*kernel, runs, report);
  std::vector<const TouchedBytes *> touched;
  for (const auto &run : runs)
    touched.push_back(&run->worker().touched);
  std::tie(report.counters.uniqueGlobalBytesRead, report.counters.uniqueGlobalBytesWritten) =
      TouchedBytes::count(touched);
  return report;
}

} // namespace kvq::ptxsim
