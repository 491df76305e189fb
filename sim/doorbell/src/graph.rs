//! `doorbell graph`: a picture of devices, IOMMUs, controllers and CPUs.

use crate::cli::GraphArgs;
use crate::exit::Outcome;
use crate::print;
use anyhow::{Context, Result};
use doorbell_inspection::graph::{self, Graph};
use std::fs;

/// Draws a description as SVG, or as DOT if requested or if the file's extension is `dot`.
pub(crate) fn graph(args: &GraphArgs) -> Result<Outcome> {
    let source = args.source.open()?;
    let graph = Graph::of(&source.description, &source.cpu_clusters());
    let is_dot = args.dot
        || args.output.as_ref().is_some_and(|path| path.extension() == Some("dot".as_ref()));
    let text = if is_dot { graph::to_dot(&graph) } else { graph::to_svg(&graph, &source.name) };
    match &args.output {
        None => print::text(|out| std::io::Write::write_all(out, text.as_bytes()))?,
        Some(path) => {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(Outcome::Good)
}
