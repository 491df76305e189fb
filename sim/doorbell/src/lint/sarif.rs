//! Writes findings as SARIF 2.1.0 (OASIS), which CI systems can display.

use super::judge::Verdict;
use super::rule::LintRule;
use super::suppression::Suppressions;
use doorbell_inspection::lint::{BaselineState, Row};
use gic_firmware::Severity;
use serde::Serialize;
use std::fmt::Write as _;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// A log with a single run.
#[derive(Debug, Serialize)]
pub(super) struct Log<'v> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<'v>; 1],
}

#[derive(Debug, Serialize)]
struct Run<'v> {
    tool: Tool,
    invocations: [Invocation<'v>; 1],
    results: Vec<Outcome<'v>>,
}

#[derive(Debug, Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    version: &'static str,
    information_uri: &'static str,
    rules: Vec<Descriptor>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    id: &'static str,
    short_description: Text<'static>,
    help: Help,
    default_configuration: Configuration,
}

#[derive(Debug, Serialize)]
struct Help {
    text: &'static str,
    markdown: &'static str,
}

#[derive(Debug, Serialize)]
struct Configuration {
    level: &'static str,
}

#[derive(Debug, Serialize)]
struct Text<'v> {
    text: &'v str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'v> {
    rule_id: &'static str,
    level: &'static str,
    message: Text<'v>,
    locations: [Location; 1],
    partial_fingerprints: Fingerprints<'v>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline_state: Option<BaselineState>,
    /// Empty for a finding that counts. SARIF requires the property in all results or in none.
    suppressions: Vec<Accepted<'v>>,
}

/// One fingerprint under two names: its own, and the only one that GitHub reads.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Fingerprints<'v> {
    #[serde(rename = "doorbellFinding/v1")]
    own: &'v str,
    primary_location_line_hash: &'v str,
}

/// A suppression outside of the source.
#[derive(Debug, Serialize)]
struct Accepted<'v> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    justification: Option<&'v str>,
}

/// The command's invocation, with notifications about its execution and its options.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation<'v> {
    execution_successful: bool,
    tool_execution_notifications: Vec<Notification<'v>>,
    tool_configuration_notifications: Vec<Notification<'v>>,
}

#[derive(Debug, Serialize)]
struct Notification<'v> {
    level: &'static str,
    message: Text<'v>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: Physical,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logical_locations: Vec<Logical>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Physical {
    artifact_location: Artifact,
    region: Region,
}

#[derive(Debug, Serialize)]
struct Artifact {
    uri: String,
}

/// Text of the finding. Blobs don't have lines, but programs that read SARIF expect a line number.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: usize,
    #[serde(flatten)]
    rest: Option<RegionRest>,
}

/// The other fields of a region, which blobs don't have.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RegionRest {
    start_column: usize,
    end_line: usize,
    end_column: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Logical {
    fully_qualified_name: String,
}

impl<'v> Log<'v> {
    /// Creates the log for the findings in `verdicts`. The log describes all rules, including those
    /// without findings. `complaints` concern the options.
    pub(super) fn of(
        verdicts: &'v [Verdict],
        suppressions: &'v Suppressions,
        complaints: &'v [String],
    ) -> Self {
        let results = verdicts.iter().flat_map(|verdict| {
            let unreadable = verdict.unreadable_row().map(|row| (row, None));
            let found = verdict.findings.iter();
            unreadable.into_iter().chain(found.map(|found| (verdict.row(found), found.suppressed)))
        });
        let results = results.map(|(row, by)| {
            let accepted =
                |by| Accepted { kind: "external", justification: suppressions.reason(by) };
            Outcome::of(row, by.map(accepted))
        });
        let driver = Driver {
            name: "doorbell",
            version: env!("CARGO_PKG_VERSION"),
            information_uri: env!("CARGO_PKG_REPOSITORY"),
            rules: LintRule::all().map(Descriptor::of).collect(),
        };
        let invocations = [Invocation::of(verdicts, complaints)];
        let run = Run { tool: Tool { driver }, invocations, results: results.collect() };
        Self { schema: SCHEMA, version: "2.1.0", runs: [run] }
    }
}

impl<'v> Invocation<'v> {
    fn of(verdicts: &'v [Verdict], complaints: &'v [String]) -> Self {
        let notification = |level, text| Notification { level, message: Text { text } };
        let unreadable: Vec<&str> =
            verdicts.iter().filter_map(|verdict| verdict.unreadable.as_deref()).collect();
        Self {
            execution_successful: unreadable.is_empty(),
            tool_execution_notifications: unreadable
                .into_iter()
                .map(|reason| notification("error", reason))
                .collect(),
            tool_configuration_notifications: complaints
                .iter()
                .map(|complaint| notification("warning", complaint))
                .collect(),
        }
    }
}

impl Descriptor {
    fn of(rule: LintRule) -> Self {
        Self {
            id: rule.name(),
            short_description: Text { text: rule.summary() },
            help: Help { text: rule.help(), markdown: rule.explanation() },
            default_configuration: Configuration { level: level(rule.severity()) },
        }
    }
}

impl<'v> Outcome<'v> {
    fn of(row: Row<'v>, accepted: Option<Accepted<'v>>) -> Self {
        let physical_location = Physical {
            artifact_location: Artifact { uri: reference(row.file()) },
            region: Region {
                start_line: row.region.map_or(1, |region| region.line),
                rest: row.region.map(|region| RegionRest {
                    start_column: region.column,
                    end_line: region.end_line,
                    end_column: region.end_column,
                }),
            },
        };
        let name = (!row.place.is_empty()).then_some(Logical { fully_qualified_name: row.place });
        let logical_locations = name.into_iter().collect();
        Self {
            rule_id: row.rule,
            level: level(row.severity),
            message: Text { text: row.message },
            locations: [Location { physical_location, logical_locations }],
            partial_fingerprints: Fingerprints {
                own: row.fingerprint,
                primary_location_line_hash: row.fingerprint,
            },
            baseline_state: row.baseline,
            suppressions: accepted.into_iter().collect(),
        }
    }
}

/// Converts a path to a relative reference (RFC 3986), and percent-encodes special characters.
fn reference(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.trim_start_matches("./").bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/@+=,".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}
