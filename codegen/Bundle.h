// SPDX-License-Identifier: Apache-2.0
//
// What a failed compile leaves behind: a folder with the program, the command that repeats it and the message.
#pragma once

#include "codegen/Compile.h"

namespace mlir::kvq {

// Writes the bundle and returns a line "to repeat: kvqc ...", or why no bundle could be written.
std::string writeBundle(const CompileInput &input, const std::string &program, const std::string &message);

} // namespace mlir::kvq
