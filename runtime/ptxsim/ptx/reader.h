// SPDX-License-Identifier: Apache-2.0
//
// PTX text to Module. Errors read "FILE:LINE: what, which token, what is expected"; text of any kind and size is answered
// by an error, never by a crash, endless work or unbounded memory.
#pragma once

#include "runtime/format/status.h"
#include "runtime/ptxsim/ptx/module.h"

#include <string_view>

namespace kvq::ptxsim {

Result<Module> parse(std::string_view text, std::string file);

// Modifiers that say where data should be cached and nothing about what is computed: .ca .cg .cs .lu .cv .wb .wt .nc
// .L1::* .L2::* and so on. The list is the only thing that is ever ignored in an instruction.
bool isHint(std::string_view opcode, std::string_view modifier);

} // namespace kvq::ptxsim
