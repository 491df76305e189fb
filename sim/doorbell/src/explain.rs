//! `doorbell explain`: the way of a device's messages, as firmware describes it, and the findings
//! about the nodes on it.

mod senders;

use crate::cli::ExplainArgs;
use crate::exit::Outcome;
use crate::findings;
use crate::print::{self, Output, wrapped};
use crate::table::Table;
use crate::wording::counted;
use anyhow::{Context, Result};
use doorbell_inspection::Source;
use doorbell_inspection::inspect::{Inspection, RangeRow, ranges, statement};
use doorbell_inspection::lint::{Row, rows};
use gic_firmware::lint::{self, KnownRegisters};
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, Description, NoRoute, Origin, Route, Rule,
};
use msi_types::RequesterId;
use msi_types::explain::{Explanation, Fact, Obstacle, SetupFault};
use senders::Sender;
use serde::Serialize;
use std::io::{self, Write};

/// A requester and the way of its messages.
#[derive(Debug, Serialize)]
struct Way {
    device: String,
    /// `null` for a device outside PCI that states its DeviceID itself.
    requester: Option<u32>,
    /// Property or table entry that names the controller.
    by: Option<String>,
    iommus: Vec<Passage>,
    controller: Option<String>,
    kind: Option<String>,
    device_id: Option<u32>,
    /// Addresses that receive messages; Direct LPI has one for each CPU.
    doorbells: Vec<u64>,
    /// SPIs that the controller may use; empty if it uses LPIs.
    interrupts: Vec<RangeRow>,
    /// INTIDs of the lines of a controller inside a host bridge.
    lines: Vec<u32>,
    /// Number of CPUs that can be the target.
    cpus: usize,
    /// Number of the other CPUs that firmware describes.
    disabled_cpus: usize,
    /// A fact that firmware leaves open.
    note: Option<String>,
    /// Findings about the nodes on the way, in its order.
    findings: Vec<Row>,
    explanation: Explanation,
}

/// An IOMMU that the messages pass.
#[derive(Debug, Serialize)]
struct Passage {
    iommu: String,
    enabled: bool,
    /// `null` if firmware states none.
    stream_id: Option<u32>,
}

/// Explains the requesters that the arguments name, or lists the requesters.
pub(crate) fn explain(args: &ExplainArgs) -> Result<Outcome> {
    let (source, device) = args.open()?;
    let Some(device) = device else { return list(&source, args) };
    let ways = ways(&source, &device).with_context(|| format!("{}: {device:?}", source.name))?;
    print::rows(args.output.json, &ways, |out| {
        ways.iter().try_for_each(|way| print_way(out, way))
    })?;
    let is_open = ways.iter().all(|way| way.explanation.obstacle().is_none());
    let found = findings::outcome(ways.iter().flat_map(|way| &way.findings));
    Ok(if is_open { found } else { Outcome::Findings })
}

/// Lists the requesters of a description.
fn list(source: &Source, args: &ExplainArgs) -> Result<Outcome> {
    let inspection = Inspection::of(source, &KnownRegisters::default());
    print::rows(args.output.json, &inspection.devices, |out| {
        writeln!(out, "{}", Table::from(inspection.device_rows().without("isolation")))?;
        writeln!(out, "name a device, or a function of a host: `doorbell explain SOURCE DEVICE`")
    })?;
    Ok(Outcome::Good)
}

fn ways(source: &Source, name: &str) -> Result<Vec<Way>> {
    let known = KnownRegisters::default();
    let found = lint::check(&source.description, &known);
    let found = rows(source, found, &known);
    let senders = senders::named(source, name)?;
    Ok(senders.iter().map(|sender| Way::of(&source.description, sender, &found)).collect())
}

impl Way {
    fn of(description: &Description, sender: &Sender<'_>, found: &[Row]) -> Self {
        let stopped = |fault| Explanation::stopped(Obstacle::Setup(fault));
        let named = match sender.route {
            Ok(Route { controller, .. })
            | Err(NoRoute::Disabled(controller) | NoRoute::NoDeviceId(controller)) => {
                description.controller(controller)
            }
            Err(_) => None,
        };
        let passed = sender.passes.iter();
        let passed = passed.filter_map(|(index, id)| Some((description.iommu(*index)?, *id)));
        let mut places = sender.places.clone();
        places.extend(passed.clone().map(|(iommu, _)| iommu.id.origin("")));
        if let Some(to) = named {
            places.extend(places_of(description, to));
        } else {
            // The requester may mean any controller, or a GIC that is not known to be one.
            let all = description.controllers.iter();
            places.extend(all.flat_map(|to| places_of(description, to)));
            places.extend(description.gic.iter().map(|gic| gic.id.origin("")));
        }
        let mut way = Self {
            device: sender.name.clone(),
            requester: sender.requester.map(RequesterId::get),
            by: None,
            iommus: Vec::new(),
            controller: None,
            kind: None,
            device_id: None,
            doorbells: Vec::new(),
            interrupts: Vec::new(),
            lines: Vec::new(),
            cpus: 0,
            disabled_cpus: 0,
            note: sender.note.clone(),
            findings: on_the_way(&places, sender.owner, found, |row| {
                concerns_all(description, named, row)
            }),
            explanation: Explanation::new(),
        };
        match (sender.route, named) {
            (Ok(route), Some(to)) => way.reach(description, sender, route, to),
            (Err(_), _) if sender.may_have_its_own => {}
            (Err(why), _) => way.explanation = stopped(fault(description, why, sender.requester)),
            (Ok(_), None) => {}
        }
        if !sender.status.is_enabled() {
            let disabled = Obstacle::Setup(SetupFault::RequesterDisabled);
            way.explanation = way.explanation.with_obstacle(disabled);
        }
        // The bridge takes the message before an IOMMU translates it.
        if way.lines.is_empty() {
            way.iommus.extend(passed.map(|(iommu, stream_id)| Passage {
                iommu: iommu.id.to_string(),
                enabled: iommu.status.is_enabled(),
                stream_id,
            }));
        }
        way
    }

