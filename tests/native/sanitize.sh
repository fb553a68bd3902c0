#!/usr/bin/env bash
# Runs the CPU ops under a sanitizer, apart from the installed ones:
#   tests/native/sanitize.sh                      data races (ThreadSanitizer)
#   tests/native/sanitize.sh address,undefined    memory errors and undefined behaviour
# Needs g++, its sanitizers and PyTorch; takes a few minutes. PYTHON names another interpreter than `python`.
# The sources are compiled as they are; only at::parallel_for is replaced (sanitize/ATen/Parallel.h says why), and
# cpu/pool.cpp is linked in both ways: kept blocks hide errors from AddressSanitizer, and the pool's lock orders
# threads that nothing else does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

kind=${1:-thread}
case $kind in *undefined*) extra=-fsanitize=float-cast-overflow ;; *) extra= ;; esac
python=${PYTHON:-python}
build=build/sanitize-${kind//,/-}
rm -rf "$build"
mkdir -p "$build/pool"
mapfile -t include < <("$python" -c 'from torch.utils.cpp_extension import include_paths as p; print(*p(), sep="\n")')
lib=$("$python" -c 'from torch.utils.cpp_extension import library_paths; print(library_paths()[0])')
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
flags=(-std=c++20 -O1 -g -fno-omit-frame-pointer -ffp-contract=off "-fsanitize=$kind" $extra -w -Wno-psabi
    -Itests/native/sanitize -Icuda_ext "-I$headers" "${include[@]/#/-isystem}")

# ops.cpp names the ops; its Python module is not needed and finds no interpreter to link with.
grep -v 'Python.h' cuda_ext/ops.cpp | sed '/PyInit/,$d' >"$build/ops.cpp"
compile() { # object, source and further flags
    g++ "${flags[@]}" -c "$2" -o "$build/$1.o" "${@:3}"
}
compile pool/no_pool cuda_ext/cpu/pool.cpp -DAPML_NO_POOL
for source in tests/native/sanitize/driver.cpp "$build/ops.cpp" cuda_ext/cpu/*.cpp; do
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do wait -n; done
    compile "$(basename "$source" .cpp)" "$source" &
done
while [ -n "$(jobs -rp)" ]; do wait -n; done
mv "$build/pool.o" "$build/pool/"
for pool in no_pool pool; do
    g++ "-fsanitize=$kind" "$build"/*.o "$build/pool/$pool.o" "-L$lib" "-Wl,-rpath,$lib" -Wl,--no-as-needed \
        -ltorch -ltorch_cpu -lc10 -o "$build/driver_$pool"
done

# Without randomised addresses: older ThreadSanitizers do not start with many random bits.
run() { OMP_NUM_THREADS=1 setarch "$(uname -m)" -R "$build/driver_$1" "${@:2}"; }
export TSAN_OPTIONS="halt_on_error=0 exitcode=66" UBSAN_OPTIONS="halt_on_error=1 print_stacktrace=1"
# Fresh memory is filled with NaN, so that reading it shows.
export ASAN_OPTIONS="max_malloc_fill_size=1000000000:malloc_fill_byte=255"

# An error made on purpose must be seen, or the run would prove nothing.
case $kind in *thread*) planted=race ;; *address*) planted=overflow ;; *) planted= ;; esac
if [ -n "$planted" ]; then
    if run no_pool "$planted" >/dev/null 2>&1; then
        echo "the planted $planted was not seen: this run would prove nothing" >&2
        exit 1
    fi
    echo "a planted $planted is seen"
fi
status=0
for set in baseline avx2 avx512; do
    case $set in avx512) feature=avx512dq ;; avx2) feature=avx2 ;; *) feature=fpu ;; esac
    if [ "$set" = baseline ] || grep -qw "$feature" /proc/cpuinfo; then
        echo "== $set"
        APML_CPU=$set run no_pool || status=$?
    else
        echo "== $set: this processor has it not"
    fi
done
echo "== baseline with the pool, which no instruction set changes"
APML_CPU=baseline run pool || status=$?
[ "$status" = 0 ] && echo "clean: $kind"
exit "$status"
