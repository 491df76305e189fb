#!/bin/sh
# Lints the boards. Fails on findings that are neither known nor accepted.
set -eu
sources="build acpi/heron-a"
mkdir -p build
for source in boards/*.dts; do
	dtc -q -o "build/$(basename "$source" .dts).dtb" "$source"
done

lint() {
	doorbell lint $sources --baseline known-findings.json --allow-file accepted.txt "$@"
}
# Show alerts at the source files, which the repository contains.
lint --sarif | jq '.runs[].results[].locations[0].physicalLocation.artifactLocation.uri |=
	sub("^build/(?<board>.*)[.]dtb$"; "boards/\(.board).dts")' >doorbell.sarif
lint --github
