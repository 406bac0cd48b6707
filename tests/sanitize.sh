#!/bin/sh
# Runs the CPU kernels, and the CUDA kernels in their emulator, under ASan + UBSan and under TSan. Any report is a
# failure, and so is a barrier that is left out and that TSan does not report. It needs g++, but not torch.
# `make sanitize` calls it.
set -eu
cd "$(dirname "$0")/.."
build=build/sanitize
mkdir -p "$build"
common="-O1 -g -std=c++20 -fopenmp-simd -Wno-psabi -ffp-contract=off -fno-omit-frame-pointer -DCCF_STANDALONE"

run() { # It takes a name and flags.
    # shellcheck disable=SC2086
    ${CXX:-g++} $common $2 csrc/cpu/*.cpp tests/native_driver.cpp -o "$build/$1" -pthread
    echo "$1:" && "$build/$1"
}

# TSan's runtime is not there yet when the loader chooses among the clones of a function; ASan's is.
run tsan "-fsanitize=thread -DCCF_NO_CLONES" &
thread=$!
run asan "-fsanitize=address,undefined -fno-sanitize-recover=all"
wait "$thread"

cuda() { # It takes a name and flags.
    # shellcheck disable=SC2086
    ${CXX:-g++} $common -Wno-unknown-pragmas -DCCF_EMULATED -DCCF_FEW_SIDES -Itests $2 -x c++ csrc/cuda/*.cu \
        tests/cuda_driver.cpp -o "$build/cuda_$1"
    echo "CUDA kernels, $1:" && "$build/cuda_$1"
}

cuda tsan "-fsanitize=thread" &
thread=$!
cuda asan "-fsanitize=address,undefined -fno-sanitize-recover=all"
wait "$thread"

# Each is a case and a barrier: rows and columns of a blur, the exchange of aliases, and both stages of a band matrix,
# and the three kernels of products.
for planted in "fourier 0" "fourier 1" "fourier 2" "alias 1" "alias 2" "alias 3" "separable 0" "separable 1" \
    "products 1" "products 3" "products 6"; do
    # shellcheck disable=SC2086
    if "$build/cuda_tsan" $planted >"$build/planted" 2>&1 || ! grep -q "data race" "$build/planted"; then
        echo "TSan does not see that $planted lacks a barrier" && exit 1
    fi
done
echo "TSan reports every barrier that was left out"
