//! `doorbell graph`: a picture of devices, IOMMUs, controllers and CPUs.

use crate::cli::GraphArgs;
use crate::exit::Outcome;
use crate::print;
use anyhow::Result;
use doorbell_inspection::graph::{self, Graph};
use doorbell_inspection::inspect::Inspection;
use gic_firmware::lint::KnownRegisters;

/// Draws a description as SVG.
pub(crate) fn graph(args: &GraphArgs) -> Result<Outcome> {
    let source = args.source.open()?;
    let graph = Graph::of(&source, &Inspection::of(&source, &KnownRegisters::default()));
    print::to_file(args.output.as_deref(), &graph::to_svg(&graph, &source.name))?;
    Ok(Outcome::Good)
}
