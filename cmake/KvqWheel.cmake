# SPDX-License-Identifier: Apache-2.0
# What a wheel takes from a build tree (the component "wheel"): the files that are built, next to the Python sources,
# which scikit-build-core copies. The libraries find each other by $ORIGIN; libkvq finds the compiler beside itself.

if(NOT TARGET kvq_llvm_static)
  return()
endif()
add_custom_target(kvq-wheel DEPENDS kvq kvq_native kvq-compiler-static kvq_native_stub)
set_target_properties(kvq_native PROPERTIES INSTALL_RPATH "$ORIGIN")
install(TARGETS kvq kvq_native kvq-compiler-static LIBRARY DESTINATION kvq COMPONENT wheel)
install(FILES $<TARGET_PROPERTY:kvq_native_stub,KVQ_STUB> DESTINATION kvq COMPONENT wheel)
install(FILES runtime/include/kvq/kvq.h DESTINATION kvq/include/kvq COMPONENT wheel)
