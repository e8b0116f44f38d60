// Worker processes take jobs one by one and leave results in the folder, where the parent reads them. Processes and not
// threads, so that a compiler that crashes takes one job along and not the others.
#include "compile.hpp"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/hash.hpp"
#include "cuda/jit/disk.hpp"
#include "cuda/jit/nvrtc.hpp"
#include "cuda/jit/recipe.hpp"
#include "strobe/types.hpp"

namespace strobe::kernels {
namespace {

namespace fs = std::filesystem;

std::string target_of(const Job& job) {
  return "sm_" + std::to_string(job.architecture) + cuda::row_of(job.variant->key.id).suffix;
}

std::string name_of(const Job& job) { return cuda::describe(job.variant->key) + " for " + target_of(job); }

/// The number in front of `unit` after `from`, or 0.
int number_before(const std::string& text, const char* unit, std::size_t from) {
  const std::size_t end = text.find(unit, from);
  if (end == text.npos || end == 0) return 0;
  std::size_t begin = end;
  while (begin > 0 && (std::isdigit(static_cast<unsigned char>(text[begin - 1])) != 0)) --begin;
  return std::atoi(text.c_str() + begin);
}

/// Runs a command of the shell and returns its status and everything it printed.
int run(const std::string& command, std::string& output) {
  output.clear();
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return -1;
  char buffer[4096];
  while (const std::size_t bytes = fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, bytes);
  return pclose(pipe);
}

std::string shell_word(const std::string& word) {
  std::string text = "'";
  for (const char c : word) {
    if (c == '\'') text += "'\\'";  // ends the quotes, a quote, and begins them again
    text += c;
  }
  text += '\'';
  return text;
}

std::string shell_line(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line.append(shell_word(word)).append(" ");
  return line;
}

std::vector<char> contents_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::vector<char>(std::istreambuf_iterator<char>(file), {});
}

/// A folder that is removed again.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (fs::temp_directory_path() / "strobe_kernel_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw fs::filesystem_error("mkdtemp", pattern, std::error_code());
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::vector<char> compile_with_nvcc(const std::string& nvcc, const Job& job, const cuda::Recipe& recipe,
                                    std::string& log) {
  const ScratchFolder texts;
  for (const cuda::KernelText& text : recipe.texts) {
    const fs::path file = texts.path() / text.path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text.text;
  }
  const fs::path cubin = texts.path() / "kernel.cubin";
  std::vector<std::string> words = {
      nvcc, "-cubin", "-Xptxas", "-v", "--expt-relaxed-constexpr", "-arch=" + target_of(job)};
  words.insert(words.end(), recipe.options.begin(), recipe.options.end());
  words.insert(words.end(), {"-I" + texts.path().string(), "-o", cubin.string()});
  words.push_back((texts.path() / recipe.texts[0].path).string());
  if (run(shell_line(words), log) != 0) {
    throw Error(ErrorCode::kInternal, name_of(job), "not compiled by nvcc:\n" + log, "a kernel that compiles");
  }
  return contents_of(cubin);
}

}  // namespace

std::vector<Job> jobs_for(const std::vector<int>& architectures, const std::string& filter) {
  std::vector<Job> jobs;
  for (const cuda::KernelVariant& variant : cuda::kernel_variants()) {
    if (cuda::describe(variant.key).find(filter) == std::string::npos) continue;
    for (const int architecture : architectures) {
      if (cuda::includes(variant, architecture)) jobs.push_back({&variant, architecture});
    }
  }
  return jobs;
}

std::vector<Job> one_for_each_variant(const std::vector<Job>& jobs) {
  std::vector<Job> chosen;
  for (std::size_t begin = 0, variant = 0; begin < jobs.size(); ++variant) {
    std::size_t end = begin;
    while (end < jobs.size() && jobs[end].variant == jobs[begin].variant) ++end;
    chosen.push_back(jobs[begin + variant % (end - begin)]);
    begin = end;
  }
  return chosen;
}

std::vector<char> compressed(const std::vector<char>& cubin, int architecture, const std::string& nvcc) {
  const ScratchFolder scratch;
  const std::string from = scratch.path() / "kernel.cubin", to = scratch.path() / "kernel.fatbin";
  std::ofstream(from, std::ios::binary).write(cubin.data(), std::streamsize(cubin.size()));
  const std::string tool = fs::path(nvcc).parent_path() / "fatbinary", sm = std::to_string(architecture);
  std::string output;
  const int status = run(shell_line({tool, "-64", "--create=" + to, "--compress-mode=size",
                                     "--image3=kind=elf,sm=" + sm + ",file=" + from}),
                         output);
  std::vector<char> result;
  if (!nvcc.empty() && status == 0) result = contents_of(to);
  return result.empty() ? cubin : result;
}

