# How every target of the project is made: one library per folder, one test program per folder of tests.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_program(PERMAFROST_CCACHE ccache)
if(PERMAFROST_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Without these two, ccache refuses whatever uses the precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND};-E;env;CCACHE_SLOPPINESS=pch_defines,time_macros;${PERMAFROST_CCACHE}")
endif()

add_library(permafrost_options INTERFACE)
target_include_directories(permafrost_options INTERFACE "${CMAKE_SOURCE_DIR}")
target_include_directories(permafrost_options SYSTEM INTERFACE "${CMAKE_BINARY_DIR}/generated")  # no warnings for protoc's code
# No fast-math and no contraction chosen by the compiler: the same source must give the same bits everywhere.
# -Wno-...: GCC 12 warns falsely inside std::string, on concatenation above all, differently at every level (GCC bug 105329).
target_compile_options(permafrost_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Werror;-Wno-restrict;-Wno-array-bounds;-Wno-stringop-overflow;-ffp-contract=off>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-fmad=false;--expt-relaxed-constexpr;-lineinfo;--compress-mode=size;-Xcompiler=-Wall,-Wextra,-Werror,-ffp-contract=off>")
if(PERMAFROST_SANITIZE)
  # What is found ends the test; undefined behaviour alone would be a line on stderr of a test that passes.
  # -Wno-...: another false one, when GCC instruments the same headers.
  target_compile_options(permafrost_options INTERFACE "-fsanitize=${PERMAFROST_SANITIZE}" -fno-sanitize-recover=all
    -fno-omit-frame-pointer -g1 -Wno-maybe-uninitialized)
  target_link_options(permafrost_options INTERFACE "-fsanitize=${PERMAFROST_SANITIZE}")
endif()

# The preset cpu builds at -O1: a third less work for the compiler, and nobody waits for control code or for tests. Where
# the time of a run goes, HOT asks for more. (Debug and sanitizer builds keep their own level.) Square roots vectorise only
# when nobody reads errno afterwards, selections only when no comparison may trap; neither changes a result.
set(permafrost_hot_options -fno-math-errno -fno-trapping-math)
if(NOT PERMAFROST_SANITIZE)
  list(APPEND permafrost_hot_options "$<$<CONFIG:Release>:-O3>")
endif()

# permafrost_add_precompiled(name [HOT]): the headers that nearly every source reads, half of the time of a small one.
# Compiled once for each set of options, as GCC asks. -fpch-preprocess is for ccache.
function(permafrost_add_precompiled name)
  cmake_parse_arguments(ARG "HOT" "" "" ${ARGN})
  add_library(${name} OBJECT EXCLUDE_FROM_ALL "${CMAKE_SOURCE_DIR}/cmake/precompiled.cc")
  target_link_libraries(${name} PRIVATE permafrost_options)
  target_compile_options(${name} PRIVATE -fpch-preprocess $<$<BOOL:${ARG_HOT}>:${permafrost_hot_options}>)
  target_precompile_headers(${name} PRIVATE <algorithm> <array> <chrono> <cmath> <cstring> <filesystem> <fstream> <functional>
    <map> <memory> <mutex> <optional> <span> <sstream> <string> <vector> "${CMAKE_SOURCE_DIR}/core/tensor/tensor.h")
endfunction()
permafrost_add_precompiled(permafrost_precompiled)
permafrost_add_precompiled(permafrost_precompiled_hot HOT)

# The preset cpu compiles up to this many sources of a folder as one: half of the time of most is their headers. The others
# compile each by itself, and so find the include that another one brought (and GCC 12 crashes on some that are instrumented).
set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)

# permafrost_add_library(name [HOT] SOURCES a.cc b.cc DEPENDS other_library ...)
# Sources ending in _avx512.cc / _amx.cc get the instruction set their name says; callers choose at run time.
# -Wno-*uninitialized there: GCC 12 warns falsely inside the intrinsics' own header (GCC bug 105593).
set(permafrost_avx512_options -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16
  -mprefer-vector-width=512 -Wno-uninitialized -Wno-maybe-uninitialized)
