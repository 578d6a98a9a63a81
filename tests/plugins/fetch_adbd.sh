#!/bin/sh
# fetch_adbd.sh FOLDER: the adbd of Debian 13 with all that it needs, from the mirror that apt has here, unpacked into
# FOLDER. Nothing of the system changes, and FOLDER is there whole or not at all.
set -e
target=$1
test -e "$target" && exit 0
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep 'debian/*$' | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
: > "$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$work/sources.list"
cat > "$work/apt.conf" <<END
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
APT::Sandbox::User "";
Debug::NoLocking "1";
Acquire::Retries "0";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
END
apt-get -c "$work/apt.conf" -qq update
apt-get -c "$work/apt.conf" -qq -y --no-install-recommends --download-only install adbd > /dev/null
for package in "$work"/cache/archives/*.deb; do dpkg -x "$package" "$work/root"; done
mkdir -p "$(dirname "$target")"
mv "$work/root" "$target"
