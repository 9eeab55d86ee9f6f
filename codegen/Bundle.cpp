// SPDX-License-Identifier: Apache-2.0
//
// Bundles of failed compiles.

#include "codegen/Bundle.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir::kvq;

static bool writeFile(llvm::StringRef path, llvm::StringRef text) {
  std::error_code error;
  llvm::raw_fd_ostream os(path, error);
  os << text;
  os.close();
  return !error && !os.has_error();
}

std::string mlir::kvq::writeBundle(const CompileInput &input, const std::string &program, const std::string &message) {
  llvm::SmallString<128> model(input.bundleDir), folder;
  if (model.empty())
    llvm::sys::path::system_temp_directory(/*ErasedOnReboot=*/true, model);
  llvm::sys::path::append(model, "kvq-failed-compile");
  if (llvm::sys::fs::createUniqueDirectory(model, folder))
    return "no bundle was written: cannot create a folder beside " + model.str().str();
  auto path = [&](llvm::StringRef name) {
    llvm::SmallString<128> result(folder);
    llvm::sys::path::append(result, name);
    return result.str().str();
  };
  // A module carries its score region and its schedule.
  std::string what =
      input.request.empty() || !input.score.empty()
          ? path("kernel.mlir")
          : "--request=" + input.request + (input.schedule.empty() ? "" : " --schedule=" + input.schedule);
  std::string command = "kvqc " + what + " --target=" + input.target->name() +
                        (input.startAt.empty() ? "" : " --compile-from=" + input.startAt) + " --no-bundle";
  bool written = writeFile(path("kernel.mlir"), program) && writeFile(path("message.txt"), message + "\n") &&
                 writeFile(path("command.txt"), command + "\n");
  if (!written)
    return "no bundle was written: cannot write into " + folder.str().str();
  return "to repeat: " + command + "  (bundle in " + folder.str().str() + ")";
}
