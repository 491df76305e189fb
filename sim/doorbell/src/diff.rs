//! `doorbell diff`: what changed between two descriptions.

mod difference;
mod findings;
mod object;
mod objects;
mod pairs;
mod requesters;
mod sides;
mod spans;
mod text;

use crate::cli::DiffArgs;
use crate::exit::Outcome;
use crate::input::is_stdin;
use crate::print;
use crate::source;
use anyhow::{Result, bail};
use difference::Differences;
use sides::Two;

/// Prints what changed between two descriptions.
pub(crate) fn diff(args: &DiffArgs) -> Result<Outcome> {
    if is_stdin(&args.old) && is_stdin(&args.new) {
        bail!("standard input can be only one of the two descriptions");
    }
    let how = args.include.compilation();
    let (old, new) = (source::at(&args.old, how)?, source::at(&args.new, how)?);
    let found = compare(Two { old: &old, new: &new });
    print::object(args.output.json, &found, |out| text::print(out, &found))?;
    Ok(if found.count() == 0 { Outcome::Good } else { Outcome::Findings })
}

fn compare(two: Two<'_>) -> Differences {
    let mut found = Differences::new(&two.old.name, &two.new.name);
    let labels = objects::compare(two, &mut found);
    requesters::compare(two, &labels, &mut found);
    findings::compare(two, &mut found);
    found
}
