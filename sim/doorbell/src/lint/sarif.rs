//! Writes findings as SARIF 2.1.0 (OASIS), which CI systems can display.

use super::judge::Verdict;
use super::rule::LintRule;
use super::suppression::Suppressions;
use doorbell_inspection::lint::{Region, Row};
use gic_firmware::Severity;
use serde_json::{Value, json};
use std::fmt::Write as _;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Returns the log for the findings in `verdicts`. The log describes all rules, including those
/// without findings. `complaints` concern the options.
pub(super) fn log(
    verdicts: &[Verdict],
    suppressions: &Suppressions,
    complaints: &[String],
) -> Value {
    let results = verdicts.iter().flat_map(|verdict| {
        let unreadable = verdict.unreadable_row().map(|row| result(&row, None));
        let found = verdict.findings.iter().map(|found| {
            let reason = found.suppressed.map(|index| suppressions.reason(index));
            result(&verdict.row(found), reason.map(suppression))
        });
        unreadable.into_iter().chain(found)
    });
    let results: Vec<Value> = results.collect();
    let unreadable: Vec<&str> =
        verdicts.iter().filter_map(|verdict| verdict.unreadable.as_deref()).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "doorbell",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": LintRule::all().map(descriptor).collect::<Vec<_>>(),
            } },
            "invocations": [{
                "executionSuccessful": unreadable.is_empty(),
                "toolExecutionNotifications": notifications("error", &unreadable),
                "toolConfigurationNotifications": notifications("warning", complaints),
            }],
            "results": results,
        }],
    })
}

fn notifications(level: &str, texts: &[impl AsRef<str>]) -> Vec<Value> {
    let one = |text: &str| json!({ "level": level, "message": { "text": text } });
    texts.iter().map(|text| one(text.as_ref())).collect()
}

fn descriptor(rule: LintRule) -> Value {
    json!({
        "id": rule.name(),
        "shortDescription": { "text": rule.summary() },
        "help": { "text": rule.help(), "markdown": rule.explanation() },
        "defaultConfiguration": { "level": level(rule.severity()) },
    })
}

/// Returns the suppression of a finding, whose reason may be missing.
fn suppression(reason: Option<&str>) -> Value {
    match reason {
        Some(reason) => json!({ "kind": "external", "justification": reason }),
        None => json!({ "kind": "external" }),
    }
}

/// Returns the result for a finding.
fn result(row: &Row<'_>, suppression: Option<Value>) -> Value {
    let mut location = json!({ "physicalLocation": {
        "artifactLocation": { "uri": reference(row.file()) },
        "region": region(row.region),
    } });
    if !row.place.is_empty() {
        location["logicalLocations"] = json!([{ "fullyQualifiedName": row.place }]);
    }
    let mut result = json!({
        "ruleId": row.rule,
        "level": level(row.severity),
        "message": { "text": row.message },
        "locations": [location],
        // One fingerprint under two names: its own, and the only one that GitHub reads.
        "partialFingerprints": {
            "doorbellFinding/v1": row.fingerprint,
            "primaryLocationLineHash": row.fingerprint,
        },
        // SARIF requires the property in all results or in none.
        "suppressions": suppression.into_iter().collect::<Vec<_>>(),
    });
    if let Some(state) = row.baseline {
        result["baselineState"] = json!(state);
    }
    result
}

/// Returns the region of a finding. Blobs don't have lines, but programs that read SARIF expect a
/// line number.
fn region(region: Option<Region<'_>>) -> Value {
    let Some(Region { line, column, end_line, end_column, .. }) = region else {
        return json!({ "startLine": 1 });
    };
    json!({
        "startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column,
    })
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
