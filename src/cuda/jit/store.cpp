// The order of the sources, and what is said when none has the kernel.
#include "cuda/jit/store.hpp"

#include "cuda/jit/nvrtc.hpp"
#include "strobe/types.hpp"

namespace strobe::cuda {

Image find_image(const KernelKey& key, int architecture, Source) {
  const Nvrtc& compiler = nvrtc();
  if (!compiler.usable()) {
    throw Error(ErrorCode::kUnsupported, "the kernel " + describe(key), "not there: " + compiler.missing(),
                "compiled on demand, or built into the library");
  }
  const std::string target = compiler.target_for(architecture, row_of(key.id).suffix);
  Image image;
  image.bytes = compiler.compile(recipe_for(key), target, describe(key));
  image.source = Source::kCompiled;
  image.origin = "compiled by NVRTC " + compiler.version_text();
  return image;
}

}  // namespace strobe::cuda
