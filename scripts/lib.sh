# What demo, test and bench/peers/run share: packages, configure and build, and timed steps. Sourced by bash scripts
# that have changed to the repository's root.

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf '\nFAILED: %s\n' "$*" >&2
  exit 1
}

# Installs the Debian or Ubuntu packages that are missing. Asks for nothing: with neither root nor sudo it says what to
# install by hand.
install_packages() {
  local missing=() package root=()
  if ! command -v apt-get >/dev/null; then
    echo "This is no Debian or Ubuntu: please see to it that these are there: $*"
    return
  fi
  for package in "$@"; do
    dpkg-query --show --showformat '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
  done
  if ((${#missing[@]} == 0)); then
    echo "All packages are there: $*"
    return
  fi
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "please install as root: apt-get install ${missing[*]}"
    root=(sudo)
  fi
  echo "Installing with apt-get: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt_install() { "${root[@]}" apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" >/dev/null; }
  apt_install 2>/dev/null || { "${root[@]}" apt-get update --quiet=2 && apt_install; } ||
    fail "apt-get could not install: ${missing[*]}"
}

readonly kBuildPackages=(g++ cmake ninja-build libcli11-dev nlohmann-json3-dev libfmt-dev libgtest-dev)

# configure_and_build PRESET [TARGET...] (all targets when none is named)
configure_and_build() {
  local preset=$1
  shift
  cmake --preset "$preset" >/dev/null && cmake --build "build/$preset" ${1:+--target "$@"}
}

# Sees to it that STROBE_NVRTC names an NVRTC library: the one set already, or Python's package of it in build/nvrtc.
provide_nvrtc() {
  local venv=build/nvrtc
  if [[ -z ${STROBE_NVRTC:-} ]]; then
    if [[ ! -e $venv/ready ]]; then
      echo "Installing nvidia-cuda-nvrtc, the compiler of CUDA kernels, into $venv"
      python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check nvidia-cuda-nvrtc || return 1
      touch "$venv/ready"
    fi
    STROBE_NVRTC=$(find "$PWD/$venv" -name 'libnvrtc.so.*' | sort | tail --lines 1)
  fi
  export STROBE_NVRTC
  echo "NVRTC: $STROBE_NVRTC"
}

# Seconds that the processors spent on this script's commands so far.
processor_seconds() {
  local field total=0 fields
  read -r -a fields </proc/$$/stat
  for field in "${fields[15]}" "${fields[16]}"; do total=$((total + field)); done  # of children that ended: user, system
  echo $((total / $(getconf CLK_TCK)))
}

# step NAME COMMAND...: runs a command under a heading, stops the script when it fails, and remembers its time and the
# processors' (twice as much at most, on two cores: what is missing is waiting).
kStepTimes=()
step() {
  local name=$1 begin=$SECONDS processor
  processor=$(processor_seconds)
  shift
  say "$name"
  "$@" || fail "$name (after $((SECONDS - begin)) s)"
  kStepTimes+=("$(printf '%5d s %5d s  %s' $((SECONDS - begin)) $(($(processor_seconds) - processor)) "$name")")
}

# beside NAME COMMAND...: begins a step beside those that follow, for what mostly waits or uses one core. `join` waits for
# it, shows what it printed, and stops the script when it failed. One at a time.
beside() {
  kBesideName=$1 kBesideBegin=$SECONDS kBesideLog=$(mktemp)
  shift
  say "$kBesideName: beside the next steps"
  ("$@") >"$kBesideLog" 2>&1 &
  kBesideProcess=$!
  trap 'kill "$kBesideProcess" 2>/dev/null || true' EXIT
}

join() {
  local status=0
  say "$kBesideName"
  wait "$kBesideProcess" || status=$?
  trap - EXIT
  cat "$kBesideLog"
  rm "$kBesideLog"
  ((status == 0)) || fail "$kBesideName"
  kStepTimes+=("$(printf '%5d s %7s  %s, beside what comes before' $((SECONDS - kBesideBegin)) '' "$kBesideName")")
}

print_step_times() {
  say "time of each step, and of the processors for it"
  printf '%s\n' "${kStepTimes[@]}"
}
