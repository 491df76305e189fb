//! The page, a single file that a browser displays without loading anything else.

use super::anchors::Anchors;
use super::findings::{self, PlaceCard};
use crate::graph::{self, Column, Graph};
use crate::inspect::{CpuRow, DeviceRow, Inspection, Rows, Statement};
use crate::lint::Excerpts;
use crate::source::{CpuClusters, Source};
use askama::Template;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use gic_firmware::{Finding, NodeId, Severity};
use sha2::{Digest as _, Sha256};
use std::borrow::Borrow;
use std::collections::BTreeSet;

/// The page's own style sheet. The page contains it after the style sheet of the picture.
const STYLE: &str = include_str!("page.css");
/// The page's script.
pub const SCRIPT: &str = include_str!("page.js");

/// The part about a run of the machine.
#[derive(Clone, Debug)]
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

impl RunPart {
    /// Returns the part of a page for which no run was requested.
    pub fn not_requested() -> Self {
        Self::NotMade("No run was requested; `doorbell report` makes one.".to_owned())
    }
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
    graph: Graph,
    clusters: CpuClusters,
    excerpts: Excerpts,
    picture: String,
    counts: [(usize, &'static str); 3],
    findings: Vec<PlaceCard<'p>>,
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
        let graph = Graph::of(source, &inspection);
        let routes = inspection.devices.iter().flat_map(|device| &device.routes);
        let statements = routes.flat_map(|route| &route.statements);
        let origins = findings.iter().map(|finding| &finding.origin);
        let origins = origins.chain(statements.map(|statement| &statement.origin));
        let excerpts = Excerpts::of(source, origins);
        let counts = [Severity::Error, Severity::Warning, Severity::Note]
            .map(|severity| findings::count(findings, severity));
        let anchors = Anchors::of(&source.description, &graph);
        let findings = findings::cards(findings, &anchors, &excerpts);
        let badges = findings::badges(&findings, graph.nodes.len());
        let style = style();
        Self {
            policy: policy(&style, SCRIPT),
            picture: graph::inline(&graph, "Devices, IOMMUs, controllers and CPUs", &badges),
            clusters: source.cpu_clusters(),
            inspection,
            graph,
            excerpts,
            counts,
            style,
            script: SCRIPT,
            findings,
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

    /// Returns the tables of a section, without empty ones, each with the column of the picture
    /// that has the boxes of its rows.
    fn tables(&self, section: &str) -> Vec<(Column, Rows)> {
        let all = match section {
            "controllers" => vec![
                (Column::SecondaryGic, self.inspection.secondary_gic_rows()),
                (Column::Controller, self.inspection.controller_rows()),
                (Column::Controller, self.inspection.capacity_rows()),
            ],
            _ => vec![
                (Column::Requester, self.inspection.device_rows()),
                (Column::Requester, self.inspection.stream_rows()),
            ],
        };
        all.into_iter().filter(|(_, table)| !table.rows.is_empty()).collect()
    }

    /// Returns the box of an object.
    fn place(&self, column: impl Borrow<Column>, id: &str) -> Option<usize> {
        self.graph.place(*column.borrow(), &NodeId::new(id))
    }

    /// Returns a column's name as a heading.
    fn heading(name: &str) -> String {
        let mut letters = name.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
    }

    /// Returns the sockets and clusters that contain a CPU, outermost first; empty if unknown.
    fn clusters(&self, cpu: &CpuRow) -> String {
        self.clusters.get(&NodeId::new(&cpu.id)).map_or_else(String::new, |path| path.join(", "))
    }

    /// Returns the identifiers of the boxes along a requester's routes, separated by blanks.
    fn way(&self, device: &DeviceRow) -> String {
        let mut way = BTreeSet::from_iter(self.place(Column::Requester, &device.id));
        for route in &device.routes {
            let controller = self.graph.controllers.get(route.index.get()).copied();
            way.extend(std::iter::successors(controller, |at| self.graph.after(*at)));
            let iommus = route.streams.iter();
            way.extend(iommus.filter_map(|one| self.place(Column::Iommu, &one.iommu)));
        }
        way.iter().map(|node| format!("n{node}")).collect::<Vec<_>>().join(" ")
    }

    /// Returns a statement's property in source form, or the first bytes of its structure.
    fn quoted(&self, statement: &Statement) -> Option<&str> {
        let (text, range) = self.excerpts.text(&statement.origin)?;
        text.get(range).map(str::trim)
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
        self.inspection.cpus.len() + self.inspection.omitted.cpus.omitted()
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
