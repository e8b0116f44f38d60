// An NVRTC that compiles kernels for the simulated GPU: with the C++ compiler, to a shared library whose
// strobe_simulated_kernel runs one thread. Where the kernel includes ptx.cuh and hopper.cuh, it gets those of this
// folder.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kSuccess = 0, kCompilation = 6;

struct Program {
  fs::path folder;
  std::string name, log, image;
};

std::string content(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// What a C++ compiler reads in place of a kernel's text.
std::string translated(const std::string& path, std::string text) {
  if (path == "cuda/device/ptx.cuh" || path == "cuda/device/hopper.cuh") {
    return content(fs::path(STROBE_TESTS) / "cuda/simulator" / fs::path(path).filename());
  }
  if (const std::size_t at = text.find("extern __shared__"); at != text.npos) {
    text.replace(at, text.find(';', at) - at, "using ::strobe::simulator::shared_memory");
  }
  const std::size_t kernel = text.find("__global__"), name = text.find("strobe_sm", kernel);
  if (kernel == text.npos || name == text.npos) return text;
  const std::string function = text.substr(name, text.find('(', name) - name);
  const std::string mark = "__cluster_dims__(";
  const std::size_t cluster = text.find(mark);
  if (cluster != text.npos) {
    const std::size_t first = cluster + mark.size();
    text +=
        "\nextern \"C\" {\nextern const unsigned strobe_simulated_cluster;\n"
        "const unsigned strobe_simulated_cluster = " +
        text.substr(first, text.find(',', first) - first) + ";\n}\n";
  }
  return text +
         "\ntemplate <class Params>\n"
         "void run_one(void (*kernel)(Params), const void* params) { kernel(*static_cast<const Params*>(params)); }\n"
         "extern \"C\" void strobe_simulated_kernel(const void* params) { run_one(" +
         function + ", params); }\n";
}

void write(const Program& program, const std::string& path, const std::string& text) {
  fs::create_directories((program.folder / path).parent_path());
  std::ofstream(program.folder / path, std::ios::binary) << translated(path, text);
}

int copy_out(const std::string& from, char* to) {
  from.copy(to, from.size());
  return kSuccess;
}

}  // namespace

EXPORT int nvrtcVersion(int* major, int* minor) {
  *major = 12;
  *minor = 0;
  return kSuccess;
}
EXPORT const char* nvrtcGetErrorString(int result) {
  return result == kSuccess ? "NVRTC_SUCCESS" : "NVRTC_ERROR_COMPILATION";
}
EXPORT int nvrtcCreateProgram(Program** result, const char* text, const char* name, int count,
                              const char* const* headers, const char* const* names) {
  auto* program = new Program;
  std::string folder = (fs::temp_directory_path() / "strobe-simulated-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) return kCompilation;
  program->folder = folder;
  program->name = name;
  write(*program, name, text);
  for (int n = 0; n < count; ++n) write(*program, names[n], headers[n]);
  *result = program;
  return kSuccess;
}
EXPORT int nvrtcDestroyProgram(Program** program) {
  std::error_code ignored;
  fs::remove_all((*program)->folder, ignored);
  delete *program;
  *program = nullptr;
  return kSuccess;
}
EXPORT int nvrtcCompileProgram(Program* program, int count, const char* const* options) {
  const fs::path library = program->folder / "kernel.so", log = program->folder / "log";
  std::string command = STROBE_COMPILER
      " -x c++ -std=c++20 -O1 -fPIC -shared -w -fno-strict-aliasing -fno-stack-protector -include "
      "cuda/simulator/cuda.hpp";
  command += " -I" + program->folder.string() + " -I" STROBE_TESTS;
  for (int n = 0; n < count; ++n) {
    const std::string option = options[n];
    if (option.starts_with("-D")) command += " '" + option + "'";
  }
  command += " " + (program->folder / program->name).string() + " -o " + library.string() +
             " -x none " STROBE_FAKE_DRIVER " >" + log.string() + " 2>&1";
  const int status = std::system(command.c_str());
  program->log = content(log);
  program->image = content(library);
  return status == 0 ? kSuccess : kCompilation;
}
EXPORT int nvrtcGetProgramLogSize(Program* program, std::size_t* bytes) {
  *bytes = program->log.size() + 1;
  return kSuccess;
}
EXPORT int nvrtcGetProgramLog(Program* program, char* to) { return copy_out(program->log + '\0', to); }
EXPORT int nvrtcGetCUBINSize(Program* program, std::size_t* bytes) {
  *bytes = program->image.size();
  return kSuccess;
}
EXPORT int nvrtcGetCUBIN(Program* program, char* to) { return copy_out(program->image, to); }
EXPORT int nvrtcGetPTXSize(Program*, std::size_t*) { return kCompilation; }
EXPORT int nvrtcGetPTX(Program*, char*) { return kCompilation; }
EXPORT int nvrtcGetNumSupportedArchs(int* count) {
  *count = 6;
  return kSuccess;
}
EXPORT int nvrtcGetSupportedArchs(int* architectures) {
  for (const int one : {80, 86, 89, 90, 100, 120}) *architectures++ = one;
  return kSuccess;
}