function(permafrost_add_library name)
  cmake_parse_arguments(ARG "HOT" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC permafrost_options ${ARG_DEPENDS})
  if(ARG_HOT)
    target_compile_options(${name} PRIVATE ${permafrost_hot_options})
    target_precompile_headers(${name} REUSE_FROM permafrost_precompiled_hot)
    set_target_properties(${name} PROPERTIES UNITY_BUILD OFF)  # what the optimiser sees is the file alone
  else()
    target_precompile_headers(${name} REUSE_FROM permafrost_precompiled)
  endif()
  target_compile_options(${name} PRIVATE -fpch-preprocess)
  foreach(source ${ARG_SOURCES})
    if(source MATCHES "_avx2\\.cc$")
      permafrost_set_options(${source} -mavx2 -mfma -mf16c)
    elseif(source MATCHES "_avx512\\.cc$")
      permafrost_set_options(${source} ${permafrost_avx512_options})
    elseif(source MATCHES "_amx\\.cc$")
      permafrost_set_options(${source} ${permafrost_avx512_options} -mamx-tile -mamx-bf16 -mprfchw)
    endif()
  endforeach()
endfunction()

# permafrost_add_cuda_library(name SOURCES a.cu ... DEPENDS library ...): compiled by nvcc for PERMAFROST_CUDA_ARCHITECTURES.
# No contraction here either. CUDA's runtime is linked in, and its other libraries are opened when they are first needed
# (core/device/cublas_lt.cc), so that the program starts on a machine that has none of them, and says so.
function(permafrost_add_cuda_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_DEPENDS} ${CMAKE_DL_LIBS})
  target_include_directories(${name} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  set_target_properties(${name} PROPERTIES CUDA_ARCHITECTURES "${PERMAFROST_CUDA_ARCHITECTURES}"
    CUDA_RUNTIME_LIBRARY Static)
endfunction()

# permafrost_set_options(source option ...): for one source, which the precompiled header then does not fit.
function(permafrost_set_options source)
  set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS ${ARGN})
  set_property(SOURCE ${source} PROPERTY SKIP_PRECOMPILE_HEADERS ON)
endfunction()

