# SPDX-License-Identifier: Apache-2.0
"""Configuration of the lit tests: IR in, IR or diagnostics out, by the drivers in build/<preset>/bin."""

import os

import lit.formats

config.name = "kvq"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = os.path.join(config.kvq_binary_dir, "tests", "lit")
config.excludes = ["CMakeLists.txt"]

config.environment["PATH"] = os.pathsep.join([config.kvq_tools_dir, config.llvm_tools_dir, config.environment["PATH"]])
# Variables of one function's checks must not leak into the next one's: names without $ end at a CHECK-LABEL.
config.environment["FILECHECK_OPTS"] = "-enable-var-scope"
config.substitutions.append(("%kvq_source", config.kvq_source_dir))
config.substitutions.append(("%python", config.python))
