//! The page, a single file that a browser displays without loading anything else.

use super::anchors::Anchors;
use super::cpus::{self, CpuLine};
use super::delivery::Delivery;
use super::findings::{self, PlaceCard};
use super::lines::{self, ControllerLine, DeviceLine};
use super::routes::{self, RouteCard};
use super::run::Run;
use crate::cli::ReportArgs;
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
const SCRIPT: &str = include_str!("page.js");

/// The page's contents. The template escapes everything except the picture (which is escaped
/// already) and the style and script (which don't depend on input). Its macro `prose` shows
/// text in backticks as code.
#[derive(Template)]
#[template(path = "report.html")]
pub(super) struct Page<'p> {
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
    delivery: Option<Delivery<'p>>,
    /// The reason why the machine wasn't run.
    no_run: &'p str,
    messages_by: String,
    version: &'static str,
}

impl<'p> Page<'p> {
    /// Creates the page about `source`. `inspection` supplies the contents of the page.
    pub(super) fn of(
        source: &Source,
        inspection: Inspection,
        findings: &'p [Finding],
        run: &'p Run,
        args: &ReportArgs,
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
        let style = format!("\n{}{STYLE}", graph::STYLE);
        let (delivery, no_run, simulates) = match run {
            Run::Made(report, simulates) => (Some(Delivery::of(report)), "", *simulates),
            Run::NotMade(reason) => (None, reason.as_str(), false),
        };
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
            delivery,
            no_run,
            messages_by: order(args.workload.seed, simulates),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Renders the page.
    pub(super) fn html(&self) -> askama::Result<String> {
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

/// Describes how a run's messages were scheduled.
fn order(seed: u64, simulates: bool) -> String {
    if simulates {
        format!("simulated on one thread with seed {seed}")
    } else {
        format!("on threads, with seed {seed}")
    }
}

/// Returns a content security policy that allows only this style and script, regardless of the
/// page's contents.
fn policy(style: &str, script: &str) -> String {
    let [style, script] =
        [style, script].map(|text| BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; \
         base-uri 'none'; form-action 'none'"
    )
}
