//! Machines with odd names, for tests of the printers.

use crate::hostile::INPUTS;
use crate::source::Source;
use gic_firmware::{Fact, NodeId, Status};
use proptest::prelude::*;

/// Name fragments that are special in SVG, HTML or prose, or that such files must not contain.
const ODD: [&str; 13] = [
    "",
    "<x-odd>",
    "`<x-odd>`",
    "</text>",
    "&amp;",
    "\"",
    "'",
    "\\",
    "]]>",
    "\n",
    "\u{1}",
    "\u{ffff}",
    "a-name-that-is-much-longer-than-any-box-in-the-picture-could-show",
];

/// Returns a strategy for machines with up to a few hundred nodes, more than a picture draws. Their
/// nodes have odd names, and some are disabled.
pub(crate) fn machines() -> impl Strategy<Value = Source> {
    let names = prop::collection::vec((prop::sample::select(&ODD[..]), any::<bool>()), 1..9);
    let input = prop::sample::select(&INPUTS[..]);
    (input, 0..260_u32, names).prop_map(|((_, input), count, names)| {
        let mut machine = input(count);
        machine.model = Some(Fact::stated(format!("Machine {}", names[0].0)));
        let mut names = names.iter().cycle();
        let mut change = |id: &mut NodeId, status: &mut Fact<Status>| {
            let Some((odd, is_enabled)) = names.next() else { return };
            *id = format!("{id}{odd}").into();
            status.value = if *is_enabled { Status::Enabled } else { Status::Disabled };
        };
        machine.cpus.iter_mut().for_each(|one| change(&mut one.id, &mut one.status));
        machine.controllers.iter_mut().for_each(|one| change(&mut one.id, &mut one.status));
        machine.iommus.iter_mut().for_each(|one| change(&mut one.id, &mut one.status));
        machine.hosts.iter_mut().for_each(|one| change(&mut one.id, &mut one.status));
        machine.devices.iter_mut().for_each(|one| change(&mut one.id, &mut one.status));
        Source::embedded("any <machine>", machine)
    })
}
