#!/bin/sh
# Fetches the plotting library that `nnv inspect` puts into its reports: uPlot, MIT licence.
# The files are committed; this script says where they come from, and renews them.
set -eu
cd "$(dirname "$0")/.."
version=1.6.32
integrity='sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw=='
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
(cd "$folder" && npm pack --silent "uplot@$version" >/dev/null)
got="sha512-$(openssl dgst -sha512 -binary "$folder/uplot-$version.tgz" | openssl base64 -A)"
if [ "$got" != "$integrity" ]; then
    echo "uplot $version is not what was reviewed: $got" >&2
    exit 1
fi
tar -xzf "$folder/uplot-$version.tgz" -C "$folder"
to=crates/nnv-tools/assets/uplot
mkdir -p "$to"
for file in dist/uPlot.iife.min.js dist/uPlot.min.css LICENSE; do
    install -m 644 "$folder/package/$file" "$to/"
done
echo "uPlot $version in $to"
