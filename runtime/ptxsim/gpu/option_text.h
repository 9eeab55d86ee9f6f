// SPDX-License-Identifier: Apache-2.0
//
// Options as text: ptx-run's command line and the variables KVQ_PTXSIM_* spell them alike.
#pragma once

#include "runtime/format/status.h"
#include "runtime/ptxsim/options.h"

#include <span>
#include <string_view>

namespace kvq::ptxsim {

// checks, schedule, seed, mma, subnormals, approx, cp-async, threads, limit, max-findings.
std::span<const std::string_view> optionNames();
// InvalidArgument, naming what is allowed, if there is no such option or value; the options are then as they were.
Status setOption(Options &options, std::string_view name, const std::string &value);

// A whole number in decimal or 0x.., from `least` to `most`.
Result<uint64_t> parseNumber(const std::string &text, uint64_t least, uint64_t most);

// "all" (those on by default), "none", names with commas between; a "-" in front leaves one out, of all if it comes
// first.
Result<uint32_t> parseChecks(const std::string &text);

} // namespace kvq::ptxsim
