# SPDX-License-Identifier: Apache-2.0
# Options that every target of the project shares.

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(KVQ_CCACHE ccache)
if(KVQ_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${KVQ_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${KVQ_CCACHE})
endif()

add_compile_options(-Wall -Wextra -Wno-unused-parameter)
# Floating-point results are part of the spec: no fusing of a multiplication and an addition behind our back.
add_compile_options(-ffp-contract=off)
include_directories(${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/runtime/include)
