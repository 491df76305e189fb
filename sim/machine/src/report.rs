//! The result of a run.

use msi_types::{Cpu, DeviceId, HwIrq, Isolation, RequesterId};
use std::fmt;
use std::time::Duration;

/// The result of a run: each vector's interrupts by CPU, and the faults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The model name that firmware states, or the name that the caller chose.
    pub machine: String,
    /// Number of CPUs that took part.
    pub cpus: usize,
    /// The enabled controllers, in the description's order.
    pub controllers: Vec<ControllerReport>,
    /// The devices, in the order of discovery.
    pub devices: Vec<DeviceReport>,
    /// Sums over all vectors, and the verdict.
    pub totals: Totals,
    /// Notes on invented regions and omitted devices, one sentence each.
    pub notes: Vec<String>,
    /// Time from the first message to the last handler run.
    pub elapsed: Duration,
}

impl Report {
    /// Returns the devices that an isolating controller cannot distinguish from `device` because
    /// they share its DeviceID: functions behind a conventional bridge, or under a map's mask. They
    /// are isolated together, as one group.
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
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ControllerReport {
    /// The controller's name in firmware.
    pub id: String,
    /// `its`, or the name of another kind.
    pub kind: String,
    /// Addresses of the doorbells.
    pub doorbells: Vec<u64>,
    /// Set if the controller keeps devices from signaling others' interrupts.
    pub isolates: bool,
    /// Set if the run used the controller. Controllers that appear only in the description are
    /// listed with `false`.
    pub driven: bool,
}

/// The kind of a device's message store.
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
    /// PCI: the host's node and bus:device.function. Platform: the node.
    pub id: String,
    /// Kind of the message store.
    pub kind: DeviceKind,
    /// The [`ControllerReport::id`] it signals through.
    pub controller: String,
    /// Requester ID; behind a conventional bridge, the alias. `None` for platform devices.
    pub requester_id: Option<RequesterId>,
    /// DeviceID at the controller.
    pub device_id: DeviceId,
    /// States whether the device is kept from signaling others' interrupts.
    pub isolation: Isolation,
    /// Its vectors.
    pub vectors: Vec<VectorReport>,
    /// The smallest number of vectors with which the device is useful.
    pub useful_minimum: u16,
    /// The reason why the device sends nothing: it was refused vectors, or was never able to send.
    pub refused: Option<String>,
}

impl DeviceReport {
    /// Returns `true` if the device has vectors, but fewer than its useful minimum.
    pub fn is_short(&self) -> bool {
        self.refused.is_none() && self.vectors.len() < usize::from(self.useful_minimum)
    }
}

/// One vector.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VectorReport {
    /// The interrupt core's number for the vector at the end of the run.
    pub irq: u32,
    /// The INTID, at the end of the run.
    pub hwirq: HwIrq,
    /// The target CPU at the end of the run.
    pub cpu: Cpu,
    /// Number of messages that the device sent.
    pub sent: u64,
    /// Number of handler runs, at most [`sent`](Self::sent).
    pub delivered: u64,
    /// `sent − delivered`: messages whose interrupt was already pending.
    pub coalesced: u64,
    /// Number of resends by the interrupt core and the drivers.
    pub redelivered: u64,
    /// Number of handler runs on each CPU.
    pub per_cpu: Vec<u64>,
    /// Set if the handler never saw the last message.
    pub lost: bool,
    /// Number of handler runs that were not due, as in [`Totals::spurious`].
    pub spurious: u64,
    /// Number of handler runs on a CPU that was not the target at any time since the message was
    /// sent.
    pub wrong_cpu: u64,
}

/// Sums over all vectors, from which the verdict follows. The devices judge the fate of messages;
/// the model's own counters are not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Vectors.
    pub vectors: u64,
    /// Messages sent.
    pub sent: u64,
    /// Handler runs for which a message had been sent.
    pub delivered: u64,
    /// Messages whose interrupt was already pending.
    pub coalesced: u64,
    /// Vectors whose handler never saw the last sequence number.
    pub lost: u64,
    /// Acknowledged INTIDs without a handler, and handler runs that were not due. Runs in excess of
    /// a vector's messages count as well, unless its driver resent the interrupt without knowing
    /// whether it was pending.
    pub spurious: u64,
    /// Handler runs on a CPU that was not the target at any time since the message was sent.
    pub wrong_cpu: u64,
    /// Devices that were refused vectors, or were never able to send.
    pub refused: u64,
    /// Devices that have fewer vectors than their useful minimum.
    pub short: u64,
    /// Faults of the drivers that the model of the controllers recorded, such as command errors and
    /// bad tables.
    pub guest_faults: u64,
    /// Messages to an address that is no doorbell.
    pub no_doorbell: u64,
    /// Messages that a controller accepted and dropped. They do not affect the verdict by
    /// themselves: messages lost in this way count as lost.
    pub blocked: u64,
    /// Interrupts that the interrupt core and the drivers resent, by their own count.
    pub redelivered: u64,
    /// Acknowledged INTIDs whose handler had just been removed, or replaced by another owner's
    /// handler, while the interrupt was in flight.
    pub late: u64,
    /// Affinity changes that completed.
    pub moves: u64,
    /// Removals of devices that were later added again.
    pub readded: u64,
    /// CPUs that were taken offline and brought back online.
    pub replugged: u64,
    /// Suspensions of the whole machine, each followed by a resume.
    pub suspended: u64,
    /// Saves and restores of the interrupt controller's model.
    pub migrated: u64,
    /// Saves and restores of the host end of a virtual bus between a guest's request and its
    /// answer.
    pub migrated_in_flight: u64,
}

impl Totals {
    /// Returns `true` if every device is served, and every message was delivered exactly once, to
    /// the right CPU.
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
