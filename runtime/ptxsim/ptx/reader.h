// SPDX-License-Identifier: Apache-2.0
//
// PTX text to Module. Errors read "FILE:LINE: what, which token, what is expected"; text of any kind and size is
// answered by an error, never by a crash, endless work or unbounded memory.
#pragma once

#include "runtime/format/status.h"
#include "runtime/ptxsim/ptx/module.h"

#include <string_view>

namespace kvq::ptxsim {

Result<Module> parse(std::string_view text, std::string file);

// Modifiers that say where data should be cached and nothing about what is computed; they are gone from
// Instruction::modifiers. This is the only thing that is ever ignored in an instruction:
//   ld, ldu        .ca .cg .cs .lu .cv .nc, .L1::evict_* .L1::no_allocate .L2::evict_* .L2::64B .L2::128B .L2::256B
//   st             .wb .cg .cs .wt, and the same of .L1:: and .L2::
//   cp (.async)    .ca .cg, and the same of .L1:: and .L2::; that .cg copies 16 bytes is checked
//   all of these, atom and red: .L2::cache_hint, and with it the last operand, the policy (createpolicy itself, which
//                  makes one, is an instruction like others)
// Directives that are read and have no effect: .loc .file .section (.debug_*) .pragma .visible .weak .noreturn
// .attribute(.managed|.unified), and what .ptr says about a parameter.
bool isHint(std::string_view opcode, std::string_view modifier);

} // namespace kvq::ptxsim
