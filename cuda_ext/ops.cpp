// Names the ops and makes `import apml_plugin._C` work: importing loads this library, which registers them.
#include <Python.h>
#include <torch/library.h>

#include "schema.h"

TORCH_LIBRARY(apml, m) {
  m.def(apml::schema::MATCH);
  m.def(apml::schema::PLAN);
  m.def(apml::schema::NEAREST);
  m.def(apml::schema::CHAMFER);
  m.def(apml::schema::FAST_EMD);
  m.def(apml::schema::ASSIGN);
}

extern "C" PyObject* PyInit__C(void) {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", "Compiled ops of apml_plugin.", -1, nullptr};
  return PyModule_Create(&module);
}
