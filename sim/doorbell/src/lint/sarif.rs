//! Writes findings as SARIF 2.1.0 (OASIS), which CI systems can display.

use super::rule::{self, UNREADABLE};
use super::suppression::Suppressions;
use doorbell_inspection::Location;
use doorbell_inspection::lint::{Row, RuleText};
use gic_firmware::Severity;
use serde_json::{Value, json};
use std::fmt::Write as _;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Returns the log for some findings. The log describes all rules, including those without
/// findings. `complaints` concern the options.
pub(super) fn log<'r>(
    rows: impl Iterator<Item = &'r Row> + Clone,
    suppressions: &Suppressions,
    complaints: &[String],
) -> Value {
    let unreadable = rows.clone().filter(|row| row.rule.code == UNREADABLE.code);
    let unreadable: Vec<&str> = unreadable.map(|row| row.message.as_str()).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "doorbell",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": rule::all().iter().map(descriptor).collect::<Vec<_>>(),
            } },
            "invocations": [{
                "executionSuccessful": unreadable.is_empty(),
                "toolExecutionNotifications": notifications("error", &unreadable),
                "toolConfigurationNotifications": notifications("warning", complaints),
            }],
            "results": rows.map(|row| result(row, suppressions)).collect::<Vec<_>>(),
        }],
    })
}

fn notifications(level: &str, texts: &[impl AsRef<str>]) -> Vec<Value> {
    let one = |text: &str| json!({ "level": level, "message": { "text": text } });
    texts.iter().map(|text| one(text.as_ref())).collect()
}

fn descriptor(rule: &RuleText) -> Value {
    json!({
        "id": rule.name,
        "shortDescription": { "text": rule.summary },
        "help": { "text": rule.help, "markdown": rule.explanation },
        "defaultConfiguration": { "level": level(rule.severity) },
        "properties": { "code": rule.code.to_string() },
    })
}

/// Returns the result for a finding.
fn result(row: &Row, suppressions: &Suppressions) -> Value {
    let mut location = json!({ "physicalLocation": {
        "artifactLocation": { "uri": reference(row.file()) },
        "region": region(row.location.as_ref()),
    } });
    let place = row.origin.to_string();
    if !place.is_empty() {
        location["logicalLocations"] = json!([{ "fullyQualifiedName": place }]);
    }
    let suppression = row.suppressed.map(|index| match suppressions.reason(index) {
        Some(reason) => json!({ "kind": "external", "justification": reason }),
        None => json!({ "kind": "external" }),
    });
    let mut result = json!({
        "ruleId": row.rule.name,
        "level": level(row.severity),
        "message": { "text": row.message },
        "properties": { "code": row.rule.code.to_string() },
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
fn region(region: Option<&Location>) -> Value {
    let Some(Location { line, column, end_line, end_column, .. }) = region else {
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
