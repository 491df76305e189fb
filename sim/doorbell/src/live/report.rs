//! Report of `doorbell live`, structured like the JSON output.

use super::functions::Bridges;
use super::irqs::Irq;
use super::judge::{Mode, Subject, is_fault};
use super::root::{Root, Unreadable};
use super::system::System;
use crate::wording::counted;
use gic_firmware::NoRoute;
use msi_types::explain::Explanation;
use serde::Serialize;
use std::collections::BTreeMap;

/// Comparison of a running Linux's interrupts with its firmware.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// File or folder that firmware was read from; `null` if no firmware could be read.
    pub(super) firmware: Option<String>,
    /// The root GIC; `null` if firmware describes none.
    pub(super) gic: Option<String>,
    pub(super) controllers: Vec<ControllerRow>,
    pub(super) devices: Vec<DeviceRow>,
    /// `true` if functions have interrupts with handlers, but no message has arrived from any.
    pub(super) silent: bool,
    /// Buses of which no message has arrived, although messages of other functions have, and
    /// functions with suspicious DeviceIDs. These functions may just be idle.
    pub(super) notes: Vec<String>,
    /// Files that could not be read.
    pub(super) problems: Vec<Unreadable>,
}

#[derive(Debug, Serialize)]
pub(super) struct ControllerRow {
    pub(super) id: String,
    pub(super) kind: String,
    /// `false` if firmware disables the controller.
    pub(super) enabled: bool,
    /// `true` if Linux uses an interrupt of any controller of the same kind; `null` if that cannot
    /// be told.
    pub(super) used: Option<bool>,
    /// Number of DeviceIDs that an ITS's device table has room for; the ITS may implement fewer.
    /// `null` if the kernel's log does not tell.
    pub(super) room: Option<u64>,
}

/// A PCI function.
#[derive(Debug, Serialize)]
pub(super) struct DeviceRow {
    pub(super) id: String,
    pub(super) class: Option<u32>,
    pub(super) driver: Option<String>,
    pub(super) firmware: FirmwareRow,
    pub(super) linux: LinuxRow,
    /// Reason why the function has no interrupts or no messages; otherwise, the explanation of the
    /// interrupt that stops at the earliest stage.
    pub(super) explanation: Explanation,
    /// `true` if the explanation's obstacle is a fault of the machine, its firmware or its kernel.
    pub(super) fault: bool,
    /// Differences between firmware and Linux that do not stop an interrupt.
    pub(super) differences: Vec<String>,
}

/// Firmware's description of a function.
#[derive(Debug, Serialize)]
pub(super) struct FirmwareRow {
    /// Requester ID with which messages arrive at the host bridge.
    pub(super) requester: u32,
    pub(super) host: Option<String>,
    /// The MSI controller, even if firmware disables it.
    pub(super) controller: Option<String>,
    /// `null` if the controller does not use DeviceIDs.
    pub(super) device_id: Option<u32>,
    /// Reason why firmware names no usable controller.
    pub(super) no_controller: Option<String>,
    pub(super) iommu: Option<String>,
    pub(super) stream_id: Option<u32>,
}

/// Linux's configuration of a function.
#[derive(Debug, Serialize)]
pub(super) struct LinuxRow {
    pub(super) mode: Mode,
    /// DeviceID that Linux assumes, because firmware states none.
    pub(super) assumed_device_id: Option<u32>,
    pub(super) iommu_group: Option<String>,
    pub(super) interrupts: Vec<InterruptRow>,
}

/// One of a function's interrupts.
#[derive(Debug, Serialize)]
pub(super) struct InterruptRow {
    /// Linux's number.
    #[serde(rename = "irq")]
    pub(super) number: u32,
    /// `null` if unknown. Without debugfs, only the INTIDs of wired interrupts are known.
    pub(super) intid: Option<u32>,
    #[serde(flatten)]
    pub(super) irq: Irq,
    pub(super) explanation: Explanation,
}