    /// Adds the controller at which the messages arrive.
    fn reach(
        &mut self,
        description: &Description,
        from: &Sender<'_>,
        route: Route,
        to: &Controller,
    ) {
        self.by = Some(statement(from.msi, route.via));
        self.controller = Some(to.id.to_string());
        self.kind = Some(to.kind.to_string());
        self.doorbells = match to.doorbell(route.device_id) {
            Some(doorbell) => vec![doorbell],
            None => description.doorbells(to),
        };
        self.interrupts = to.ranges.iter().map(|range| RangeRow::of(range.value)).collect();
        self.lines = to.lines.iter().map(|line| line.intid.get()).collect();
        self.cpus = description.enabled_cpus().count();
        self.disabled_cpus = description.cpus.len() - self.cpus;
        if let ControllerKind::Other(compatible) = &to.kind {
            let note = "is no kind of controller known here, so nothing of it was examined";
            self.note = Some(format!("`compatible` {compatible:?} {note}"));
        }
        let doorbell = self.doorbells.first().map(|doorbell| Fact::Doorbell(*doorbell));
        self.explanation = self.explanation.with_facts(&[doorbell]);
        if to.kind.needs_device_id() {
            self.device_id = Some(route.device_id.get());
            self.explanation = self.explanation.with_fact(Fact::Sender(route.device_id));
        }
        if self.cpus == 0 {
            self.explanation = self.explanation.with_obstacle(Obstacle::Setup(SetupFault::NoCpu));
        }
    }
}

/// Returns the places that state a controller and its GIC.
fn places_of(description: &Description, controller: &Controller) -> Vec<Origin> {
    let mut places = vec![controller.id.origin(""), controller.status.origin.clone()];
    places.extend(controller.registers.iter().map(|of| of.origin.clone()));
    places.extend(controller.ranges.iter().map(|of| of.origin.clone()));
    if let Some(gic) = description.gic_of(controller) {
        places.extend([gic.id.origin(""), gic.distributor.origin.clone()]);
        places.extend(gic.redistributors.iter().map(|of| of.origin.clone()));
    }
    places
}

/// Returns `true` if a finding concerns the ways of all requesters: it is about a CPU, each of which
/// can be the target, or about the MADT, unless it is about another controller than `named`. So does
/// one about registers that overlap those of `named` or its GIC, and for a requester without a
/// controller, one about an ITS group.
fn concerns_all(description: &Description, named: Option<&Controller>, row: &Row) -> bool {
    let Some(at) = row.origin.place() else { return false };
    let is_there = |to: &Controller| {
        let mut origins = to.registers.iter().map(|of| &of.origin).chain([&to.status.origin]);
        origins.any(|origin| origin.place() == Some(at))
    };
    let is_beside = |to: &Controller| {
        let gic = description.gic_of(to).map(|gic| gic.id.as_str());
        row.rule.code == Rule::RegistersOverlap.code()
            && words(&row.message).any(|word| word == to.id.as_str() || Some(word) == gic)
    };
    // A CPU that cannot be read is not in the description.
    at.starts_with("/cpus/")
        || named.is_some_and(is_beside)
        || (at.starts_with("MADT+") && !description.controllers.iter().any(is_there))
        || (named.is_none() && row.rule.code == Rule::UnknownIts.code())
}

fn words(message: &str) -> impl Iterator<Item = &str> {
    message.split([' ', ',', ';'])
}

/// Returns the findings at these places, in their order, and then those that concern all. A finding
/// is also at a place if it is about a bus above the place, or if it names `owner`, as the other of
/// two requesters.
fn on_the_way(
    places: &[Origin],
    owner: &str,
    found: &[Row],
    concerns_all: impl Fn(&Row) -> bool,
) -> Vec<Row> {
    let rank = |row: &Row| {
        let at = row.origin.place()?;
        let is_here = |place: &Origin| {
            let below = place.place().and_then(|place| place.strip_prefix(at));
            below.is_some_and(|below| below.is_empty() || (at != "/" && below.starts_with('/')))
        };
        let is_other = || words(&row.message).any(|word| word == owner);
        let here = places.iter().position(is_here).or_else(|| is_other().then_some(0));
        here.or_else(|| concerns_all(row).then_some(places.len()))
    };
    let mut found: Vec<_> = found.iter().filter_map(|row| Some((rank(row)?, row))).collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, row)| row.clone()).collect()
}

