//! The HTML file.

use askama::Template;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use doorbell_inspection::report;
use miniz_oxide::deflate::compress_to_vec;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const WORKER: &str = include_str!("worker.js");
/// Level of the strongest compression.
const STRONGEST: u8 = 10;
/// File names of all outputs but the error, in the order of [`Output`](crate::Output).
const NAMES: [&str; 4] = ["report.html", "inspect.json", "lint.json", "graph.svg"];

/// The page's contents, none of which depends on input. The reports that the page shows have the
/// same style sheet as the page, before its own.
#[derive(Template)]
#[template(path = "page.html")]
struct Html {
    policy: String,
    report_style: String,
    style: &'static str,
    script: &'static str,
    worker: &'static str,
    module: String,
    names: [&'static str; 4],
    version: &'static str,
}

/// Returns the page, which contains this package as the WebAssembly module `wasm`.
///
/// # Errors
/// Returns an error if the template cannot be rendered.
pub fn assemble(wasm: &[u8]) -> askama::Result<String> {
    let report_style = report::style();
    let html = Html {
        policy: policy(&report_style),
        report_style,
        style: STYLE,
        script: SCRIPT,
        worker: WORKER,
        module: BASE64_STANDARD.encode(compress_to_vec(wasm, STRONGEST)),
        names: NAMES,
        version: env!("CARGO_PKG_VERSION"),
    };
    html.render()
}

/// Returns a content security policy that allows the page's own scripts and styles, those of the
/// reports in its frame (which inherits the policy), and neither other code nor any network.
fn policy(report_style: &str) -> String {
    let [one, two, script, of_report] =
        [report_style, STYLE, SCRIPT, report::SCRIPT].map(report::hash);
    format!(
        "default-src 'none'; style-src {one} {two}; script-src 'wasm-unsafe-eval' {script} \
         {of_report}; worker-src blob:; base-uri 'none'; form-action 'none'"
    )
}
