#!/bin/sh
# Runs the CPU kernels under ASan + UBSan and under TSan; fails on any report. Needs g++, not torch. `make sanitize`.
set -eu
cd "$(dirname "$0")/.."
build=build/sanitize
mkdir -p "$build"
common="-O1 -g -std=c++20 -fopenmp-simd -ffp-contract=off -fno-omit-frame-pointer -DCCF_STANDALONE"

run() { # name, flags
    # shellcheck disable=SC2086
    ${CXX:-g++} $common $2 csrc/cpu/*.cpp tests/native_driver.cpp -o "$build/$1" -pthread
    echo "$1:" && "$build/$1"
}

# TSan's runtime is not there yet when the loader chooses among the clones of a function; ASan's is.
run tsan "-fsanitize=thread -DCCF_NO_CLONES" &
thread=$!
run asan "-fsanitize=address,undefined -fno-sanitize-recover=all"
wait "$thread"
