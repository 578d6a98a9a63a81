#!/bin/sh
# Judges one recipe against what it was before: is what comes of it worse? Ends with 3 if so.
#
#     sh gate.sh recipes/digits.toml origin/main
set -eu
recipe=$1 before=$2
name=$(basename "$recipe" .toml)

edgeopt check "$recipe"            # every mistake of the text, in a second
edgeopt run "$recipe" --smoke      # every stage on a few images, in a minute
edgeopt run "$recipe"              # in earnest; a missed [gates] ends it with 3 as well

if ! git cat-file -e "$before:$recipe" 2>/dev/null; then
    echo "$recipe is new: there is nothing to compare with"
    exit 0
fi

# The recipe as it was, with all that lies beside it. Both runs share runs/.store, so that what did not change is made once.
old=$(mktemp -d)
trap 'git worktree remove --force "$old/tree" || true; rm -rf "$old"' EXIT
git worktree add --quiet --detach "$old/tree" "$before"
edgeopt run "$old/tree/$recipe" --set "name=before-$name"

# Image by image, and both timed turn by turn on this machine: nothing of an earlier one is compared with.
new=$(python3 -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["name"])' "$recipe")
edgeopt compare "runs/before-$name" "runs/$new" --measure-together --gate \
    --allow accuracy=0.005,bytes=1.02 --html "compare-$name.html"
