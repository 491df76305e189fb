//! The result of a run.

use crate::latency::Latency;
use crate::machine::Omission;
use msi_types::{Cpu, DeviceId, HwIrq, Isolation, RequesterId};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// The result of a run: interrupts per vector and CPU, and faults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The model name stated by firmware, or the name chosen by the caller.
    pub machine: String,
    /// Number of CPUs that took part.
    pub cpus: usize,
    /// The enabled controllers, in the order in which the description lists them.
    pub controllers: Vec<ControllerReport>,
    /// The devices, in discovery order.
    pub devices: Vec<DeviceReport>,
    /// Totals over all vectors, which determine the verdict.
    pub totals: Totals,
    /// The enabled hosts and devices that took no part, because no driver serves their controllers,
    /// or because the run was limited. The verdict ([`Totals::is_clean`]) does not depend on them.
    pub omitted: Vec<Omission>,
    /// Notes on omitted devices and on regions that firmware does not place. Each note is one
    /// sentence.
    pub notes: Vec<String>,
    /// Time from the first message to the last handler run.
    pub elapsed: Duration,
}

impl Report {
    /// Returns the devices that share the DeviceID of `device`, so that an isolating controller
    /// cannot distinguish them: functions behind a conventional bridge, or functions whose
    /// requester IDs are equal under a map's mask. Devices that share a DeviceID form one isolation
    /// group.
    pub fn one_group_with<'a>(&'a self, device: &'a DeviceReport) -> impl Iterator<Item = &'a str> {
        let isolated = matches!(device.isolation, Isolation::Isolated(_));
        let shares = move |other: &&DeviceReport| {
            isolated
                && other.id != device.id
                && other.controller == device.controller
                && other.device_id == device.device_id
        };
        self.devices.iter().filter(shares).map(|other| other.id.as_str())
    }

    /// Returns the latencies of all devices' messages; `None` if [`DeviceReport::latency`] is
    /// `None` for every device.
    pub fn latency(&self) -> Option<Latency> {
        Latency::of_all(self.devices.iter().filter_map(|device| device.latency.as_ref()))
    }

    /// Returns the wall-clock time per message; `None` if no messages were sent.
    pub fn nanoseconds_per_message(&self) -> Option<f64> {
        if self.totals.sent == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "an average for display, of counts far below 2^52"
        )]
        Some(self.elapsed.as_nanos() as f64 / self.totals.sent as f64)
    }
}

/// An MSI controller.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ControllerReport {
    /// The controller's name in firmware.
    pub id: String,
    /// The controller's kind, such as `its`.
    pub kind: String,
    /// Addresses of the doorbells.
    pub doorbells: Vec<u64>,
    /// Set if the controller prevents devices from signaling each other's interrupts.
    pub isolates: bool,
    /// Set if the run used the controller. Cleared for a controller that firmware describes but the
    /// run did not use.
    pub driven: bool,
}

/// The kind of message store that a device has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DeviceKind {
    /// A PCI function's MSI capability.
    PciMsi,
    /// A PCI function's MSI-X table.
    PciMsix,
    /// A platform device's own registers.
    Platform,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PciMsi => "pci-msi",
            Self::PciMsix => "pci-msix",
            Self::Platform => "platform",
        })
    }
}

/// A device and its vectors.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceReport {
    /// For a PCI function, the host bridge's node and bus:device.function. For a platform device,
    /// its node.
    pub id: String,
    /// Kind of the message store.
    pub kind: DeviceKind,
    /// The [`ControllerReport::id`] of the controller that receives the device's messages.
    pub controller: String,
    /// The requester ID; behind a conventional bridge, the bridge's alias. `None` for platform
    /// devices.
    pub requester_id: Option<RequesterId>,
    /// The device's DeviceID at the controller.
    pub device_id: DeviceId,
    /// The device's isolation, which states whether it can signal other devices' interrupts.
    pub isolation: Isolation,
    /// The device's vectors.
    pub vectors: Vec<VectorReport>,
    /// Times from the device's writes to its handlers. `None` if no handler found a message, or if
    /// the run was a simulation, whose times differ from those of a real machine.
    pub latency: Option<Latency>,
    /// Minimum number of vectors that the device needs.
    pub useful_minimum: u16,
    /// The reason why the device does not send: it was denied vectors, or it was never able to
    /// send.
    pub refused: Option<String>,
}

