# SPDX-License-Identifier: Apache-2.0
# Defines kvq_llvm_static, LLVM and MLIR as archives, where the installation has them; docs/packaging.md says why and
# what each option is worth.

# What the compiler's sources call; everything else is reached from these.
set(KVQ_STATIC_ROOTS
  MLIRArithToLLVM MLIRControlFlowToLLVM MLIRFuncToLLVM MLIRIndexToLLVM MLIRMathToLLVM MLIRReconcileUnrealizedCasts
  MLIRSCFToControlFlow MLIRVectorToLLVM MLIRVectorToLLVMPass MLIRMathTransforms MLIRMemRefDialect MLIRTensorDialect
  MLIRParser MLIRPass MLIRTransforms MLIRTargetLLVMIRExport MLIRBuiltinToLLVMIRTranslation
  MLIRLLVMToLLVMIRTranslation MLIRNVVMDialect MLIRNVVMToLLVM MLIRNVVMToLLVMIRTranslation
  LLVMPasses LLVMX86CodeGen LLVMX86Desc LLVMX86Info LLVMNVPTXCodeGen LLVMNVPTXDesc LLVMNVPTXInfo
  LLVMObject LLVMTargetParser)

# The archives that the roots reach. A distribution's export also names the shared libLLVM, and system libraries for
# parts that nothing here calls: both are left out, and -z defs fails the link where one was needed after all.
function(kvq_static_closure result)
  set(open ${ARGN})
  set(closed "")
  while(open)
    list(POP_FRONT open target)
    if(target IN_LIST closed OR NOT TARGET ${target})
      continue()
    endif()
    get_target_property(type ${target} TYPE)
    if(NOT type STREQUAL "STATIC_LIBRARY")
      continue()
    endif()
    list(APPEND closed ${target})
    get_target_property(next ${target} INTERFACE_LINK_LIBRARIES)
    if(next)
      list(TRANSFORM next REPLACE "^\\$<LINK_ONLY:(.*)>$" "\\1")
      list(APPEND open ${next})
    endif()
  endwhile()
  set(${result} ${closed} PARENT_SCOPE)
endfunction()

# Each MLIR archive was exported with the shared libLLVM in place of the components that it calls.
function(kvq_define_static_llvm)
  foreach(root ${KVQ_STATIC_ROOTS})
    if(NOT TARGET ${root})
      message(STATUS "No static ${root}: this LLVM cannot be put into a wheel")
      return()
    endif()
  endforeach()
  kvq_static_closure(closure ${KVQ_STATIC_ROOTS})
  set(files "")
  foreach(target ${closure})
    list(APPEND files $<TARGET_FILE:${target}>)
  endforeach()
  add_library(kvq_llvm_static INTERFACE)
  target_link_libraries(kvq_llvm_static INTERFACE ${files} ${CMAKE_DL_LIBS} m)
  # --icf=all: identical functions become one, also where their addresses are taken, as Microsoft's linker does with
  # every LLVM for Windows by default. The objects lost the tables that --icf=safe reads.
  target_link_options(kvq_llvm_static INTERFACE
    -Wl,--gc-sections -Wl,--icf=all -Wl,-z,pack-relative-relocs -Wl,-O2 -Wl,-z,defs -Wl,--as-needed)
endfunction()

kvq_define_static_llvm()
