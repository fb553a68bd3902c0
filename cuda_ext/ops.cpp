// Names the ops and makes `import apml_plugin._C` work: importing loads this library, which registers them.
#include <Python.h>
#include <torch/library.h>

#include <vector>

#include "schema.h"

namespace {

// Tags of every op. They read sizes back from the device, so that a CUDA graph cannot hold them: torch.compile captures
// what is before and after. Older PyTorch has no such tag.
template <typename Tag>
auto tags(int) -> decltype(std::vector<Tag>{Tag::cudagraph_unsafe}) {
  return {Tag::cudagraph_unsafe};
}

template <typename Tag>
std::vector<Tag> tags(long) {
  return {};
}

}  // namespace

TORCH_LIBRARY(apml, m) {
  namespace schema = apml::schema;
  const std::vector<at::Tag> unsafe = tags<at::Tag>(0);
  for (const char* op : {schema::MATCH, schema::PLAN, schema::NEAREST, schema::CHAMFER, schema::FAST_EMD, schema::ASSIGN}) {
    m.def(op, unsafe);
  }
}

extern "C" PyObject* PyInit__C(void) {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", "Compiled ops of apml_plugin.", -1, nullptr};
  return PyModule_Create(&module);
}