impl DeviceReport {
    /// Returns `true` if the device has some vectors, but fewer than its useful minimum.
    pub fn is_short(&self) -> bool {
        self.refused.is_none() && self.vectors.len() < usize::from(self.useful_minimum)
    }
}

/// One vector.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct VectorReport {
    /// The interrupt core's number for the vector at the end of the run.
    pub irq: u32,
    /// The vector's INTID at the end of the run.
    pub hwirq: HwIrq,
    /// The vector's target CPU at the end of the run.
    pub cpu: Cpu,
    /// Number of messages that the device sent.
    pub sent: u64,
    /// Number of handler runs, at most [`sent`](Self::sent).
    pub delivered: u64,
    /// Number of messages that arrived while their interrupt was already pending (`sent −
    /// delivered`).
    pub coalesced: u64,
    /// Number of resends by the interrupt core and the drivers.
    pub redelivered: u64,
    /// Number of handler runs, indexed by CPU.
    pub per_cpu: Vec<u64>,
    /// Set if the handler never saw the vector's last message.
    pub lost: bool,
    /// Number of handler runs that were not due, as in [`Totals::spurious`].
    pub spurious: u64,
    /// Number of handler runs on a CPU that the vector had not targeted at any time since the
    /// message was sent.
    pub wrong_cpu: u64,
}

/// Totals over all vectors, from which the verdict is derived. The verdict depends on what devices
/// sent and what handlers saw; the model's own counters are not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Vectors.
    pub vectors: u64,
    /// Messages sent.
    pub sent: u64,
    /// Handler runs that a message accounts for.
    pub delivered: u64,
    /// Messages that arrived while their interrupt was already pending.
    pub coalesced: u64,
    /// Vectors whose handler never saw the last message's sequence number.
    pub lost: u64,
    /// Acknowledged INTIDs without a handler, and handler runs that were not due. Handler runs in
    /// excess of a vector's messages also count as spurious, unless the driver resent the interrupt
    /// without knowing whether it was pending.
    pub spurious: u64,
    /// Handler runs on a CPU that the vector had not targeted at any time since the message was
    /// sent.
    pub wrong_cpu: u64,
    /// Devices that were denied vectors, or were never able to send.
    pub refused: u64,
    /// Devices with fewer vectors than their useful minimum.
    pub short: u64,
    /// Driver faults that the controller model recorded, such as command errors and bad tables.
    pub guest_faults: u64,
    /// Messages to an address without a doorbell.
    pub no_doorbell: u64,
    /// Messages that a controller accepted and then dropped. They don't affect the verdict by
    /// themselves, because [`lost`](Self::lost) already counts the resulting losses.
    pub blocked: u64,
    /// Interrupts resent by the interrupt core and the drivers, by their own count.
    pub redelivered: u64,
    /// Acknowledged INTIDs whose handler had been removed, or replaced by another owner's handler,
    /// while the interrupt was in flight.
    pub late: u64,
    /// Completed affinity changes.
    pub moves: u64,
    /// Devices removed and later added again.
    pub readded: u64,
    /// CPUs taken offline and brought back online.
    pub replugged: u64,
    /// Suspends of the whole machine, each followed by a resume.
    pub suspended: u64,
    /// Saves and restores of the interrupt controller model.
    pub migrated: u64,
    /// Saves and restores of a virtual bus's host end that took place between a guest's request and
    /// the host's reply.
    pub migrated_in_flight: u64,
}

impl Totals {
    /// Returns `true` if no device was refused and every message was delivered exactly once, to the
    /// right CPU.
    pub const fn is_clean(&self) -> bool {
        self.is_delivered() && self.refused == 0 && self.short == 0
    }

    /// Returns `true` if every message of the served devices was delivered exactly once, to the
    /// right CPU.
    pub const fn is_delivered(&self) -> bool {
        let arrived = self.lost == 0 && self.spurious == 0 && self.wrong_cpu == 0;
        arrived && self.guest_faults == 0 && self.no_doorbell == 0
    }
}
