// SPDX-License-Identifier: Apache-2.0
//
// Chosen schedules: what is kept and taken, and what is passed over. Kernels come from a fake compiler whose requests
// have two schedules, 32 tokens and, the default, 64 (fakes/fake_schedules.h).
#include "runtime/jit/choice_store.h"

#include "tests/unit/store_harness.h"

#include <fstream>
#include <map>
#include <set>
#include <sys/stat.h>

namespace fs = std::filesystem;
using namespace kvq;

namespace {

constexpr const char *kRequest = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact";
constexpr const char *kOther = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows6:lag0:win0:cap0:exact";
constexpr const char *kShort = "tile_tokens=32,rows=8,vectors=8,prefetch=1";
constexpr const char *kIllegal = "tile_tokens=48,rows=8,vectors=8,prefetch=1";

class ChosenSchedule : public kvq_test::WithStore {
protected:
  // The schedule that the request's kernel is opened with.
  static std::string opened(kvq_context *in, const char *request = kRequest) {
    kvq_kernel *kernel = nullptr;
    KVQ_EXPECT_OK(kvq_kernel_open(in, request, &kernel));
    const std::string schedule = kvq_kernel_schedule(kernel);
    kvq_kernel_destroy(kernel);
    return schedule;
  }
  std::set<fs::path> schedules() const { return files(".schedule"); }
  ChoiceStore store() const {
    auto kernels = KernelStore::open(folder.c_str(), KernelStore::Access::ReadWrite);
    EXPECT_TRUE(kernels.isOk());
    return ChoiceStore::schedules(kernels.value());
  }
  ChoiceKey key() const { return {kRequest, "", "high", "fake-1", kvq_context_machine(context)}; }
};

TEST_F(ChosenSchedule, EveryPartOfTheKeyCounts) {
  const ChoiceStore kept = store();
  EXPECT_EQ(kept.read(key()), "");
  ASSERT_TRUE(kept.write(key(), kShort).isOk());
  EXPECT_EQ(kept.read(key()), kShort);
  for (std::string ChoiceKey::*part :
       {&ChoiceKey::request, &ChoiceKey::score, &ChoiceKey::level, &ChoiceKey::compiler, &ChoiceKey::machine}) {
    ChoiceKey other = key();
    other.*part += "x";
    EXPECT_EQ(kept.read(other), "");
  }
  ASSERT_TRUE(kept.write(key(), kIllegal).isOk()); // in the place of the first
  EXPECT_EQ(kept.read(key()), kIllegal);
  EXPECT_EQ(schedules().size(), 1u);
  ASSERT_TRUE(kept.forget(key()).isOk());
  EXPECT_TRUE(kept.forget(key()).isOk());
  EXPECT_EQ(kept.read(key()), "");
  EXPECT_TRUE(schedules().empty());
}

TEST_F(ChosenSchedule, DamagedAndUntrustedFilesAreMisses) {
  const ChoiceStore kept = store();
  ASSERT_TRUE(kept.write(key(), kShort).isOk());
  const fs::path path = *schedules().begin();
  std::ifstream file(path, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(file), {}};
  const auto given = [&](const std::string &bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    return kept.read(key());
  };
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] ^= 0x10;
    ASSERT_EQ(given(changed), "") << "byte " << at;
    ASSERT_EQ(given(whole.substr(0, at)), "") << "first " << at;
  }
  EXPECT_EQ(given(whole + "x"), "");
  EXPECT_EQ(given(whole), kShort);
  ASSERT_EQ(chmod(path.c_str(), 0622), 0);
  EXPECT_EQ(kept.read(key()), "");
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  const fs::path aside = folder / "aside";
  fs::rename(path, aside);
  fs::create_symlink(aside, path);
  EXPECT_EQ(kept.read(key()), "");
  fs::remove(path);
  ASSERT_TRUE(kept.write(key(), "no schedule").isOk());
  EXPECT_EQ(kept.read(key()), "");
}

TEST_F(ChosenSchedule, LaterOpensTakeIt) {
  EXPECT_EQ(opened(context), "");
  EXPECT_TRUE(schedules().empty()); // looking writes nothing
  KVQ_ASSERT_OK(kvq_schedule_set(context, kRequest, nullptr, kShort));
  EXPECT_EQ(opened(context), kShort);
  EXPECT_EQ(opened(context, kOther), "");
  kvq_context *another = open();
  EXPECT_EQ(opened(another), kShort);
  std::set<std::string> shown;
  kvq_context_kernels(
      context,
      [](void *all, const kvq_kernel_info *info) {
        static_cast<std::set<std::string> *>(all)->insert(info->schedule + std::string(" of ") + info->name);
      },
      &shown);
  EXPECT_EQ(shown, (std::set<std::string>{std::string(" of ") + kRequest, std::string(" of ") + kOther,
                                          std::string(kShort) + " of " + kRequest}));
  KVQ_ASSERT_OK(kvq_schedule_set(another, kRequest, nullptr, nullptr));
  EXPECT_EQ(opened(context), "");
  kvq_context_destroy(another);
}