/// Returns the reason why firmware's description gives a requester no controller.
pub(crate) fn fault(
    description: &Description,
    why: NoRoute,
    requester: Option<RequesterId>,
) -> SetupFault {
    let disabled = |index: ControllerIndex| {
        let to = description.controller(index);
        match to.map(|to| (to.status.origin.item(), &to.kind)) {
            Some(("status", _)) | None => SetupFault::ControllerDisabled,
            Some(("msi-controller", _)) => SetupFault::ControllerUnmarked,
            Some((_, ControllerKind::DirectLpi)) => SetupFault::ControllerBesideIts,
            Some(_) => SetupFault::ControllerDisabled,
        }
    };
    match (why, requester) {
        (NoRoute::Disabled(index), _) => disabled(index),
        (NoRoute::NotDescribed, Some(requester)) => SetupFault::NoController { requester },
        (NoRoute::Unmapped(requester), _) => SetupFault::OutsideMap { requester },
        (NoRoute::NotDescribed, None) => SetupFault::NoParent,
        (_, Some(requester)) => SetupFault::BrokenEntry { requester },
        (_, None) => SetupFault::BrokenParent,
    }
}

fn print_way(out: &mut Output, way: &Way) -> io::Result<()> {
    let requester = way.requester.map(|id| format!("requester {id:#06x}"));
    let by = way.by.as_ref().map(|by| format!("by {by}"));
    let from: Vec<_> = [Some(way.device.clone()), requester, by].into_iter().flatten().collect();
    writeln!(out, "{}", wrapped(&from.join(", ")))?;
    for Passage { iommu, enabled, stream_id } in &way.iommus {
        let stream = stream_id.map_or_else(String::new, |id| format!("StreamID {id:#x} at "));
        let state = if *enabled { "" } else { " (disabled)" };
        writeln!(out, "{}", wrapped(&format!("  passes {stream}{iommu}{state}")))?;
    }
    if let (Some(controller), Some(kind)) = (&way.controller, &way.kind) {
        writeln!(out, "{}", wrapped(&format!("  controller {controller} ({kind})")))?;
        let interrupts = match way.interrupts.as_slice() {
            [] if ["its", "direct-lpi"].contains(&kind.as_str()) => "an LPI".to_owned(),
            [] if way.lines.is_empty() && way.doorbells.is_empty() => {
                "an interrupt that the controller's driver chooses".to_owned()
            }
            [] if way.lines.is_empty() => "an SPI".to_owned(),
            [] => {
                let lines: Vec<_> = way.lines.iter().map(ToString::to_string).collect();
                format!("a vector that the bridge signals by INTID {}", lines.join(" or "))
            }
            some => format!("an SPI of INTIDs {}", ranges(some)),
        };
        let cpus = match way.cpus {
            0 => "at no CPU".to_owned(),
            cpus => format!("at any of {}", counted(cpus, "CPU")),
        };
        let disabled = match way.disabled_cpus {
            0 => String::new(),
            disabled => format!("; firmware disables {}", counted(disabled, "CPU")),
        };
        let target = format!("  target: {interrupts}, {cpus}{disabled}");
        writeln!(out, "{}", wrapped(&target))?;
    }
    if let Some(note) = &way.note {
        writeln!(out, "{}", wrapped(&format!("  note: {note}")))?;
    }
    for line in findings::lines(&way.explanation, &way.findings) {
        writeln!(out, "{}", wrapped(&format!("  {line}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_inspection::lint::place;

    #[test]
    fn buses_above_and_a_peer_are_examined() {
        let row = |at: &str, message: &str| {
            let rule = Rule::DoorbellOutsideDmaRanges.into();
            Row::new("a.dtb", rule, place::origin(at), message.to_owned())
        };
        let places = ["/soc/pcie@1", "/soc/its@2"].map(place::origin);
        let here = ["/soc/its@2", "/soc", "/soc/pcie@1"].map(|at| row(at, ""));
        let peer = row("/dma@3", "DeviceID 0x1 is also used by /soc/pcie@1");
        let elsewhere = ["/", "/so", "/soc/pcie@10", "/soc/its@2/x"].map(|at| row(at, ""));
        let all = [&here[..], &[peer], &elsewhere].concat();
        let found = on_the_way(&places, "/soc/pcie@1", &all, |_| false);
        let found: Vec<_> = found.iter().filter_map(|row| row.origin.place()).collect();
        assert_eq!(found, ["/soc", "/soc/pcie@1", "/dma@3", "/soc/its@2"]);
    }
}
