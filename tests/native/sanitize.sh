#!/usr/bin/env bash
# Runs the CPU ops under a sanitizer, apart from the installed ones:
#   tests/native/sanitize.sh                      data races (ThreadSanitizer)
#   tests/native/sanitize.sh address,undefined    memory errors and undefined behaviour
# Needs g++, its sanitizers and PyTorch; takes a few minutes. PYTHON names another interpreter than `python`.
# The sources are compiled as they are; only at::parallel_for is replaced (sanitize/ATen/Parallel.h says why).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

kind=${1:-thread}
python=${PYTHON:-python}
build=build/sanitize-${kind//,/-}
mkdir -p "$build"
mapfile -t include < <("$python" -c 'from torch.utils.cpp_extension import include_paths as p; print(*p(), sep="\n")')
lib=$("$python" -c 'from torch.utils.cpp_extension import library_paths; print(library_paths()[0])')
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
flags=(-std=c++20 -O1 -g -fno-omit-frame-pointer -ffp-contract=off "-fsanitize=$kind" -w -Wno-psabi -Itests/native/sanitize
    -Icuda_ext "-I$headers" "${include[@]/#/-isystem}")

# ops.cpp names the ops; its Python module is not needed and finds no interpreter to link with.
grep -v 'Python.h' cuda_ext/ops.cpp | sed '/PyInit/,$d' >"$build/ops.cpp"
sources=("$build/ops.cpp" cuda_ext/cpu/*.cpp tests/native/sanitize/driver.cpp)
printf '%s\0' "${sources[@]}" | xargs -0 -P "${JOBS:-2}" -I{} \
    bash -c 'build=$1 source=$2; shift 2; g++ "$@" -c "$source" -o "$build/$(basename "$source").o"' _ "$build" {} "${flags[@]}"
g++ "-fsanitize=$kind" "$build"/*.o "-L$lib" "-Wl,-rpath,$lib" -Wl,--no-as-needed -ltorch -ltorch_cpu -lc10 -o "$build/driver"

# Without randomised addresses: older ThreadSanitizers do not start with many random bits.
run() { OMP_NUM_THREADS=1 setarch "$(uname -m)" -R "$build/driver" "$@"; }
export TSAN_OPTIONS="halt_on_error=0 exitcode=66" UBSAN_OPTIONS="halt_on_error=1 print_stacktrace=1"
export ASAN_OPTIONS="detect_leaks=0" # PyTorch's static data would be listed

if [ "$kind" = thread ]; then
    if run race >/dev/null 2>&1; then
        echo "the planted race was not seen: this run would prove nothing" >&2
        exit 1
    fi
    echo "a planted race is seen"
fi
status=0
for set in baseline avx2 avx512; do
    case $set in avx512) feature=avx512dq ;; avx2) feature=avx2 ;; *) feature=fpu ;; esac
    if [ "$set" = baseline ] || grep -qw "$feature" /proc/cpuinfo; then
        echo "== $set"
        APML_CPU=$set run || status=$?
    else
        echo "== $set: this processor has it not"
    fi
done
[ "$status" = 0 ] && echo "clean: $kind"
exit "$status"