TEST_F(ChosenSchedule, AKernelIsOpenedWithExactlyTheScheduleThatIsGiven) {
  KVQ_ASSERT_OK(kvq_schedule_set(context, kRequest, nullptr, kShort));
  const char *standard = "tile_tokens=64,rows=8,vectors=8,prefetch=1";
  kvq_kernel *kernel = nullptr;
  KVQ_ASSERT_OK(kvq_kernel_open_scheduled(context, kRequest, nullptr, standard, &kernel));
  EXPECT_STREQ(kvq_kernel_schedule(kernel), standard);
  kvq_kernel_destroy(kernel);
  KVQ_EXPECT_ERROR(kvq_kernel_open_scheduled(context, kRequest, nullptr, kIllegal, &kernel), KVQ_INVALID_ARGUMENT,
                   "none of the fake ones");
  KVQ_EXPECT_ERROR(kvq_kernel_open_scheduled(context, kRequest, nullptr, "rows=8", &kernel), KVQ_INVALID_ARGUMENT,
                   "no knob tile_tokens");
  EXPECT_EQ(opened(context), kShort);
}

TEST_F(ChosenSchedule, WhatIsIllegalIsRefusedAndAFileWithItPassedOver) {
  KVQ_EXPECT_ERROR(kvq_schedule_set(context, kRequest, nullptr, kIllegal), KVQ_INVALID_ARGUMENT,
                   "none of the fake ones");
  KVQ_EXPECT_ERROR(kvq_schedule_set(context, kRequest, nullptr, ""), KVQ_INVALID_ARGUMENT, "no knob tile_tokens");
  KVQ_EXPECT_ERROR(kvq_schedule_set(context, "attend", nullptr, kShort), KVQ_INVALID_ARGUMENT, "attend");
  EXPECT_TRUE(schedules().empty());
  ASSERT_TRUE(store().write(key(), kIllegal).isOk());
  EXPECT_EQ(opened(context), "");
}

TEST_F(ChosenSchedule, AFrozenContextTakesWhatIsThere) {
  EXPECT_EQ(opened(context), "");
  KVQ_ASSERT_OK(kvq_schedule_set(context, kRequest, nullptr, kShort));
  kvq_context *frozen = open(1);
  EXPECT_EQ(opened(frozen), ""); // no kernel with it is in the store yet
  EXPECT_EQ(opened(context), kShort);
  EXPECT_EQ(opened(frozen), kShort);
  KVQ_EXPECT_ERROR(kvq_schedule_set(frozen, kRequest, nullptr, nullptr), KVQ_FAILED_PRECONDITION, "frozen");
  EXPECT_EQ(schedules().size(), 1u);
  kvq_context_destroy(frozen);
}

TEST_F(ChosenSchedule, WithoutAStoreThereIsNoChoice) {
  kvq_context *bare = open(0, "cpu", "");
  KVQ_EXPECT_ERROR(kvq_schedule_set(bare, kRequest, nullptr, kShort), KVQ_FAILED_PRECONDITION, "no kernel store");
  EXPECT_EQ(opened(bare), "");
  kvq_context_destroy(bare);
}

TEST_F(ChosenSchedule, AScoreFunctionHasAChoiceOfItsOwn) {
  kvq_score_function score{sizeof(score), KVQ_SCORE_IR, "func.func @f() {}", "f"};
  const auto scored = [&] {
    kvq_kernel *kernel = nullptr;
    KVQ_EXPECT_OK(kvq_kernel_open_scored(context, kRequest, &score, &kernel));
    const std::string schedule = kvq_kernel_schedule(kernel);
    kvq_kernel_destroy(kernel);
    return schedule;
  };
  KVQ_ASSERT_OK(kvq_schedule_set(context, kRequest, &score, kShort));
  EXPECT_EQ(scored(), kShort);
  EXPECT_EQ(opened(context), "");
  score.text = "func.func @g() {}";
  EXPECT_EQ(scored(), "");
  KVQ_EXPECT_ERROR(kvq_schedule_set(context, "merge:k4c32-v4t32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact",
                                    &score, kShort),
                   KVQ_INVALID_ARGUMENT, "has no scores");
}