impl Report {
    /// Returns the functions of which no interrupt has arrived until the `later` report. Bridges,
    /// and functions that no driver uses, are expected to be silent.
    pub(super) fn silent_until<'a>(&self, later: &'a Self) -> Vec<&'a DeviceRow> {
        let counts: BTreeMap<_, _> =
            self.devices.iter().map(|device| (&device.id, device.count())).collect();
        let used = later.devices.iter().filter(|one| one.driver.is_some() && !one.is_bridge());
        used.filter(|device| counts.get(&device.id) == Some(&device.count())).collect()
    }

    /// Reads a running Linux and compares it with its firmware.
    pub(super) fn of(root: &Root) -> Self {
        let system = System::read(root);
        let description = system.description();
        let controllers = description.controllers.iter().map(|controller| ControllerRow {
            id: controller.id.to_string(),
            kind: controller.kind.to_string(),
            enabled: controller.status.is_enabled(),
            used: system.uses(controller),
            room: system.room(controller),
        });
        let bridges = Bridges::among(&system.functions);
        let devices = system.functions.iter().map(|function| {
            let placement = system.place(&bridges, function);
            DeviceRow::of(&Subject { system: &system, function, placement })
        });
        let devices: Vec<_> = devices.collect();
        let controllers: Vec<_> = controllers.collect();
        let arrivals = arrivals(&devices);
        let mut counts = arrivals.values().flatten().map(|(_, messages)| *messages);
        let silent = !arrivals.is_empty() && counts.all(|messages| messages == 0);
        let notes = arrivals.iter().filter(|_| !silent);
        let mut notes: Vec<_> = notes.filter_map(|(bus, functions)| note(bus, functions)).collect();
        notes.extend(beyond(&devices, &controllers));
        if system.functions.iter().any(|function| !function.config.is_whole()) {
            let reason = "the capabilities cannot be read; run as root";
            root.record("sys/bus/pci/devices/*/config", &std::io::Error::other(reason));
        }
        Self {
            firmware: system.firmware.source.clone(),
            gic: description.gic.as_ref().map(|gic| format!("{} {}", gic.version.value, gic.id)),
            controllers,
            silent,
            notes,
            devices,
            problems: root.problems(),
        }
    }

    /// Returns `true` if a function has a fault, or if firmware and Linux differ.
    pub(super) fn has_findings(&self) -> bool {
        self.silent || self.devices.iter().any(DeviceRow::is_finding)
    }
}

/// The functions on each bus, and the number of their messages that have arrived.
type Arrivals = BTreeMap<String, Vec<(String, u64)>>;

/// Maximum number of functions that a note names.
const NAMED: usize = 4;

fn arrivals(devices: &[DeviceRow]) -> Arrivals {
    let mut buses = Arrivals::new();
    for device in devices {
        let Some(messages) = device.messages() else { continue };
        let bus = device.id.rsplit_once(':').map_or("", |(bus, _)| bus);
        buses.entry(bus.to_owned()).or_default().push((device.id.clone(), messages));
    }
    buses
}

/// Returns a note about the functions of a bus from which no message has arrived, although messages
/// of others have.
fn note(bus: &str, functions: &[(String, u64)]) -> Option<String> {
    let silent = functions.iter().filter(|(_, messages)| *messages == 0);
    let silent: Vec<_> = silent.map(|(name, _)| name.as_str()).collect();
    let (whose, others) = match functions.len() - silent.len() {
        _ if silent.is_empty() => return None,
        0 if functions.len() == 1 => {
            (format!("{}, the only sender on bus {bus},", named(&silent)), "other buses".into())
        }
        0 => {
            let functions = counted(functions.len(), "function");
            (format!("the {functions} on bus {bus}"), "other buses".into())
        }
        others => (named(&silent), counted(others, "other function") + " on the bus"),
    };
    Some(format!(
        "no message of {whose} has arrived, but messages of {others} have: the silent ones are \
         idle, or firmware states a wrong route"
    ))
}

/// Returns a note about functions from which no message has arrived, and whose DeviceIDs have more
/// than 16 bits and exceed those of all functions from which messages have arrived.
fn beyond(devices: &[DeviceRow], controllers: &[ControllerRow]) -> Option<String> {
    let senders = devices
        .iter()
        .filter_map(|device| Some((device.firmware.device_id?, device.messages()?, device)));
    let heard = senders.clone().filter(|(_, messages, _)| *messages > 0).map(|(id, ..)| id).max();
    let limit = heard.unwrap_or(0).max(u16::MAX.into());
    let silent: Vec<_> =
        senders.filter(|(id, messages, _)| *messages == 0 && *id > limit).collect();
    let (id, _, first) = silent.first()?;
    let controller = |one: &&ControllerRow| Some(&one.id) == first.firmware.controller.as_ref();
    let room = controllers.iter().find(controller).and_then(|one| one.room);
    let room = room.map_or_else(
        || "the kernel's log does not tell".to_owned(),
        |room| format!("the kernel's log only tells that there are at most {room:#x}"),
    );
    let names: Vec<_> = silent.iter().map(|(.., device)| device.id.as_str()).collect();
    Some(format!(
        "no message of {} has arrived, and firmware states DeviceID {id:#x}, although many ITSes \
         implement only 0x10000 DeviceIDs; how many this one implements is unknown: {room}",
        named(&names)
    ))
}

