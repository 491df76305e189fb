//! Random machines with odd names, for tests of the printers.

use crate::hostile::{entry, host, iommu, machine, region, stream};
use crate::source::Source;
use gic_firmware::{
    Affinity, Controller, ControllerIndex, CpuNode, Fact, MapEntry, MsiRouting, PciHost,
    PlatformDevice, Status, Target,
};
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

fn odd() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&ODD[..])
}

/// Returns a strategy for fewer than `most` nodes, each with an odd name and its state.
fn nodes(most: usize) -> impl Strategy<Value = Vec<(&'static str, bool)>> {
    prop::collection::vec((odd(), any::<bool>()), 0..most)
}

fn status(is_enabled: bool) -> Fact<Status> {
    Fact::stated(if is_enabled { Status::Enabled } else { Status::Disabled })
}

/// Returns a host's MSI routing in one of the forms that firmware uses.
fn routing(number: u32, way: u8, itses: u32) -> MsiRouting {
    let controller = ControllerIndex::new((number % itses) as usize);
    match way {
        0 => MsiRouting::default(),
        1 => MsiRouting::parent(controller),
        _ => MsiRouting::map((0..u32::from(way)).map(|at| MapEntry {
            target: Target::Controller(controller),
            ..entry(at * 0x40, 0x40)
        })),
    }
}

fn hosts(found: &[(&str, bool)], way: u8, itses: u32, iommus: usize) -> Vec<PciHost> {
    let one = |(number, (odd, is_enabled)): (u32, &(&str, bool))| {
        let behind = (number as usize).checked_rem(iommus);
        let map = behind.into_iter().map(|iommu| stream(0, 0x1_0000, iommu)).collect();
        let made = host(number, routing(number, way, itses), map);
        PciHost { id: format!("{}{odd}", made.id).into(), status: status(*is_enabled), ..made }
    };
    (0..).zip(found).map(one).collect()
}

/// Returns a strategy for machines with up to a few hundred nodes, more than a picture draws.
pub(crate) fn machines() -> impl Strategy<Value = Source> {
    let counts = (nodes(260), nodes(8), nodes(12), nodes(230), 0..3u8);
    (counts, odd(), 0..4u8).prop_map(|((cpus, itses, iommus, devices, ways), odd, way)| {
        let cpu = |(number, (odd, is_enabled)): (u32, &(&str, bool))| CpuNode {
            status: status(*is_enabled),
            ..CpuNode::new(
                format!("/cpus/cpu@{number:x}{odd}"),
                Affinity::from_mpidr(u64::from(number) << (8 * u32::from(ways))),
            )
        };
        let its = |(number, (odd, is_enabled)): (u32, &(&str, bool))| {
            let id = format!("/its@{:x}00000{odd}", number + 0x9_0000);
            Controller {
                status: status(*is_enabled),
                ..Controller::its(id, region(number + 0x9_0000))
            }
        };
        let device = |(number, (odd, _)): (u32, &(&str, bool))| {
            let msi = MsiRouting::device(ControllerIndex::new(0), number.into());
            PlatformDevice::new(format!("/device@{number:x}{odd}"), "vendor,device", msi)
        };
        let mut machine = machine();
        machine.model = Some(Fact::stated(format!("Machine {odd}")));
        machine.cpus = (0..).zip(&cpus).map(cpu).collect();
        machine.controllers.extend((0..).zip(&itses).map(its));
        machine.iommus = (0..).zip(&iommus).map(|(number, _)| iommu(number)).collect();
        let all = u32::try_from(machine.controllers.len()).unwrap_or(1);
        machine.hosts = hosts(devices.get(..12).unwrap_or(&devices), way, all, iommus.len());
        machine.devices = (0..).zip(&devices).map(device).collect();
        Source::embedded("any <machine>", machine)
    })
}
