// SPDX-License-Identifier: Apache-2.0
//
// Tests over a kernel store of their own, with a fake compiler.
#pragma once

#include "tests/unit/cache_harness.h"

#include <filesystem>
#include <set>
#include <string>

namespace kvq_test {

class WithStore : public ::testing::Test {
protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "kvq-store-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder = name;
    context = open();
  }
  void TearDown() override {
    kvq_context_destroy(context);
    std::filesystem::remove_all(folder);
  }

  // store: NULL for the test's own.
  kvq_context *open(int frozen = 0, const char *device = "cpu", const char *store = nullptr) const {
    kvq_context_options options{};
    options.struct_size = sizeof(options);
    options.device = device;
    options.store_dir = store ? store : folder.c_str();
    options.compiler = FAKE_COMPILER;
    options.frozen = frozen;
    options.threads = 1;
    kvq_context *made = nullptr;
    KVQ_EXPECT_OK(kvq_context_create(&options, &made));
    return made;
  }
  // Files of the store with such an ending.
  std::set<std::filesystem::path> files(const char *extension) const {
    std::set<std::filesystem::path> found;
    for (const auto &entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == extension)
        found.insert(entry.path());
    return found;
  }

  std::filesystem::path folder;
  kvq_context *context = nullptr;
};

} // namespace kvq_test
