// SPDX-License-Identifier: Apache-2.0
//
// The kernel store: what it keeps, what it refuses, and that a key is compiled once. Kernels come from a fake compiler
// (fakes/fake_compiler.c), by the store itself and through contexts on device "cpu".
#include "runtime/jit/kernel_store.h"

#include "tests/unit/cache_harness.h"

#include <filesystem>
#include <fstream>
#include <set>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace fs = std::filesystem;
using namespace kvq;
using kvq_test::Outcome;

namespace {

TEST(Sha256, MatchesThePublishedVectors) {
  EXPECT_EQ(toHex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(toHex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(toHex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  Sha256 million;
  for (int i = 0; i < 10000; ++i)
    million.update(std::string(100, 'a').data(), 100);
  EXPECT_EQ(toHex(million.finish()), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Key, EveryPartCounts) {
  const std::set<std::string> keys = {kernelKey("a", false, "l", "h"), kernelKey("b", false, "l", "h"),
                                      kernelKey("a", true, "l", "h"),  kernelKey("a", false, "m", "h"),
                                      kernelKey("a", false, "l", "i"), kernelKey("al", false, "", "h")};
  EXPECT_EQ(keys.size(), 6u);
  EXPECT_EQ(kernelKey("a", false, "l", "h"), kernelKey("a", false, "l", "h"));
}

class Store : public ::testing::Test {
protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "kvq-store-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root = name;
    folder = root / "store";
    log = root / "log";
    setenv("FAKE_COMPILER_LOG", log.c_str(), 1);
  }
  void TearDown() override {
    unsetenv("FAKE_COMPILER_LOG");
    fs::remove_all(root);
  }

  KernelStore open() {
    auto store = KernelStore::open(folder.c_str(), KernelStore::Access::ReadWrite);
    EXPECT_TRUE(store.isOk()) << store.status().message();
    return store.isOk() ? store.value() : KernelStore();
  }
  int compiles() const {
    std::error_code missing;
    const auto bytes = fs::file_size(log, missing);
    return missing ? 0 : static_cast<int>(bytes / 2);
  }
  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto &entry : fs::directory_iterator(folder))
      names.insert(entry.path().filename());
    return names;
  }
  kvq_error *context(kvq_context **context, int frozen = 0, const char *compiler = FAKE_COMPILER) const {
    kvq_context_options options{};
    options.struct_size = sizeof(options);
    options.store_dir = folder.c_str();
    options.compiler = compiler;
    options.frozen = frozen;
    options.threads = 2;
    return kvq_context_create(&options, context);
  }
  // Compiles `text` in a new context; gives where its kernel came from, or the error's message.
  std::string compileOnce(const char *text, int frozen = 0) const {
    kvq_context *created = nullptr;
    Outcome made(context(&created, frozen));
    if (made.code != KVQ_OK)
      return made.message;
    kvq_kernel *kernel = nullptr;
    Outcome compiled(kvq_kernel_compile(created, text, &kernel));
    std::string source = compiled.message;
    if (compiled.code == KVQ_OK) {
      kvq_context_kernels(
          created, [](void *data, const kvq_kernel_info *info) { *static_cast<std::string *>(data) = info->source; },
          &source);
      int32_t out[8] = {};
      const uint64_t args[2] = {reinterpret_cast<uint64_t>(out), 1};
      const int64_t grid[3] = {8, 1, 1};
      KVQ_EXPECT_OK(kvq_kernel_launch(kernel, args, 2, grid, nullptr));
      EXPECT_EQ(out[7], 1049);
    }
    kvq_kernel_destroy(kernel);
    kvq_context_destroy(created);
    return source;
  }

  fs::path root, folder, log;
  const std::string key = std::string(64, 'a');
  const CompiledKernel sample = {std::vector<uint8_t>(3000, 0x5a), "entry", "ptr<i8> i64", 12.5};
};

TEST_F(Store, GivesBackWhatWasWritten) {
  const KernelStore store = open();
  EXPECT_EQ(store.read(key).status().code(), Code::FailedPrecondition);
  ASSERT_TRUE(store.write(key, sample).isOk());
  auto read = store.read(key);
  ASSERT_TRUE(read.isOk()) << read.status().message();
  EXPECT_EQ(read.value().object, sample.object);
  EXPECT_EQ(read.value().entry, "entry");
  EXPECT_EQ(read.value().signature, "ptr<i8> i64");
  EXPECT_EQ(read.value().compileMs, 12.5);
  EXPECT_EQ(files(), std::set<std::string>{key + ".kernel"});
  struct stat info;
  ASSERT_EQ(stat(folder.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(Store, EveryChangedByteAndEveryTruncationIsCorrupt) {
  const KernelStore store = open();
  CompiledKernel little = sample;
  little.object.resize(200);
  ASSERT_TRUE(store.write(key, little).isOk());
  const fs::path path = folder / (key + ".kernel");
  std::ifstream file(path, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(file), {}};
  const auto isCorrupt = [&](const std::string &bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    return store.read(key).status().code() == Code::Corrupt;
  };
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] ^= 0x10;
    ASSERT_TRUE(isCorrupt(changed)) << "byte " << at;
    ASSERT_TRUE(isCorrupt(whole.substr(0, at))) << "first " << at;
  }
  EXPECT_TRUE(isCorrupt(whole + "x"));
  // The entry of another key, under this one's name.
  ASSERT_TRUE(store.write(std::string(64, 'b'), little).isOk());
  fs::rename(folder / (std::string(64, 'b') + ".kernel"), path);
  EXPECT_EQ(store.read(key).status().code(), Code::Corrupt);
}

TEST_F(Store, ACorruptEntryIsAMissAndReplaced) {
  EXPECT_EQ(compileOnce("text"), "compiled");
  EXPECT_EQ(compileOnce("text"), "store");
  EXPECT_EQ(compiles(), 1);
  ASSERT_EQ(files().size(), 1u);
  const fs::path path = folder / *files().begin();
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary).seekp(500).put('!');
  EXPECT_NE(compileOnce("text", 1).find("unusable"), std::string::npos); // frozen: never replaced
  EXPECT_EQ(compileOnce("text"), "compiled");
  EXPECT_EQ(compileOnce("text", 1), "store");
  EXPECT_EQ(compiles(), 2);
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(Store, FrozenNeverCompiles) {
  open();
  EXPECT_NE(compileOnce("text", 1).find("frozen"), std::string::npos);
  EXPECT_EQ(compiles(), 0);
}

TEST_F(Store, AMistakeInATextIsReportedAndNotKept) {
  EXPECT_EQ(compileOnce("a mistake"), "2:5: a mistake was made; repeat: kvqc --bundle x");
  EXPECT_TRUE(files().empty());
}

TEST_F(Store, ThreadsAndProcessesCompileAKeyOnce) {
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const std::string source = compileOnce("shared");
      _exit(source == "compiled" || source == "store" ? 0 : 1);
    }
    children.push_back(child);
  }
  std::vector<std::thread> threads;
  std::vector<std::string> sources(4);
  for (std::string &source : sources)
    threads.emplace_back([&] { source = compileOnce("shared"); });
  for (std::thread &thread : threads)
    thread.join();
  for (pid_t child : children) {
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  for (const std::string &source : sources)
    EXPECT_TRUE(source == "compiled" || source == "store") << source;
  EXPECT_EQ(compiles(), 1);
  EXPECT_EQ(files().size(), 1u); // neither locks nor temporary files stay
}

TEST_F(Store, ThreadsOfOneContextShareAKernel) {
  kvq_context *created = nullptr;
  KVQ_ASSERT_OK(context(&created));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      kvq_kernel *kernel = nullptr;
      KVQ_EXPECT_OK(kvq_kernel_compile(created, "shared", &kernel));
      kvq_kernel_destroy(kernel);
    });
  for (std::thread &thread : threads)
    thread.join();
  kvq_context_destroy(created);
  EXPECT_EQ(compiles(), 1);
}

