# Writes the commit into a header, and touches the header only when it changed. Run at every build:
#   cmake -D SOURCE=<repository> -D OUTPUT=<header> -P version.cmake
cmake_minimum_required(VERSION 3.25)
execute_process(COMMAND git -C "${SOURCE}" rev-parse --short=12 HEAD OUTPUT_VARIABLE commit ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT "#pragma once
namespace permafrost {
inline constexpr const char* kCommit = \"@commit@\";  // empty: not known
}
" @ONLY)