# permafrost_add_test(name SOURCES a_test.cc ... [DEPENDS library ...] [PROGRAMS permafrost] [LABELS unit] [TIMEOUT seconds]
#   [PROCESSORS n])
# One GoogleTest program per folder of tests, one CTest test per program. PROGRAMS: what it starts.
function(permafrost_add_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;PROCESSORS" "SOURCES;DEPENDS;PROGRAMS;LABELS" ${ARGN})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  permafrost_add_test_program(${name} SOURCES ${ARG_SOURCES} DEPENDS ${ARG_DEPENDS})
  if(ARG_PROGRAMS)
    add_dependencies(${name} ${ARG_PROGRAMS})
  endif()
  add_test(NAME ${name} COMMAND ${name})
  permafrost_set_test(${name} LABELS ${ARG_LABELS} TIMEOUT ${ARG_TIMEOUT} PROCESSORS ${ARG_PROCESSORS})
endfunction()

# permafrost_add_cuda_test(name [FILTER "A*:B*"] [TIMEOUT seconds] [IN_PROGRAM]): the tests of a program once more, with
# tensors and programs on a GPU, or on its emulation. IN_PROGRAM: tests that choose the device themselves, so that the
# program's own CTest entry has them on the emulation already.
# Each is a line "program|filter|seconds" of gpu_tests.txt, by which tests/gpu/run.sh runs them without CMake.
function(permafrost_add_cuda_test name)
  cmake_parse_arguments(ARG "IN_PROGRAM" "TIMEOUT;FILTER" "" ${ARGN})
  if(NOT PERMAFROST_CUDA AND NOT PERMAFROST_EMULATE_CUDA)
    return()
  endif()
  if(NOT ARG_FILTER)
    set(ARG_FILTER "*")
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  set_property(GLOBAL APPEND PROPERTY PERMAFROST_GPU_TESTS ${name})
  set_property(GLOBAL APPEND_STRING PROPERTY PERMAFROST_GPU_TEST_LIST "${name}|${ARG_FILTER}|${ARG_TIMEOUT}\n")
  if(ARG_IN_PROGRAM AND NOT PERMAFROST_CUDA)
    return()
  endif()
  add_test(NAME ${name}_cuda COMMAND ${name} "--gtest_filter=${ARG_FILTER}")
  permafrost_set_test(${name}_cuda LABELS unit gpu TIMEOUT ${ARG_TIMEOUT})
  set_property(TEST ${name}_cuda APPEND PROPERTY ENVIRONMENT "PERMAFROST_TEST_DEVICE=cuda")
  set_property(TEST ${name}_cuda PROPERTY SKIP_RETURN_CODE 77)
endfunction()

# permafrost_add_mpi_test(name SOURCES a_test.cc ... DEPENDS library ... RANKS 1 2 3 [LABELS slow] [TIMEOUT seconds]
#   [PROCESSORS n])
# One program, one CTest test name_ranks<n> per rank count, started by launch/mpirun.sh, labelled mpi besides LABELS.
# Tests under mpirun count as one processor, whatever their ranks: most of their time they wait for the launcher, for each
# other and for time limits.
function(permafrost_add_mpi_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;PROCESSORS" "SOURCES;DEPENDS;LABELS;RANKS" ${ARGN})
  if(NOT PERMAFROST_MPI)
    return()
  endif()
  permafrost_add_test_program(${name} SOURCES ${ARG_SOURCES} DEPENDS ${ARG_DEPENDS})
  set_target_properties(${name} PROPERTIES PERMAFROST_OWN_MAIN ON)
  add_dependencies(${name} permafrost_mpi)
  foreach(ranks ${ARG_RANKS})
    add_test(NAME ${name}_ranks${ranks} COMMAND "${CMAKE_SOURCE_DIR}/launch/mpirun.sh" -n ${ranks} $<TARGET_FILE:${name}>)
    permafrost_set_test(${name}_ranks${ranks} LABELS mpi ${ARG_LABELS} TIMEOUT ${ARG_TIMEOUT} PROCESSORS ${ARG_PROCESSORS})
  endforeach()
endfunction()

function(permafrost_add_test_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES PERMAFROST_EMULATES_CUDA ${PERMAFROST_EMULATE_CUDA})
  target_link_libraries(${name} PRIVATE permafrost_test_support ${ARG_DEPENDS})
  target_precompile_headers(${name} REUSE_FROM permafrost_test_pch)
  target_compile_options(${name} PRIVATE -fpch-preprocess)
  # Fewer than of sources: tests of a folder are several programs, and use the same names for what they need.
  set_target_properties(${name} PROPERTIES UNITY_BUILD_BATCH_SIZE 4)
endfunction()

# What every CTest test gets, also those that run a script:
# permafrost_set_test(name LABELS ... [TIMEOUT seconds] [PROCESSORS n])
function(permafrost_set_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;PROCESSORS" "LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(NOT ARG_PROCESSORS)
    set(ARG_PROCESSORS 1)
  endif()
  set(environment "PERMAFROST_GOLDENS=${CMAKE_SOURCE_DIR}/tests/goldens" "PERMAFROST_CONFIGS=${CMAKE_SOURCE_DIR}/configs" "PERMAFROST_PROGRAM=${CMAKE_BINARY_DIR}/bin/permafrost")
  if(PERMAFROST_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")  # instrumented code takes up to ten times as long, and limits are for what hangs
  endif()
  if(PERMAFROST_SANITIZE MATCHES "thread")
    # libgomp, which comes with oneDNN, synchronises its teams in ways that the thread sanitizer cannot see.
    list(APPEND environment "OMP_NUM_THREADS=1")
  endif()
  # Open MPI would look for networks for 0.2 s, more than most tests compute, to take shared memory in the end; and with no
  # more ranks than cores it would wait without leaving the core to the test beside it.
  list(APPEND environment "OMPI_MCA_pml=^cm" "OMPI_MCA_mpi_yield_when_idle=1")
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT} PROCESSORS ${ARG_PROCESSORS}
    COST ${ARG_TIMEOUT}  # what may take long begins first, or it would run on alone when all else is done
    ENVIRONMENT "${environment}")
endfunction()
