"""What git is told to do on a host, as scripts of its shell: `$1` and on are given with each, as `workspace` says."""

from __future__ import annotations

# several controllers may make it at once; git init is safe to repeat, only its config.lock is not
MIRROR = """
for try in 1 2 3 4 5 6 7 8 9 10; do
  [ -e "$1/overnight-ready" ] && break
  mkdir -p "$1" && git init -q --bare --template= "$1" &&
    git -C "$1" config gc.auto 0 && : > "$1/overnight-ready" || sleep 0.3
done
set -e
git -C "$1" for-each-ref --format='%(objectname) %(refname)'
df -Pk "$1" | awk 'END {printf "%.0f free\\n", $4 * 1024}'
"""
# protocol.allow=never first: a URL such as ext:: would run a command
FETCH = """
set -e
git -C "$1" -c protocol.allow=never -c protocol.https.allow=always -c protocol.ssh.allow=always \\
  -c protocol.http.allow=always -c protocol.git.allow=always -c protocol.file.allow=always \\
  fetch -q --no-tags --no-write-fetch-head --no-recurse-submodules -- "$2" "+$3:$4"
git -C "$1" rev-parse --verify "$4^{commit}"
"""
CLONE = """
set -e
age=begun  # pinned by an earlier start of this very run
base=$(git -C "$1" rev-parse -q --verify "$5") || { base="$4"; age=new; }
free=$(df -Pk "$1" | awk 'END {printf "%.0f", $4 * 1024}')
echo "$base $free $age"
if [ -e "$2/.git/overnight-ready" ] || { [ $age = new ] && [ "$free" -lt "$7" ]; }; then exit 0; fi
git -C "$1" update-ref "$5" "$base"
rm -rf "$2"
git -c core.hooksPath=/dev/null clone -q --shared --no-checkout --template= "$1" "$2"
cd "$2"
git remote remove origin
[ -z "$6" ] || printf '%s\\n' "$6" > .git/shallow
git -c core.hooksPath=/dev/null checkout -q -b "$3" "$base"
: > .git/overnight-ready
"""
FRESH = """
set -e
if [ -e "$2/.git/overnight-ready" ]; then exit 0; fi
rm -rf "$2"
git init -q --template= "$2"
printf '%s\\n' "$1/objects" > "$2/.git/objects/info/alternates"
[ ! -e "$1/shallow" ] || cp "$1/shallow" "$2/.git/shallow"
git -C "$2" -c core.hooksPath=/dev/null checkout -q --detach "$3"
: > "$2/.git/overnight-ready"
"""
# What the agent has is copied as files or read as objects; its configuration is never where git looks for one.
# Repositories inside the work tree stay shut: `git add` would start git in them, with their configuration and filters.
READ = """
set -e
[ -d "$1/.git/objects" ] || { echo "there is no repository in $1 any more" >&2; exit 1; }
rm -rf "$2"
git init -q --bare --template= "$2"
printf '%s\\n' "$1/.git/objects" > "$2/objects/info/alternates"
rm -rf "$2/refs"
cp -R "$1/.git/refs" "$2/refs"
cp "$1/.git/HEAD" "$2/HEAD"
for name in packed-refs shallow; do
  [ ! -e "$1/.git/$name" ] || cp "$1/.git/$name" "$2/$name"
done
export GIT_DIR="$2"
git for-each-ref --format='%(objectname) %(refname)' refs/heads refs/stash
head=$(git rev-parse -q --verify HEAD) || head="$3"
echo "$head HEAD"
export GIT_WORK_TREE="$1" GIT_INDEX_FILE="$2/index"
git read-tree "$head"
cd "$1"
git ls-files -s | awk -F '\\t' '/^160000/ {print $2}' | git update-index --skip-worktree --stdin
git -c core.fsmonitor=false -c core.hooksPath=/dev/null add -A --ignore-errors . 2> "$2/said" || missed=yes
tree=$(git write-tree)
[ "$tree" = "$(git rev-parse "$head^{tree}")" ] || echo "$(git commit-tree -p "$head" -m "$4" "$tree") leftovers"
[ -z "$missed" ] || grep '^error' "$2/said" | head -n 20 | sed 's/^error: /missed /'
new=$({ git for-each-ref --format='%(objectname)' refs/heads refs/stash; echo "$head"; } | grep -v "^$3") || exit 0
echo pack
printf '%s\\n' $new ${5:+"^$5"} | git pack-objects --revs --thin --stdout -q --delta-base-offset
"""
# for somebody who was not there when it was collected: one commit, with what it stands on
BRING = """
set -e
work=$1 own=$2 tip=$3
shift 3
[ -d "$work/.git/objects" ] || { echo "there is no repository in $work any more" >&2; exit 1; }
trap 'rm -rf "$own"' EXIT
rm -rf "$own"
git init -q --bare --template= "$own"
printf '%s\\n' "$work/.git/objects" > "$own/objects/info/alternates"
[ ! -e "$work/.git/shallow" ] || cp "$work/.git/shallow" "$own/shallow"
export GIT_DIR="$own"
git cat-file -e "$tip^{commit}" || { echo "commit $tip is not in $work any more" >&2; exit 1; }
echo pack
{ echo "$tip"; for base; do echo "^$base"; done; } | git pack-objects --revs --thin --stdout -q --delta-base-offset
"""
NAMES = """
git --git-dir="$1" diff-tree -r --no-renames --name-only -z "$2" "$3"
"""