/// Lists the names of functions.
fn named(functions: &[&str]) -> String {
    let more = functions.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    functions[..functions.len().min(NAMED)].join(", ") + &more
}

/// Class and subclass of a bridge from PCI to PCI.
const PCI_BRIDGE: u32 = 0x0604;

impl DeviceRow {
    fn of(subject: &Subject<'_>) -> Self {
        let explanations = subject.explanations();
        let explanation = subject.explanation(&explanations);
        let interrupts = subject.interrupts().into_iter().zip(&explanations);
        let interrupts = interrupts.map(|((number, irq), explanation)| InterruptRow {
            number,
            intid: irq.and_then(Irq::intid),
            irq: irq.cloned().unwrap_or_default(),
            explanation: *explanation,
        });
        Self {
            id: subject.function.address.to_string(),
            class: subject.function.config.class(),
            driver: subject.function.driver.clone(),
            firmware: FirmwareRow::of(subject),
            linux: LinuxRow {
                mode: subject.mode(),
                assumed_device_id: subject.assumed_device_id().map(u32::from),
                iommu_group: subject.function.iommu_group.clone(),
                interrupts: interrupts.collect(),
            },
            explanation,
            fault: explanation.obstacles().any(is_fault),
            differences: differences(subject),
        }
    }

    /// Returns the number of messages that have arrived from the function; `None` if it has no
    /// handler for messages. Bridges are not counted: in working machines, their events may never
    /// happen.
    pub(super) fn messages(&self) -> Option<u64> {
        let has_handler = self.linux.interrupts.iter().any(|one| !one.irq.handlers.is_empty());
        let is_sender = matches!(self.linux.mode, Mode::Msix | Mode::Msi) && !self.is_bridge();
        (is_sender && has_handler).then_some(self.count())
    }

    /// Returns the number of the function's interrupts that have arrived.
    pub(super) fn count(&self) -> u64 {
        let interrupts = self.linux.interrupts.iter();
        interrupts.fold(0, |sum, one| sum.saturating_add(one.irq.count))
    }

    fn is_bridge(&self) -> bool {
        self.class.is_some_and(|class| class >> 8 == PCI_BRIDGE)
    }

    pub(super) fn is_finding(&self) -> bool {
        self.fault || !self.differences.is_empty()
    }
}

impl FirmwareRow {
    fn of(subject: &Subject<'_>) -> Self {
        let placement = &subject.placement;
        let route = subject.route();
        let stream = placement.host.and_then(|host| host.iommu.stream(placement.requester));
        let iommu = stream.and_then(|(iommu, _)| subject.system.description().iommu(iommu));
        Self {
            requester: placement.requester.get(),
            host: placement.host.map(|host| host.id.to_string()),
            controller: subject.named_controller().map(|controller| controller.id.to_string()),
            device_id: route
                .filter(|(_, controller)| controller.kind.needs_device_id())
                .map(|(route, _)| route.device_id.get()),
            no_controller: placement.route.and_then(Result::err).map(|why| {
                let own = if subject.host_may_have_its_own() && why == NoRoute::NotDescribed {
                    "; the host bridge may have one of its own"
                } else {
                    ""
                };
                format!("{why}{own}")
            }),
            iommu: iommu.map(|iommu| iommu.id.to_string()),
            stream_id: stream.map(|(_, id)| id),
        }
    }
}

/// Returns the differences between firmware and Linux that do not stop an interrupt.
fn differences(subject: &Subject<'_>) -> Vec<String> {
    let is_message = !subject.function.messages.is_empty();
    match subject.placement.route {
        Some(Err(NoRoute::Unmapped(requester))) if is_message => vec![format!(
            "firmware's MSI map has no entry for requester {requester}; Linux uses the controller \
             of the bridge above the function, with the requester ID as the DeviceID"
        )],
        // The bridge's own controller receives the messages.
        Some(Err(NoRoute::NotDescribed)) if subject.host_may_have_its_own() => Vec::new(),
        Some(Err(why)) if is_message => {
            vec![format!("Linux uses an MSI controller, but {why}")]
        }
        _ => Vec::new(),
    }
}