TEST_F(ChosenSchedule, TheSpaceIsAText) {
  size_t bytes = 0;
  KVQ_ASSERT_OK(kvq_schedule_space(context, kRequest, 0, nullptr, &bytes));
  std::string text(bytes, 'x');
  KVQ_ASSERT_OK(kvq_schedule_space(context, kRequest, bytes - 1, text.data(), &bytes));
  EXPECT_EQ(text, std::string(bytes, 'x')); // too small: left as it was
  KVQ_ASSERT_OK(kvq_schedule_space(context, kRequest, bytes, text.data(), &bytes));
  EXPECT_STREQ(text.c_str(), "tile_tokens=32,rows=8,vectors=8,prefetch=1\n"
                             "tile_tokens=64,rows=8,vectors=8,prefetch=1 (default)\n");
  KVQ_EXPECT_ERROR(kvq_schedule_space(context, "attend", 0, nullptr, &bytes), KVQ_INVALID_ARGUMENT, "attend");
  kvq_context *ref = open(0, "ref");
  KVQ_EXPECT_ERROR(kvq_schedule_space(ref, kRequest, 0, nullptr, &bytes), KVQ_UNSUPPORTED, "compiles no kernels");
  kvq_context_destroy(ref);
}

TEST_F(ChosenSchedule, TheMachineIsTheSameTextInEveryContext) {
  const std::string machine = kvq_context_machine(context);
  EXPECT_EQ(machine.rfind("{\"caches\":{", 0), 0u) << machine;
  EXPECT_NE(machine.find(",\"kind\":\"cpu\",\"name\":\""), std::string::npos) << machine;
  EXPECT_NE(machine.find(",\"target\":\"high\"}"), std::string::npos) << machine;
  kvq_context *another = open(1);
  EXPECT_EQ(kvq_context_machine(another), machine);
  kvq_context_destroy(another);
}

// Kernels without a schedule keep the keys that they had before there were any.
TEST_F(ChosenSchedule, AKeyHasTheScheduleWhereOneIsGiven) {
  EXPECT_EQ(kernelKey("a", false, "l", "h"), kernelKey({"request", "a", "l", "h"}));
  EXPECT_EQ(kernelKey("a", false, "l", "h", "s"), kernelKey({"request", "a", "l", "h", "s"}));
}

// A cache's kernels change between steps, all or none.
TEST_F(ChosenSchedule, ACacheTakesItWhenItsKernelsAreRefreshed) {
  kvq_cache_config config{};
  config.struct_size = sizeof(config);
  config.format = "k4c32-v4t32/w32,block";
  config.layers = config.q_heads = config.kv_heads = config.sequences = 1;
  config.dk = config.dv = 64;
  config.blocks = 4;
  size_t bytes = 0;
  KVQ_ASSERT_OK(kvq_cache_memory_bytes(&config, &bytes));
  kvq_test::Memory memory(bytes);
  kvq_cache *cache = nullptr;
  KVQ_ASSERT_OK(kvq_cache_create(context, &config, memory.data(), bytes, &cache));
  std::map<std::string, std::string> schedules; // of each attend kernel
  const auto prepared = [&] {
    schedules.clear();
    KVQ_EXPECT_OK(kvq_cache_prepare(
        cache,
        [](void *all, const kvq_kernel_info *info) {
          if (std::string(info->name).rfind("attend:", 0) == 0)
            (*static_cast<std::map<std::string, std::string> *>(all))[info->name] = info->schedule;
        },
        &schedules));
    return schedules;
  };
  const auto before = prepared();
  const std::string request = before.begin()->first;
  KVQ_ASSERT_OK(kvq_schedule_set(context, request.c_str(), nullptr, kShort));
  EXPECT_EQ(prepared(), before); // what is open stays
  int32_t sequence = 0;
  KVQ_ASSERT_OK(kvq_sequence_add(cache, &sequence));
  const int32_t tokens = 1;
  kvq_plan_desc desc{};
  desc.struct_size = sizeof(desc);
  desc.count = 1;
  desc.sequences = &sequence;
  desc.new_tokens = &tokens;
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(kvq_plan(cache, &desc, &step));
  KVQ_EXPECT_ERROR(kvq_cache_refresh_kernels(cache), KVQ_FAILED_PRECONDITION, "a step of this cache is open");
  EXPECT_EQ(prepared(), before);
  kvq_abort_step(step);
  KVQ_ASSERT_OK(kvq_cache_refresh_kernels(cache));
  for (const auto &[name, schedule] : prepared())
    EXPECT_EQ(schedule, name == request ? kShort : "") << name;
  kvq_cache_destroy(cache);
}

} // namespace
