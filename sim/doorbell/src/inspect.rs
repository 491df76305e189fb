//! `doorbell inspect` and `doorbell graph`: the contents of a description, plus capacities from known
//! registers, and a picture of them.

mod text;

use crate::cli::{Form, GraphArgs, InspectArgs};
use crate::exit::Outcome;
use crate::print;
use anyhow::{Context, Result, bail};
use doorbell_inspection::Source;
use doorbell_inspection::graph::{Graph, to_svg};
use doorbell_inspection::inspect::Inspection;
use gic_firmware::acpi::{self, Extensions};
use gic_firmware::lint::KnownRegisters;
use gic_firmware::{Controller, ControllerKind, devicetree};
use std::io::Write;

pub(crate) use text::print as print_text;

/// Prints the contents of a description.
pub(crate) fn inspect(args: &InspectArgs) -> Result<Outcome> {
    let source = args.source.open()?;
    if let Some(form) = args.emit {
        let text = emit(&source, form, args.draft)
            .with_context(|| format!("cannot convert {}", source.name))?;
        print::text(|out| out.write_all(text.as_bytes()))?;
        return Ok(Outcome::Good);
    }
    let inspection = Inspection::of(&source, &args.registers.read()?);
    print::object(args.output.json, &inspection, |out| print_text(out, &inspection))?;
    Ok(Outcome::Good)
}

/// Draws a description as SVG.
pub(crate) fn graph(args: &GraphArgs) -> Result<Outcome> {
    let source = args.source.open()?;
    let graph = Graph::of(&source, &Inspection::of(&source, &KnownRegisters::default()));
    print::to_file(args.output.as_deref(), &to_svg(&graph, &source.name))?;
    Ok(Outcome::Good)
}

/// Converts a description to a source format.
fn emit(source: &Source, form: Form, draft: bool) -> Result<String> {
    let description = &source.description;
    match form {
        Form::Dts if draft => bail!("`--draft` is about an IORT"),
        Form::Dts => Ok(devicetree::write_source(&devicetree::with_node_paths(description))?),
        Form::Iort => {
            let mut extensions = Extensions::default();
            extensions.draft_redistributor_group = draft;
            let direct = |one: &Controller| one.kind == ControllerKind::DirectLpi;
            let text = match acpi::iort_source(description, extensions) {
                Err(error) if !draft && description.controllers.iter().any(direct) => {
                    bail!("{error}; `--draft` writes a draft of such a node")
                }
                written => written?,
            };
            text.context("its contents need no IORT")
        }
    }
}
