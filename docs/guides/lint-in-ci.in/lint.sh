#!/bin/sh
# Lints the boards. Fails on errors that known-findings.txt does not list.
set -eu
export LC_ALL=C
sources="build acpi/heron-a"
mkdir -p build
for source in boards/*.dts; do
	dtc -q -o "build/$(basename "$source" .dts).dtb" "$source"
done

lint() { # Findings exit with 1, which is no reason to stop here.
	status=0
	doorbell lint "$@" || status=$?
	[ "$status" -le 1 ] || exit "$status"
}
lint $sources
lint --json $sources >build/findings.json
lint --sarif $sources >build/raw.sarif

# Show alerts at the source files, and tell alerts of one file apart.
jq '.runs[].results[] |= (.locations[0] as $at
	| .partialFingerprints.primaryLocationLineHash =
		"\(.ruleId) \($at.logicalLocations[0].fullyQualifiedName) \(.message.text)"
	| .locations[0].physicalLocation.artifactLocation.uri |=
		sub("^build/(?<board>.*)[.]dtb$"; "boards/\(.board).dts"))' \
	build/raw.sarif >doorbell.sarif

jq -r '.[] | select(.severity == "error") | [.source, .rule, .where, .message] | @tsv' \
	build/findings.json | sort -u >build/errors.txt
sort -u known-findings.txt | comm -13 - build/errors.txt >build/new.txt
sort -u known-findings.txt | comm -23 - build/errors.txt >build/fixed.txt
[ ! -s build/fixed.txt ] || { echo "fixed, remove from known-findings.txt:"; cat build/fixed.txt; }
[ ! -s build/new.txt ] || { echo "new errors:"; cat build/new.txt; exit 1; }
