//! `doorbell inspect`: the contents of a description, plus capacities from known registers.

mod capacity;
mod listing;
mod report;
mod text;

use crate::cli::{Form, InspectArgs};
use crate::exit::Outcome;
use crate::print;
use crate::source::Source;
use anyhow::{Context, Result};
use gic_firmware::{acpi, devicetree};
use std::io::Write;

pub(crate) use capacity::CapacityRow;
pub(crate) use listing::Listing;
pub(crate) use report::{ControllerRow, Inspection, RangeRow, statement};
pub(crate) use text::{addresses, first_names, print as print_text, ranges, yes_no};

/// Prints the contents of a description.
pub(crate) fn inspect(args: &InspectArgs) -> Result<Outcome> {
    let source = args.source.open()?;
    if let Some(form) = args.emit {
        let text =
            emit(&source, form).with_context(|| format!("cannot convert {}", source.name))?;
        print::text(|out| out.write_all(text.as_bytes()))?;
        return Ok(Outcome::Good);
    }
    let inspection = Inspection::of(&source, &args.registers.read()?);
    if args.output.json {
        print::json_object(&inspection)?;
    } else {
        print::text(|out| print_text(out, &inspection))?;
    }
    Ok(Outcome::Good)
}

/// Converts a description to a source format.
fn emit(source: &Source, form: Form) -> Result<String> {
    let description = &source.description;
    Ok(match form {
        Form::Dts => devicetree::write_source(&devicetree::with_node_paths(description))?,
        Form::Iort => acpi::iort_source(description)?.context("its contents need no IORT")?,
    })
}
