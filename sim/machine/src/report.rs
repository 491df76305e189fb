//! The result of a run.

use msi_types::{Cpu, DeviceId, HwIrq, Isolation, RequesterId};
use std::fmt;
use std::time::Duration;

/// The result of a run: each vector's interrupts by CPU, and the faults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The machine's model name, or what the caller named it.
    pub machine: String,
    /// CPUs that took part.
    pub cpus: usize,
    /// The enabled controllers, in the description's order.
    pub controllers: Vec<ControllerReport>,
    /// The devices, in the order in which the drivers found them.
    pub devices: Vec<DeviceReport>,
    /// Sums over all vectors, and the verdict.
    pub totals: Totals,
    /// Regions that were invented and devices that were left out, one sentence each.
    pub notes: Vec<String>,
    /// From the first message to the last handler.
    pub elapsed: Duration,
}

impl Report {
    /// The devices that an isolating controller cannot tell from `device`, because they share its
    /// DeviceID: functions behind a conventional bridge, or under a map's mask. What isolates one
    /// isolates all of them, as one group.
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

    /// Wall-clock time per message; `None` if none was sent.
    pub fn nanoseconds_per_message(&self) -> Option<f64> {
        if self.totals.sent == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "an average for people, of counts far below 2^52"
        )]
        Some(self.elapsed.as_nanos() as f64 / self.totals.sent as f64)
    }
}

/// An MSI controller.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ControllerReport {
    /// Firmware's name of it.
    pub id: String,
    /// `its`, or what else it is.
    pub kind: String,
    /// The addresses that devices write to.
    pub doorbells: Vec<u64>,
    /// Does it keep devices from ringing others' interrupts?
    pub isolates: bool,
    /// Did the run drive it? Controllers that only the description knows of are listed, too.
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
    /// The kind of its message store.
    pub kind: DeviceKind,
    /// The [`ControllerReport::id`] it signals through.
    pub controller: String,
    /// Its requester ID; behind a conventional bridge the alias. `None` for platform devices.
    pub requester_id: Option<RequesterId>,
    /// Its DeviceID at the controller.
    pub device_id: DeviceId,
    /// Is it kept from ringing others' interrupts?
    pub isolation: Isolation,
    /// Its vectors.
    pub vectors: Vec<VectorReport>,
    /// The smallest number of vectors with which it is of use.
    pub useful_minimum: u16,
    /// The reason for which it sends nothing: it got no vectors, or was never able to send.
    pub refused: Option<String>,
}

impl DeviceReport {
    /// Did it get vectors, but fewer than it is of use with?
    pub fn is_short(&self) -> bool {
        self.refused.is_none() && self.vectors.len() < usize::from(self.useful_minimum)
    }
}

/// One vector.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VectorReport {
    /// The interrupt core's number, at the end of the run.
    pub irq: u32,
    /// The INTID, at the end of the run.
    pub hwirq: HwIrq,
    /// The target CPU at the end of the run.
    pub cpu: Cpu,
    /// Messages that the device sent.
    pub sent: u64,
    /// Handler runs, at most [`sent`](Self::sent).
    pub delivered: u64,
    /// `sent − delivered`: messages that found their interrupt pending.
    pub coalesced: u64,
    /// The number of resends by the interrupt core and the drivers.
    pub redelivered: u64,
    /// Handler runs on each CPU.
    pub per_cpu: Vec<u64>,
    /// The handler never saw the last message.
    pub lost: bool,
    /// Handler runs for which nothing was due, as in [`Totals::spurious`].
    pub spurious: u64,
    /// Handler runs on a CPU that was not the target at any time since the message was sent.
    pub wrong_cpu: u64,
}

/// Sums and verdict. What became of messages is judged by the devices, not by the model's own
/// counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Vectors.
    pub vectors: u64,
    /// Messages sent.
    pub sent: u64,
    /// Handler runs that had a message.
    pub delivered: u64,
    /// Messages that found their interrupt pending.
    pub coalesced: u64,
    /// Vectors whose handler never saw the last number sent.
    pub lost: u64,
    /// Acknowledged INTIDs without a handler, and handler runs for which nothing was due. Runs
    /// beyond a vector's messages count too, except as often as its driver sent it again without
    /// knowing whether it was pending.
    pub spurious: u64,
    /// Handler runs on a CPU that was not the target at any time since the message was sent.
    pub wrong_cpu: u64,
    /// Devices that got no vectors, or were never able to send.
    pub refused: u64,
    /// Devices that got fewer vectors than they are of use with.
    pub short: u64,
    /// Faults of the drivers that the model of the controllers recorded: command errors, bad
    /// tables.
    pub guest_faults: u64,
    /// Messages to an address where no doorbell listens.
    pub no_doorbell: u64,
    /// Messages that a controller took and dropped. They take no part in the verdict: what is lost
    /// by them is lost.
    pub blocked: u64,
    /// Interrupts that the interrupt core and the drivers sent again themselves, by their own
    /// count.
    pub redelivered: u64,
    /// Acknowledged INTIDs whose handler had just been removed, or been replaced by that of another
    /// owner: under way while a device was taken away.
    pub late: u64,
    /// Affinity changes that completed.
    pub moves: u64,
    /// Devices that were removed and added again.
    pub readded: u64,
    /// CPUs that were taken off line and brought back.
    pub replugged: u64,
    /// Number of times that the whole machine suspended and resumed.
    pub suspended: u64,
    /// The number of times that the interrupt controller's model was saved and restored.
    pub migrated: u64,
    /// The number of times that the host's end of a virtual bus was saved and restored between a
    /// guest's request and its answer.
    pub migrated_in_flight: u64,
}

impl Totals {
    /// Is every device served, and was everything delivered, once, and where it belongs?
    pub const fn is_clean(&self) -> bool {
        self.is_delivered() && self.refused == 0 && self.short == 0
    }

    /// The same of the devices that are served.
    pub const fn is_delivered(&self) -> bool {
        let arrived = self.lost == 0 && self.spurious == 0 && self.wrong_cpu == 0;
        arrived && self.guest_faults == 0 && self.no_doorbell == 0
    }
}
