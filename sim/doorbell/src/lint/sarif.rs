//! Writes findings as SARIF 2.1.0 (OASIS), which CI systems can display.

use super::judge::Verdict;
use super::levels::JudgedFinding;
use gic_firmware::{Rule, Severity};
use serde::Serialize;

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
    locations: [Location<'v>; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Location<'v> {
    physical_location: Physical<'v>,
    logical_locations: [Logical; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Physical<'v> {
    artifact_location: Artifact<'v>,
    region: Region,
}

#[derive(Debug, Serialize)]
struct Artifact<'v> {
    uri: &'v str,
}

/// Line number of the finding. Blobs don't have lines, but programs that read SARIF expect a line
/// number.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Logical {
    fully_qualified_name: String,
}

impl<'v> Log<'v> {
    /// Creates the log for the findings in `verdicts`. The log describes all rules, including those
    /// without findings.
    pub(super) fn of(verdicts: &'v [Verdict]) -> Self {
        let results = verdicts.iter().flat_map(|verdict| {
            verdict.findings.iter().map(|found| Outcome::of(&verdict.source, found))
        });
        let driver = Driver {
            name: "doorbell",
            version: env!("CARGO_PKG_VERSION"),
            information_uri: env!("CARGO_PKG_REPOSITORY"),
            rules: Rule::ALL.iter().copied().map(Descriptor::of).collect(),
        };
        let run = Run { tool: Tool { driver }, results: results.collect() };
        Self { schema: SCHEMA, version: "2.1.0", runs: [run] }
    }
}

impl Descriptor {
    fn of(rule: Rule) -> Self {
        Self {
            id: rule.name(),
            short_description: Text { text: rule.summary() },
            help: Help { text: rule.help(), markdown: rule.explanation() },
            default_configuration: Configuration { level: level(rule.severity()) },
        }
    }
}

impl<'v> Outcome<'v> {
    fn of(source: &'v str, found: &'v JudgedFinding) -> Self {
        let physical_location = Physical {
            artifact_location: Artifact { uri: source },
            region: Region { start_line: 1 },
        };
        let name = Logical { fully_qualified_name: found.finding.origin.to_string() };
        Self {
            rule_id: found.finding.rule.name(),
            level: level(found.severity),
            message: Text { text: &found.finding.message },
            locations: [Location { physical_location, logical_locations: [name] }],
        }
    }
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}
