// The disk cache under everything that happens to files: many processes, kills, corruption, folders that cannot be
// written, disks without room.
#include "cuda/jit/disk.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "base/hash.hpp"
#include "cuda/scratch_folder.hpp"

namespace strobe::cuda {
namespace {

using testing::ScratchFolder;

const std::string kHash = "0123456789abcdef0123456789abcdef";

std::vector<char> image_of(std::size_t bytes, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::vector<char> image(bytes);
  for (char& byte : image) byte = static_cast<char>(random());
  return image;
}

int files_in(const std::string& folder) {
  return int(std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

/// Runs body in a process of its own; its return value is the exit status.
template <typename Body>
pid_t in_process(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  return child;
}
int status_of(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Sha256, OfTheStandardsExamples) {
  Sha256 empty, abc, long_text;
  EXPECT_EQ(empty.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  abc.add("abc", 3);
  EXPECT_EQ(abc.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string a(1000000, 'a');
  long_text.add(a.data(), 7);
  long_text.add(a.data(), a.size() - 7);
  EXPECT_EQ(long_text.hex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(DiskCache, GivesBackWhatWasAdded) {
  const ScratchFolder scratch;
  const DiskCache cache(scratch.path() + "/not/there/yet");
  EXPECT_FALSE(cache.find(kHash));
  const auto image = image_of(100000);
  ASSERT_TRUE(cache.add("a-label", kHash, "13.0", image));
  const auto found = cache.find(kHash);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->image, image);
  EXPECT_EQ(found->compiler, "13.0");
  EXPECT_FALSE(cache.find("00000000000000000000000000000000"));
}

TEST(DiskCache, TakesTheNewestCompilersEntry) {
  const ScratchFolder scratch;
  const DiskCache cache(scratch.path());
  for (const char* compiler : {"12.9", "13.10", "13.2"}) cache.add("x", kHash, compiler, image_of(10));
  EXPECT_EQ(cache.find(kHash)->compiler, "13.10");
}

TEST(DiskCache, ListsAndClearsItsOwnFilesOnly) {
  const ScratchFolder scratch;
  const DiskCache cache(scratch.path());
  cache.add("cuda.b-1-sm_90", kHash, "13.0", image_of(10));
  cache.add("cuda.a-1-sm_90", kHash, "13.0", image_of(20));
  std::ofstream(scratch.path() + "/README") << "not a kernel";
  std::ofstream(scratch.path() + "/x-" + kHash + "-13.0.kernel.new.77.0") << "left by a killed process";
  const auto entries = cache.list();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].label, "cuda.a-1-sm_90");
  EXPECT_EQ(entries[0].hash, kHash);
  EXPECT_EQ(entries[0].compiler, "13.0");
  EXPECT_GT(entries[0].bytes, 20u);
  EXPECT_TRUE(DiskCache::whole(entries[0]));
  EXPECT_EQ(cache.clear(), 3);
  EXPECT_EQ(files_in(scratch.path()), 1);
}

TEST(DiskCache, ACorruptedEntryIsNoticedAndReplaced) {
  const auto image = image_of(5000);
  const std::size_t file_bytes = [&] {
    const ScratchFolder scratch;
    const DiskCache cache(scratch.path());
    cache.add("x", kHash, "13.0", image);
    return cache.list().at(0).bytes;
  }();
  for (const std::size_t place : {std::size_t(0), std::size_t(20), std::size_t(81), file_bytes - 1}) {
    const ScratchFolder scratch;
    const DiskCache cache(scratch.path());
    cache.add("x", kHash, "13.0", image);
    std::fstream file(cache.list()[0].path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(std::streamoff(place));
    const char wrong = static_cast<char>(file.get() ^ 1);
    file.seekp(std::streamoff(place));
    file.put(wrong);
    file.close();
    EXPECT_FALSE(cache.find(kHash)) << place;
    EXPECT_EQ(files_in(scratch.path()), 0) << place;
    EXPECT_TRUE(cache.add("x", kHash, "13.0", image));
    EXPECT_EQ(cache.find(kHash)->image, image);
  }
}

TEST(DiskCache, ATruncatedEntryIsNoticedAndReplaced) {
  const auto image = image_of(5000);
  for (const int bytes : {0, 5, 81, 82, 3000, 5080}) {
    const ScratchFolder scratch;
    const DiskCache cache(scratch.path());
    cache.add("x", kHash, "13.0", image);
    std::filesystem::resize_file(cache.list()[0].path, std::uintmax_t(bytes));
    EXPECT_FALSE(cache.find(kHash)) << bytes;
    EXPECT_TRUE(cache.add("x", kHash, "13.0", image));
    EXPECT_EQ(cache.find(kHash)->image, image);
  }
}

TEST(DiskCache, ManyProcessesSeeWholeEntriesOnly) {
  const ScratchFolder scratch;
  const DiskCache cache(scratch.path());
  std::vector<pid_t> children;
  for (unsigned process = 0; process < 8; ++process) {
    children.push_back(in_process([&] {
      for (unsigned round = 0; round < 40; ++round) {
        const unsigned number = (round + process) % 5;
        const std::string hash = kHash.substr(1) + std::to_string(number);
        const auto expected = image_of(20000 + number, number);
        const auto found = cache.find(hash);
        if (found && found->image != expected) return 1;
        // A loss of the race for a temporary file is no failure; what is found afterwards must be whole all the same.
        cache.add("x", hash, "13.0", expected);
        if (round % 7 == 6) cache.clear();
      }
      return 0;
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(status_of(child), 0);
  for (const DiskEntry& entry : cache.list()) EXPECT_TRUE(DiskCache::whole(entry)) << entry.path;
}

TEST(DiskCache, AKillInMidWriteLeavesNoBrokenEntry) {
  const ScratchFolder scratch;
  const DiskCache cache(scratch.path());
  const auto image = image_of(8 << 20);
  const auto temporary_files = [&] { return files_in(scratch.path()) - int(cache.list().size()); };
  bool left_something = false;
  for (int round = 0; round < 12; ++round) {
    if (round % 2 == 0) cache.clear();
    const int left_before = round % 2 == 0 ? 0 : temporary_files();
    const pid_t child = in_process([&] {
      for (;;) cache.add("x", kHash, "13.0", image);
      return 0;
    });
    // The temporary file is there from before the first byte is written until it is renamed.
    for (int wait = 0; wait < 5000 && temporary_files() <= left_before; ++wait) usleep(200);
    usleep(useconds_t(1000 * round));
    kill(child, SIGKILL);
    EXPECT_EQ(status_of(child), -SIGKILL);
    for (const DiskEntry& entry : cache.list()) EXPECT_TRUE(DiskCache::whole(entry));
    left_something |= temporary_files() > 0;
  }
  EXPECT_TRUE(left_something) << "no kill came in mid-write, so this showed nothing";
  // The next whole entry takes the leftovers with it.
  EXPECT_TRUE(cache.add("x", kHash, "13.0", image));
  EXPECT_EQ(files_in(scratch.path()), 1);
}

/// Root may write anywhere, so a child gives that up first.
void become_nobody() {
  if (geteuid() == 0 && setuid(65534) != 0) _exit(99);
}

TEST(DiskCache, AFolderThatCannotBeWrittenIsReadAndOtherwiseLeftAlone) {
  const ScratchFolder scratch;
  const DiskCache cache(scratch.path());
  const auto image = image_of(1000);
  ASSERT_TRUE(cache.add("x", kHash, "13.0", image));
  chmod(scratch.path().c_str(), 0555);
  const pid_t child = in_process([&] {
    become_nobody();
    std::string why_not;
    if (cache.add("y", kHash, "13.1", image, &why_not)) return 1;
    if (why_not.find("Permission denied") == std::string::npos) return 2;
    const auto found = cache.find(kHash);
    return found && found->image == image ? 0 : 3;
  });
  EXPECT_EQ(status_of(child), 0);
  chmod(scratch.path().c_str(), 0755);
  EXPECT_EQ(files_in(scratch.path()), 1);
}

TEST(DiskCache, AFolderThatCannotBeMadeHoldsNothing) {
  const ScratchFolder scratch;
  std::ofstream(scratch.path() + "/file") << "in the way";
  for (const std::string& folder : {scratch.path() + "/file/below", std::string("/proc/strobe"), std::string()}) {
    const DiskCache cache(folder);
    std::string why_not;
    EXPECT_FALSE(cache.add("x", kHash, "13.0", image_of(10), &why_not)) << folder;
    EXPECT_FALSE(why_not.empty());
    EXPECT_FALSE(cache.find(kHash));
    EXPECT_TRUE(cache.list().empty());
    EXPECT_EQ(cache.clear(), 0);
  }
}

TEST(DiskCache, WithoutRoomNothingIsLeftBehind) {
  const ScratchFolder scratch;
  const DiskCache cache(scratch.path());
  const pid_t child = in_process([&] {
    // As a full disk does, this lets the beginning be written and then no more.
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{10000, 10000};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 9;
    std::string why_not;
    if (cache.add("x", kHash, "13.0", image_of(100000), &why_not)) return 1;
    if (why_not.find("writing") == std::string::npos) return 2;
    return cache.add("x", kHash, "13.0", image_of(1000)) ? 0 : 3;  // what has room is kept
  });
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(files_in(scratch.path()), 1);
}

TEST(DiskCache, OnAFullFileSystemNothingIsLeftBehind) {
  const ScratchFolder scratch;
  const std::string mount = "mount -t tmpfs -o size=64k none " + scratch.path() + " 2>/dev/null";
  if (geteuid() != 0 || std::system(mount.c_str()) != 0) GTEST_SKIP() << "only root can mount a small file system";
  {
    const DiskCache cache(scratch.path());
    std::string why_not;
    EXPECT_FALSE(cache.add("x", kHash, "13.0", image_of(200000), &why_not));
    EXPECT_NE(why_not.find("No space left"), std::string::npos) << why_not;
    EXPECT_EQ(files_in(scratch.path()), 0);
    EXPECT_TRUE(cache.add("x", kHash, "13.0", image_of(1000)));
  }
  EXPECT_EQ(std::system(("umount " + scratch.path()).c_str()), 0);
}

TEST(CacheFolder, FollowsTheEnvironment) {
  const auto with = [](const char* chosen, const char* xdg, const char* home) {
    for (const auto& [name, value] : {std::pair{"STROBE_CACHE_DIR", chosen}, {"XDG_CACHE_HOME", xdg}, {"HOME", home}}) {
      if (value != nullptr) {
        setenv(name, value, 1);
      } else {
        unsetenv(name);
      }
    }
    return cache_folder_from_environment();
  };
  EXPECT_EQ(with("/c", "/x", "/h"), "/c");
  EXPECT_EQ(with(nullptr, "/x", "/h"), "/x/strobe/kernels");
  EXPECT_EQ(with("", "relative", "/h"), "/h/.cache/strobe/kernels");
  EXPECT_EQ(with(nullptr, nullptr, nullptr), "");
}

}  // namespace
}  // namespace strobe::cuda
