// SPDX-License-Identifier: Apache-2.0
//
// A test's environment without any NVRTC but those that it puts into a folder of its own.
#pragma once

#include "runtime/jit/nvrtc.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

namespace kvq_test {

class NvrtcHome : public ::testing::Test {
protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "kvq-nvrtc-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
    for (const char *variable :
         {"KVQ_NVRTC", "KVQ_CUDA_LIB_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH", "FAKE_NVRTC_LOG"})
      unset(variable);
  }
  void TearDown() override {
    for (const auto &[variable, value] : before_)
      value ? setenv(variable.c_str(), value->c_str(), 1) : unsetenv(variable.c_str());
    std::filesystem::remove_all(root_);
  }

  std::string path(const std::string &name) const { return (root_ / name).string(); }
  void keep(const std::string &variable) {
    const char *value = std::getenv(variable.c_str());
    before_.try_emplace(variable, value ? std::optional<std::string>(value) : std::nullopt);
  }
  void set(const std::string &variable, const std::string &value) {
    keep(variable);
    setenv(variable.c_str(), value.c_str(), 1);
  }
  void unset(const std::string &variable) {
    keep(variable);
    unsetenv(variable.c_str());
  }
  void write(const std::string &name, const std::string &bytes) const {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << bytes;
  }
  // Copies: a library that is open already is not opened again under another name of the same file.
  void install(const std::string &folder, const std::string &library, const std::string &name,
               const std::string &builtins) const {
    std::filesystem::create_directories(root_ / folder);
    std::filesystem::copy_file(library, root_ / folder / name);
    if (!builtins.empty())
      std::filesystem::copy_file(FAKE_OTHER_LIBRARY, root_ / folder / ("libnvrtc-builtins.so." + builtins));
  }
  std::shared_ptr<const kvq::Nvrtc> load() {
    if (!std::filesystem::exists(root_ / "own"))
      install("own", FAKE_NVRTC_13, "libnvrtc.so.13", "13.0");
    auto nvrtc = kvq::Nvrtc::load({path("own/libnvrtc.so.13"), {}});
    EXPECT_TRUE(nvrtc.isOk()) << nvrtc.status().message();
    return nvrtc.value();
  }

private:
  std::filesystem::path root_;
  std::map<std::string, std::optional<std::string>> before_;
};

} // namespace kvq_test
