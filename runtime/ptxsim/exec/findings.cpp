// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/exec/warp.h"

namespace kvq::ptxsim {

void report(Warp &warp, const Op &op, Check check, uint32_t lanes, std::string message, const Place &place) {
  Worker &worker = *warp.worker;
  if (!worker.check(check))
    return;
  ++worker.findingsTotal;
  for (const Finding &known : worker.findings)
    if (known.check == check && known.line == op.line)
      return;
  Finding finding;
  finding.check = check;
  finding.kernel = worker.launch->kernel->attributes.name;
  finding.line = op.line;
  for (int i = 0; i < 3; ++i)
    finding.block[i] = warp.block->index[i];
  finding.blockNumber = warp.block->number;
  finding.warp = warp.id;
  finding.lane = lanes ? std::countr_zero(lanes) : 0;
  finding.space = place.space;
  finding.address = place.address;
  finding.allocation = place.allocation;
  finding.message = std::move(message);
  worker.findings.push_back(std::move(finding));
}

} // namespace kvq::ptxsim