Usage usage_in(const std::string& messages) {
  Usage usage;
  for (std::size_t at = 0; (at = messages.find("Used ", at)) != messages.npos; ++at) {
    usage.registers = std::max(usage.registers, number_before(messages, " registers", at));
    const std::size_t line_end = messages.find('\n', at);
    const std::string line = messages.substr(at, line_end - at);
    usage.shared_bytes = std::max(usage.shared_bytes, number_before(line, " bytes smem", 0));
  }
  for (std::size_t at = 0; (at = messages.find("bytes stack frame", at)) != messages.npos; ++at) {
    usage.stack_bytes = std::max(usage.stack_bytes, number_before(messages, " bytes stack frame", at - 1));
    usage.spill_bytes +=
        number_before(messages, " bytes spill stores", at) + number_before(messages, " bytes spill loads", at);
  }
  return usage;
}

Compiler::Compiler(std::string nvcc) : nvcc_(std::move(nvcc)) {
  if (nvcc_.empty()) {
    if (!cuda::nvrtc().usable()) {
      throw Error(ErrorCode::kUnsupported, "the compiler of kernels", "missing: " + cuda::nvrtc().missing(), "NVRTC");
    }
    version_ = cuda::nvrtc().version_text();
    return;
  }
  std::string output;
  const bool runs = run(shell_word(nvcc_) + " --version", output) == 0;
  const std::size_t release = output.find("release ");
  if (!runs || release == output.npos) {
    throw Error(ErrorCode::kInvalidArgument, "nvcc", nvcc_ + ", which answers --version with:\n" + output,
                "the compiler of a CUDA toolkit");
  }
  version_ = output.substr(release + 8, output.find(',', release) - release - 8);
}

std::string Compiler::name() const { return (nvcc_.empty() ? "NVRTC " : "nvcc ") + version_; }

std::string Compiler::hash(const Job& job) const {
  return cuda::hash_of(cuda::recipe_for(job.variant->key, job.architecture), target_of(job) + " " + name())
      .substr(0, 32);
}

void Compiler::compile_into(const Job& job, const std::string& folder) const {
  const cuda::DiskCache cache(folder);
  if (cache.find(hash(job))) return;
  const cuda::Recipe recipe = cuda::recipe_for(job.variant->key, job.architecture);
  std::string log;
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<char> cubin = nvcc_.empty()
                                      ? cuda::nvrtc().compile(recipe, target_of(job), cuda::describe(job.variant->key),
                                                              &log, {"--ptxas-options=-v"})
                                      : compile_with_nvcc(nvcc_, job, recipe, log);
  Usage usage = usage_in(log);
  const auto time = std::chrono::steady_clock::now() - begin;
  usage.milliseconds = int(std::chrono::duration_cast<std::chrono::milliseconds>(time).count());
  std::vector<char> entry(sizeof usage + cubin.size());
  std::memcpy(entry.data(), &usage, sizeof usage);
  std::copy(cubin.begin(), cubin.end(), entry.begin() + sizeof usage);
  std::string why_not;
  if (!cache.add(cuda::row_of(job.variant->key.id).name, hash(job), "0", entry, &why_not)) {
    throw Error(ErrorCode::kInternal, "the folder of compiled kernels", why_not, "one that can be written");
  }
}

std::vector<Result> Compiler::compile(const std::vector<Job>& jobs, int processes, const std::string& folder) const {
  // Shared between the processes: the next job, and whether a compiler's log was printed. A mistake in a header breaks
  // every job, and one log is enough to mend it.
  struct Shared {
    std::atomic<std::size_t> next{0};
    std::atomic<bool> log_printed{false};
  };
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  auto* shared = new (memory) Shared;
  std::fflush(nullptr);
  for (int process = 0; process < processes; ++process) {
    const pid_t child = fork();
    if (child != 0) continue;
    for (std::size_t job; (job = shared->next++) < jobs.size();) {
      try {
        compile_into(jobs[job], folder);
      } catch (const std::exception& error) {
        if (!shared->log_printed.exchange(true)) std::fprintf(stderr, "%s\n", error.what());
      }
    }
    _exit(0);
  }
  while (wait(nullptr) > 0) {
  }
  munmap(memory, sizeof *shared);

  const cuda::DiskCache cache(folder);
  std::vector<Result> results;
  for (const Job& job : jobs) {
    Result result;
    if (const auto found = cache.find(hash(job)); found && found->image.size() > sizeof(Usage)) {
      result.compiled = true;
      std::memcpy(&result.usage, found->image.data(), sizeof(Usage));
      result.cubin.assign(found->image.begin() + sizeof(Usage), found->image.end());
    }
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace strobe::kernels
