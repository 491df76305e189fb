//! `doorbell diff`: what changed between two descriptions.

mod difference;
mod object;
mod objects;
mod requesters;
mod spans;
mod text;

use crate::cli::DiffArgs;
use crate::exit::Outcome;
use crate::{lint, print, source};
use anyhow::{Result, bail};
use difference::{Difference, Differences, Section};
use doorbell_inspection::is_stdin;
use doorbell_inspection::lint::Row;
use doorbell_inspection::{Raw, Source};
use objects::Side;

/// Prints what changed between two descriptions.
pub(crate) fn diff(args: &DiffArgs) -> Result<Outcome> {
    if is_stdin(&args.old) && is_stdin(&args.new) {
        bail!("standard input can be only one of the two descriptions");
    }
    let how = args.include.compilation();
    let (old, new) = (source::at(&args.old, how)?, source::at(&args.new, how)?);
    let found = compare(&old, &new);
    print::object(args.output.json, &found, |out| text::print(out, &found))?;
    Ok(if found.count() == 0 { Outcome::Good } else { Outcome::Findings })
}

fn compare(old: &Source, new: &Source) -> Differences {
    let mut found = Differences::new(&old.name, &new.name);
    // Nodes of different forms have different names, and some facts exist in only one form.
    let is_same_form = matches!(
        (&old.raw, &new.raw),
        (Raw::Devicetree(_), Raw::Devicetree(_)) | (Raw::Tables(_), Raw::Tables(_))
    );
    let mut here = Side::new(&old.description, is_same_form);
    let there = Side::new(&new.description, is_same_form);
    here.adopt_names(&there);
    for section in Section::OF_OBJECTS {
        let (one, other) = (here.objects(section), there.objects(section));
        for pair in object::pairs(&one, &other) {
            object::compare(section, pair, is_same_form, &mut found);
        }
    }
    // A finding whose node has moved counts as the same.
    let changes = lint::changes(old, new);
    let mut add = |finding: &Row, before, after| {
        found.add(Difference {
            section: Section::Findings,
            object: finding.origin.to_string(),
            was: None,
            field: Some(finding.rule.name.to_owned()),
            before,
            after,
        });
    };
    changes.gone.iter().for_each(|gone| add(gone, Some(gone.message.clone()), None));
    changes.new.iter().for_each(|new| add(new, None, Some(new.message.clone())));
    found
}
