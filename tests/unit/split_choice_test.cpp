// SPDX-License-Identifier: Apache-2.0
//
// Chosen split policies: which caches take them, and what is passed over.
#include "runtime/cache/split_choice.h"

#include "tests/unit/store_harness.h"

#include <fstream>
#include <sys/stat.h>

namespace fs = std::filesystem;
using namespace kvq;

namespace {

constexpr const char *kDefault = "tokens=1024,programs=128,least=16,most=64";
constexpr const char *kChosen = "tokens=256,programs=32,least=4,most=8";
constexpr const char *kGiven = "tokens=512,programs=1,least=1,most=2";
constexpr const char *kRequest = "split:k4c32-v4t32:vnni:p64:dk64:dv64:g2:f32:heads2:lag0:win0:cap0:exact";

class ChosenSplits : public kvq_test::WithStore {
protected:
  void SetUp() override {
    WithStore::SetUp();
    config.struct_size = sizeof(config);
    config.format = "k4c32-v4t32/w32,block";
    config.layers = config.sequences = 1;
    config.q_heads = 4, config.kv_heads = 2;
    config.dk = config.dv = 64;
    config.page_tokens = 64;
    config.blocks = 4;
    config.accuracy = KVQ_ACCURACY_EXACT;
  }
  // The policy of a cache that is made now.
  std::string made(kvq_context *in) const {
    size_t bytes = 0;
    KVQ_EXPECT_OK(kvq_cache_memory_bytes(&config, &bytes));
    const kvq_test::Memory memory(bytes);
    kvq_cache *cache = nullptr;
    KVQ_EXPECT_OK(kvq_cache_create(in, &config, memory.data(), bytes, &cache));
    const std::string policy = kvq_cache_split_policy(cache);
    kvq_cache_destroy(cache);
    return policy;
  }
  static std::string chosen(kvq_context *in) {
    char text[64] = "?";
    KVQ_EXPECT_OK(kvq_split_policy_get(in, kRequest, sizeof(text), text));
    return text;
  }
  std::set<fs::path> policies() const { return files(".splits"); }

