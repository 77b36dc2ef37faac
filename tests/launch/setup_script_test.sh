#!/usr/bin/env bash
# setup.sh with everything installed, with a package missing and no leave to install, and with a bad option. A fake
# dpkg-query answers, and a fake apt-get that must never run tells on it.
set -euo pipefail
setup=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export FAKE_MISSING="" PATH="$folder:$PATH"
cat >"$folder/dpkg-query" <<'FAKE'
#!/usr/bin/env bash
for word in "$@"; do
  case "$word" in -*|*'$'*) continue ;; esac
  [ "$word" = "$FAKE_MISSING" ] || printf 'installed=%s ' "$word"
done
FAKE
printf '#!/usr/bin/env bash\ntouch "%s/apt-ran"\n' "$folder" >"$folder/apt-get"
chmod +x "$folder/dpkg-query" "$folder/apt-get"

die() { echo "setup_script: $*" >&2; exit 1; }
[ -z "$("$setup" 2>&1)" ] || die "expected silence with everything installed"
[ -z "$("$setup" --no-install 2>&1)" ] || die "expected silence with everything installed and --no-install"

FAKE_MISSING=libpcre2-dev
output=$("$setup" --no-install 2>&1) && die "expected a failure without libpcre2-dev"
[[ "$output" == *"apt-get install --no-install-recommends libpcre2-dev"* ]] || die "expected the package to be named; got: $output"
[ ! -e "$folder/apt-ran" ] || die "apt-get ran despite --no-install"

output=$("$setup" --verbose 2>&1) && die "expected a failure for an unknown option"
[[ "$output" == *"got '--verbose'"* ]] || die "expected the option to be named; got: $output"

if [ "$(id -u)" -eq 0 ]; then
  "$setup" >/dev/null 2>&1 || die "expected success when apt-get succeeds"
  [ -e "$folder/apt-ran" ] || die "expected apt-get to run for a missing package"
fi
echo "setup_script: passed"
