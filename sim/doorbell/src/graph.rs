//! `doorbell graph`: a picture of devices, IOMMUs, controllers and CPUs.

use crate::cli::GraphArgs;
use crate::exit::Outcome;
use crate::print;
use anyhow::Result;
use doorbell_inspection::graph::{self, Graph};
use doorbell_inspection::inspect::Inspection;
use gic_firmware::lint::KnownRegisters;

/// Draws a description as SVG, or as DOT if requested or if the file's extension is `dot`.
pub(crate) fn graph(args: &GraphArgs) -> Result<Outcome> {
    let source = args.source.open()?;
    let graph = Graph::of(&source, &Inspection::of(&source, &KnownRegisters::default()));
    let is_dot = args.dot
        || args.output.as_ref().is_some_and(|path| path.extension() == Some("dot".as_ref()));
    let text = if is_dot { graph::to_dot(&graph) } else { graph::to_svg(&graph, &source.name) };
    print::to_file(args.output.as_deref(), &text)?;
    Ok(Outcome::Good)
}
