//! `doorbell inspect`: what a description says.

mod report;
mod text;

use crate::cli::InspectArgs;
use crate::exit::Outcome;
use crate::print;
use crate::source::Source;
use anyhow::Result;

pub(crate) use report::Inspection;
pub(crate) use text::print as print_text;

/// Prints what a description says.
pub(crate) fn inspect(args: &InspectArgs) -> Result<Outcome> {
    let source = args.source.as_deref().map_or_else(Source::running, Source::at)?;
    let inspection = Inspection::of(&source);
    if args.output.json {
        print::json(&inspection)?;
    } else {
        print::text(|out| print_text(out, &inspection))?;
    }
    Ok(Outcome::Good)
}