  kvq_cache_config config{};
};

TEST_F(ChosenSplits, CachesThatAreMadeLaterTakeIt) {
  EXPECT_STREQ(kvq_split_policy_default(context), kDefault);
  EXPECT_EQ(made(context), kDefault);
  EXPECT_EQ(chosen(context), "");
  EXPECT_TRUE(policies().empty()); // looking writes nothing
  KVQ_ASSERT_OK(kvq_split_policy_set(context, kRequest, kChosen));
  EXPECT_EQ(policies().size(), 1u);
  kvq_context *another = open();
  for (kvq_context *each : {context, another}) {
    EXPECT_EQ(made(each), kChosen);
    EXPECT_EQ(chosen(each), kChosen);
  }
  KVQ_ASSERT_OK(kvq_split_policy_set(another, kRequest, nullptr));
  EXPECT_EQ(made(context), kDefault);
  EXPECT_TRUE(policies().empty());
  kvq_context_destroy(another);
}

TEST_F(ChosenSplits, WhatTheConfigSaysWins) {
  KVQ_ASSERT_OK(kvq_split_policy_set(context, kRequest, kChosen));
  config.split_policy = kGiven;
  EXPECT_EQ(made(context), kGiven);
  config.split_policy = "tokens=512";
  size_t bytes = 0;
  KVQ_EXPECT_ERROR(kvq_cache_memory_bytes(&config, &bytes), KVQ_INVALID_ARGUMENT, "has no knob programs");
}

// Of a header that knows no policies.
TEST_F(ChosenSplits, AnOlderConfigHasNone) {
  KVQ_ASSERT_OK(kvq_split_policy_set(context, kRequest, kChosen));
  config.split_policy = reinterpret_cast<const char *>(1);
  config.struct_size = offsetof(kvq_cache_config, split_policy);
  EXPECT_EQ(made(context), kChosen);
}

TEST_F(ChosenSplits, CachesThatDifferInTheRequestDoNotTakeIt) {
  KVQ_ASSERT_OK(kvq_split_policy_set(context, kRequest, kChosen));
  const kvq_cache_config like = config;
  const auto with = [&](const auto &change) {
    config = like;
    change();
    return made(context);
  };
  EXPECT_EQ(with([&] { config.q_heads = 8, config.kv_heads = 4; }), kDefault);
  EXPECT_EQ(with([&] { config.q_heads = 8; }), kDefault);
  EXPECT_EQ(with([&] { config.dk = 128; }), kDefault);
  EXPECT_EQ(with([&] { config.page_tokens = 128; }), kDefault);
  EXPECT_EQ(with([&] { config.dtype = KVQ_F16; }), kDefault);
  EXPECT_EQ(with([&] { config.accuracy = KVQ_ACCURACY_FULL; }), kDefault);
  EXPECT_EQ(with([&] { config.attention_window = 100; }), kDefault);
  EXPECT_EQ(with([&] { config.format = "k2c32-v4t32/w32,block"; }), kDefault);
  // What a policy does not depend on.
  EXPECT_EQ(with([&] { config.format = "k4c32-v4t32/w64,block", config.layers = 3, config.sequences = 5; }), kChosen);
}

TEST_F(ChosenSplits, ARequestIsThatOfTheCache) {
  CacheConfig like;
  like.format = parseCache("k4c32-v4t32/w32,block").value();
  like.qHeads = 4, like.kvHeads = 2;
  like.accuracy = Accuracy::Exact;
  EXPECT_EQ(splitRequest(like), kRequest);
  EXPECT_TRUE(checkSplitRequest(kRequest).isOk());
  for (const auto &[text, part] :
       {std::pair("", "no name split"),
        {"attend:k4c32-v4t32:vnni:p64:dk64:dv64:g2:f32:rows2:lag0:win0:cap0:exact", "no name split"},
        {"split:k4c32-v4t32:vnni:p64:dk64:dv64:g2:f32:rows2:lag0:win0:cap0:exact", "no heads"},
        {"split:k4c32-v4t32:vnni:p64:dk64:dv64:g2:f32:heads0:lag0:win0:cap0:exact", "heads can be 1 to 65536"},
        {"split:k4c32-v4t32:vnni:p64:dk64:dv64:g2:f32:heads2:lag0:win0:cap0", "write it as in split:"},
        {"split:k5c32-v4t32:vnni:p64:dk64:dv64:g2:f32:heads2:lag0:win0:cap0:exact", "write it as in split:"}}) {
    KVQ_EXPECT_ERROR(kvq_split_policy_set(context, text, kChosen), KVQ_INVALID_ARGUMENT, part);
    char none[64];
    KVQ_EXPECT_ERROR(kvq_split_policy_get(context, text, sizeof(none), none), KVQ_INVALID_ARGUMENT, part);
  }
  KVQ_EXPECT_ERROR(kvq_split_policy_set(context, kRequest, "tokens=1"), KVQ_INVALID_ARGUMENT, "no knob programs");
  EXPECT_TRUE(policies().empty());
}

TEST_F(ChosenSplits, ADamagedOrUntrustedChoiceIsNone) {
  KVQ_ASSERT_OK(kvq_split_policy_set(context, kRequest, kChosen));
  const fs::path path = *policies().begin();
  std::ifstream file(path, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(file), {}};
  const auto given = [&](const std::string &bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    return made(context);
  };
  for (size_t at = 0; at < whole.size(); at += 7) {
    std::string changed = whole;
    changed[at] ^= 0x10;
    ASSERT_EQ(given(changed), kDefault) << "byte " << at;
    ASSERT_EQ(given(whole.substr(0, at)), kDefault) << "first " << at;
  }
  EXPECT_EQ(given(whole), kChosen);
  ASSERT_EQ(chmod(path.c_str(), 0622), 0);
  EXPECT_EQ(made(context), kDefault);
}

TEST_F(ChosenSplits, AFrozenContextTakesAndKeepsIt) {
  EXPECT_EQ(made(context), kDefault);
  KVQ_ASSERT_OK(kvq_split_policy_set(context, kRequest, kChosen));
  kvq_context *frozen = open(1);
  EXPECT_EQ(made(frozen), kChosen); // there is no kernel that it could lack
  KVQ_EXPECT_ERROR(kvq_split_policy_set(frozen, kRequest, nullptr), KVQ_FAILED_PRECONDITION, "frozen");
  EXPECT_EQ(policies().size(), 1u);
  kvq_context_destroy(frozen);
}

TEST_F(ChosenSplits, NothingAndTooLittleAreRefused) {
  KVQ_ASSERT_OK(kvq_split_policy_set(context, kRequest, kChosen));
  char text[64] = "as it was";
  KVQ_EXPECT_ERROR(kvq_split_policy_get(context, kRequest, 8, text), KVQ_INVALID_ARGUMENT, "capacity is 8");
  KVQ_EXPECT_ERROR(kvq_split_policy_get(nullptr, kRequest, 64, text), KVQ_INVALID_ARGUMENT, "context is NULL");
  KVQ_EXPECT_ERROR(kvq_split_policy_get(context, nullptr, 64, text), KVQ_INVALID_ARGUMENT, "request is NULL");
  KVQ_EXPECT_ERROR(kvq_split_policy_get(context, kRequest, 64, nullptr), KVQ_INVALID_ARGUMENT, "text is NULL");
  KVQ_EXPECT_ERROR(kvq_split_policy_set(context, nullptr, kChosen), KVQ_INVALID_ARGUMENT, "request is NULL");
  EXPECT_STREQ(text, "as it was");
  EXPECT_STREQ(kvq_split_policy_default(nullptr), "");
  EXPECT_STREQ(kvq_cache_split_policy(nullptr), "");
}

TEST_F(ChosenSplits, WithoutAStoreOrKernelsThereIsNone) {
  kvq_context *bare = open(0, "cpu", ""), *ref = open(0, "ref");
  KVQ_EXPECT_ERROR(kvq_split_policy_set(bare, kRequest, kChosen), KVQ_FAILED_PRECONDITION, "no kernel store");
  KVQ_EXPECT_ERROR(kvq_split_policy_set(ref, kRequest, kChosen), KVQ_UNSUPPORTED, "compiles no kernels");
  for (kvq_context *each : {bare, ref}) {
    EXPECT_EQ(chosen(each), "");
    EXPECT_EQ(made(each), kDefault);
    kvq_context_destroy(each);
  }
}

} // namespace