TEST_F(Store, ALockOfADeadProcessHoldsNobodyUp) {
  const KernelStore store = open();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    bool compiled;
    const auto dies = []() -> Result<CompiledKernel> { _exit(0); };
    (void)store.readOrCompile(key, dies, compiled);
    _exit(1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(files(), std::set<std::string>{key + ".kernel.lock"});
  bool compiled = false;
  auto kernel = store.readOrCompile(key, [&]() -> Result<CompiledKernel> { return sample; }, compiled);
  EXPECT_TRUE(kernel.isOk() && compiled);
  EXPECT_EQ(files(), std::set<std::string>{key + ".kernel"});
}

TEST_F(Store, UntrustedAndUnusableFoldersAreRefusedAtOnce) {
  kvq_context *created = nullptr;
  open();
  for (mode_t mode : {0770, 0702}) {
    ASSERT_EQ(chmod(folder.c_str(), mode), 0);
    KVQ_EXPECT_ERROR(context(&created), KVQ_PERMISSION, "others may write to it");
  }
  ASSERT_EQ(chmod(folder.c_str(), 0755), 0);
  if (geteuid() == 0) {
    ASSERT_EQ(chown(folder.c_str(), 12345, 12345), 0);
    KVQ_EXPECT_ERROR(context(&created), KVQ_PERMISSION, "belongs to user 12345");
  }
  folder = log;
  std::ofstream(log) << "x";
  KVQ_EXPECT_ERROR(context(&created), KVQ_PERMISSION, "not a folder");
  folder = "/proc/kvq-store"; // a file system where not even root creates anything
  KVQ_EXPECT_ERROR(context(&created), KVQ_PERMISSION, "cannot be created");
  folder = "/proc/self";
  KVQ_EXPECT_ERROR(context(&created), KVQ_PERMISSION, "cannot be written");
  EXPECT_EQ(created, nullptr);
}

TEST_F(Store, ALinkThatChangesLaterLeadsNowhere) {
  const KernelStore other = open();
  ASSERT_TRUE(other.write(key, sample).isOk());
  const fs::path mine = root / "mine", link = root / "link";
  ASSERT_EQ(mkdir(mine.c_str(), 0700), 0);
  fs::create_symlink(mine, link);
  auto store = KernelStore::open(link.c_str(), KernelStore::Access::ReadWrite);
  ASSERT_TRUE(store.isOk()) << store.status().message();
  fs::remove(link);
  fs::create_symlink(folder, link);
  EXPECT_EQ(store.value().read(key).status().code(), Code::FailedPrecondition);
}

TEST_F(Store, AnEntryThatOthersMayWriteToIsNotRun) {
  const KernelStore store = open();
  ASSERT_TRUE(store.write(key, sample).isOk());
  ASSERT_EQ(chmod((folder / (key + ".kernel")).c_str(), 0646), 0);
  EXPECT_EQ(store.read(key).status().code(), Code::Corrupt);
}

// As an image ships it: owned by root, read by the user that the engine runs as.
TEST_F(Store, AFolderOfRootIsTrusted) {
  if (geteuid() != 0)
    GTEST_SKIP() << "only root can make a folder of root's";
  open();
  ASSERT_EQ(chmod(root.c_str(), 0755), 0);
  ASSERT_EQ(chmod(folder.c_str(), 0755), 0);
  ASSERT_EQ(seteuid(12345), 0);
  const auto read = KernelStore::open(folder.c_str(), KernelStore::Access::ReadOnly);
  const auto written = KernelStore::open(folder.c_str(), KernelStore::Access::ReadWrite);
  ASSERT_EQ(seteuid(0), 0);
  EXPECT_TRUE(read.isOk()) << read.status().message();
  EXPECT_EQ(written.status().code(), Code::Permission);
}

TEST_F(Store, ACompilerThatIsAbsentOrOfAnotherVersionIsRefused) {
  kvq_context *created = nullptr;
  KVQ_EXPECT_ERROR(context(&created, 0, "/nowhere/libkvq-compiler.so"), KVQ_UNSUPPORTED,
                   "/nowhere/libkvq-compiler.so cannot be loaded");
  KVQ_EXPECT_ERROR(context(&created, 0, ""), KVQ_UNSUPPORTED, "without a compiler plug-in");
  KVQ_EXPECT_ERROR(context(&created, 0, FAKE_OTHER_COMPILER), KVQ_UNSUPPORTED, "version 999");
  EXPECT_EQ(created, nullptr);
  setenv("KVQ_COMPILER", FAKE_COMPILER, 1);
  KVQ_EXPECT_OK(context(&created, 0, nullptr));
  unsetenv("KVQ_COMPILER");
  EXPECT_STREQ(kvq_context_levels(created), "low high");
  EXPECT_STREQ(kvq_context_level(created), "high");
  kvq_context_destroy(created);
}

TEST_F(Store, LevelsHaveKernelsOfTheirOwn) {
  for (const char *level : {"low", "high", "high"}) {
    kvq_context_options options{};
    options.struct_size = sizeof(options);
    options.store_dir = folder.c_str();
    options.compiler = FAKE_COMPILER;
    options.level = level;
    kvq_context *created = nullptr;
    KVQ_ASSERT_OK(kvq_context_create(&options, &created));
    kvq_kernel *kernel = nullptr;
    KVQ_EXPECT_OK(kvq_kernel_compile(created, "text", &kernel));
    kvq_kernel_destroy(kernel);
    kvq_context_destroy(created);
    options.level = "higher";
    KVQ_EXPECT_ERROR(kvq_context_create(&options, &created), KVQ_UNSUPPORTED, "use one of low, high");
  }
  EXPECT_EQ(compiles(), 2);
}

TEST_F(Store, SupportIsAnsweredWithoutCompiling) {
  kvq_test::CacheSetup setup;
  setup.text = "kvq-4", setup.dk = setup.dv = 64;
  kvq_test::Harness harness(setup);
  const kvq_cache_config config = harness.config();
  kvq_context *usual = nullptr, *frozen = nullptr;
  KVQ_ASSERT_OK(context(&usual));
  KVQ_EXPECT_OK(kvq_query_support(usual, &config));
  EXPECT_EQ(compiles(), 0);
  KVQ_ASSERT_OK(context(&frozen, 1));
  KVQ_EXPECT_ERROR(kvq_query_support(frozen, &config), KVQ_UNSUPPORTED, "append:k4c32-v4t32:vnni:p64:dk64");
  size_t bytes = 0;
  KVQ_ASSERT_OK(kvq_cache_memory_bytes(&config, &bytes));
  kvq_test::Memory memory(bytes);
  kvq_cache *cache = nullptr;
  KVQ_ASSERT_OK(kvq_cache_create(usual, &config, memory.data(), bytes, &cache));
  int seen = 0;
  KVQ_EXPECT_OK(kvq_cache_prepare(
      cache,
      [](void *data, const kvq_kernel_info *info) {
        ++*static_cast<int *>(data);
        EXPECT_STREQ(info->source, "compiled");
        EXPECT_EQ(info->compile_ms, 30.0);
        EXPECT_GT(info->object_bytes, 100);
        EXPECT_EQ(std::string(info->key).size(), 64u);
      },
      &seen));
  EXPECT_EQ(seen, 16); // six operations, and attend for 2, 4, 6, 8, 12, 16, 20, 24, 28 and 32 rows (AttendRows)
  KVQ_EXPECT_OK(kvq_query_support(frozen, &config));
  kvq_cache_destroy(cache);
  kvq_context_destroy(frozen);
  kvq_context_destroy(usual);
}

} // namespace
