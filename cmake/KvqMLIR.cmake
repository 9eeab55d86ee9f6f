# SPDX-License-Identifier: Apache-2.0
# Finds MLIR 22 (MLIR_DIR overrides where) and defines kvq_mlir_library: a static library with the shared precompiled
# header. It names no library of LLVM: what is linked in the end takes kvq_llvm_shared or, for the wheel,
# kvq_llvm_static.

if(NOT MLIR_DIR AND EXISTS /usr/lib/llvm-22/lib/cmake/mlir)
  set(MLIR_DIR /usr/lib/llvm-22/lib/cmake/mlir)
endif()
find_package(MLIR REQUIRED CONFIG)
if(NOT LLVM_VERSION_MAJOR EQUAL 22)
  message(FATAL_ERROR "kvq needs MLIR 22, found ${LLVM_VERSION}; set MLIR_DIR to <prefix>/lib/cmake/mlir of an MLIR 22")
endif()
list(APPEND CMAKE_MODULE_PATH ${MLIR_CMAKE_DIR} ${LLVM_CMAKE_DIR})
include(TableGen)
include(AddLLVM)
include(AddMLIR)
include_directories(SYSTEM ${MLIR_INCLUDE_DIRS} ${LLVM_INCLUDE_DIRS}) # tablegen reads the directory property
separate_arguments(KVQ_LLVM_DEFINITIONS NATIVE_COMMAND "${LLVM_DEFINITIONS}")

# Everything that sees MLIR headers: system includes (no warnings from them), no exceptions.
add_library(kvq_mlir INTERFACE)
target_include_directories(kvq_mlir SYSTEM INTERFACE ${LLVM_INCLUDE_DIRS} ${MLIR_INCLUDE_DIRS})
target_include_directories(kvq_mlir INTERFACE ${CMAKE_BINARY_DIR})
target_compile_definitions(kvq_mlir INTERFACE ${KVQ_LLVM_DEFINITIONS})
target_compile_options(kvq_mlir INTERFACE -fno-exceptions -Wno-ambiguous-reversed-operator)

# The shared libMLIR and libLLVM: fast to link, for what stays on this machine.
add_library(kvq_llvm_shared INTERFACE)
target_link_libraries(kvq_llvm_shared INTERFACE MLIR LLVM)

# The precompiled header is built once and reused by all libraries.
file(WRITE ${CMAKE_BINARY_DIR}/kvq_pch_anchor.cpp "\n")
add_library(kvq_pch STATIC ${CMAKE_BINARY_DIR}/kvq_pch_anchor.cpp)
target_link_libraries(kvq_pch PUBLIC kvq_mlir)
target_precompile_headers(kvq_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/kvq_pch.h)

function(kvq_mlir_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LIBS" ${ARGN})
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PUBLIC kvq_mlir ${ARG_LIBS})
  target_precompile_headers(${name} REUSE_FROM kvq_pch)
  if(ARG_DEPENDS)
    add_dependencies(${name} ${ARG_DEPENDS})
  endif()
endfunction()
