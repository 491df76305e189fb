//! The page, a single file that a browser displays without loading anything else.

use super::anchors::Anchors;
use super::cpus::{self, CpuLine};
use super::findings::{self, PlaceCard};
use super::lines::{self, ControllerLine, DeviceLine};
use super::routes::{self, RouteCard};
use crate::graph::{self, Column, Graph};
use crate::inspect::Inspection;
use crate::lint::Excerpts;
use crate::source::Source;
use askama::Template;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use gic_firmware::{Finding, NodeId, Severity};
use sha2::{Digest as _, Sha256};

/// The page's own style sheet. The page contains it after the style sheet of the picture.
const STYLE: &str = include_str!("page.css");
/// The page's script.
pub const SCRIPT: &str = include_str!("page.js");

/// The part about a run of the machine.
#[derive(Debug)]
pub enum RunPart {
    /// The reason why the machine was not run. Text in backticks is shown as code.
    NotMade(String),
    /// The result of a run.
    Made {
        /// One word or a few, such as `clean`.
        verdict: String,
        /// `true` if the run had no faults.
        is_clean: bool,
        /// HTML of the section, with all names escaped.
        html: String,
    },
}

/// The page's contents. The template escapes everything except the picture (which is escaped
/// already) and the style and script (which don't depend on input). Its macro `prose` shows
/// text in backticks as code.
#[derive(Debug, Template)]
#[template(path = "report.html")]
pub struct Page<'p> {
    policy: String,
    style: String,
    script: &'static str,
    inspection: Inspection,
    picture: String,
    cpus: Vec<CpuLine>,
    counts: [(usize, &'static str); 3],
    findings: Vec<PlaceCard<'p>>,
    controllers: Vec<ControllerLine>,
    devices: Vec<DeviceLine>,
    routes: Vec<RouteCard>,
    run: &'p RunPart,
    version: &'static str,
}

impl<'p> Page<'p> {
    /// Creates the page about `source`. `inspection` supplies the contents of the page.
    pub fn of(
        source: &Source,
        inspection: Inspection,
        findings: &'p [Finding],
        run: &'p RunPart,
    ) -> Self {
        let description = &source.description;
        let clusters = source.cpu_clusters();
        let graph = Graph::of(description, &clusters);
        let mut routes = routes::cards(description, &graph);
        let of_findings = findings.iter().map(|finding| &finding.origin);
        let excerpts = Excerpts::of(source, of_findings.chain(routes::origins(&routes)));
        routes::quote(&mut routes, &excerpts);
        let counts = [Severity::Error, Severity::Warning, Severity::Note]
            .map(|severity| findings::count(findings, severity));
        let findings = findings::cards(findings, &Anchors::of(description, &graph), &excerpts);
        let badges = findings::badges(&findings, graph.nodes.len());
        let style = style();
        let node = |id: &str| graph.place(Column::Requester, &NodeId::new(id));
        Self {
            cpus: cpus::lines(&inspection, &graph, &clusters),
            counts,
            controllers: lines::controllers(&inspection, graph.controllers.iter().copied()),
            devices: lines::devices(&inspection, node),
            policy: policy(&style, SCRIPT),
            picture: graph::inline(&graph, "Devices, IOMMUs, controllers and CPUs", &badges),
            inspection,
            style,
            script: SCRIPT,
            findings,
            routes,
            run,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Renders the page.
    pub fn html(&self) -> askama::Result<String> {
        self.render()
    }

    /// Returns the machine's model name, or the file name if it has none.
    fn title(&self) -> &str {
        let file = || self.inspection.source.rsplit('/').find(|part| !part.is_empty());
        self.inspection.model.as_deref().or_else(file).unwrap_or("A machine")
    }

    fn enabled_cpus(&self) -> usize {
        self.inspection.enabled_cpus
    }

    /// Returns the number of findings.
    fn found(&self) -> usize {
        self.counts.iter().map(|(count, _)| count).sum()
    }

    /// Returns `true` if there are errors or warnings.
    fn has_faults(&self) -> bool {
        let [(errors, _), (warnings, _), _] = self.counts;
        errors + warnings > 0
    }

    /// Returns the number of CPUs, including those that are not listed.
    fn all_cpus(&self) -> usize {
        self.inspection.cpus.len() + self.inspection.omitted.cpus
    }
}

/// Returns the page's style sheet.
pub fn style() -> String {
    format!("\n{}{STYLE}", graph::STYLE)
}

/// Returns a style sheet's or script's source expression in a content security policy.
pub fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// Returns a content security policy that allows only this style and script, regardless of the
/// page's contents.
fn policy(style: &str, script: &str) -> String {
    let [style, script] = [style, script].map(hash);
    format!(
        "default-src 'none'; style-src {style}; script-src {script}; \
         base-uri 'none'; form-action 'none'"
    )
}
