//! Observations at the stages of an interrupt's path.

use super::table::{Code, Statement};
use super::words::{several, sharing, times, with_operand};
use super::{Obstacle, Stage, TableRegister};
use crate::{Cpu, DeviceId, EventId, Gsi, HwIrq, Level, MsiMessage};

/// The state of the CPU that an interrupt is routed to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum TargetState {
    /// The CPU is awake and checks for interrupts without being kicked.
    Awake,
    /// The vCPU's thread is in its monitor, and is not kicked. It checks for interrupts when it
    /// enters the guest or prepares to sleep.
    InMonitor,
    /// The CPU is executing guest code or waiting in WFI, and must be kicked.
    NeedsKick,
    /// The CPU was kicked, but has not yet returned from the guest or from WFI.
    Kicked,
}

impl TargetState {
    /// Returns what a sentence about the CPU says of this state.
    const fn clause(self) -> &'static str {
        match self {
            Self::Awake => "is awake",
            Self::InMonitor => {
                "is in its monitor: no kick is sent before it enters the guest or prepares to sleep"
            }
            Self::NeedsKick => "runs guest code or waits in WFI",
            Self::Kicked => "was kicked but has not returned yet",
        }
    }
}

super::table::stages! {
    /// An observation at a stage of an interrupt's path.
    pub enum Fact {
        Endpoint {
            /// The endpoint holds this message, and the vector is not masked.
            601 Message(message: MsiMessage) "sends {:#x} to {:#x}" (message.data, message.address);
            /// The device's line has this level.
            602 Line(level: Level) "the line is {}" (if level == Level::High { "high" } else { "low" });
            /// Another vector of the function is masked and has its pending bit set.
            604 OtherVectorPending(vector: u16)
                "the device signals vector {vector}, which is masked and has its pending bit set";
            /// The data that a driver stored for MSI has bits that the function replaces with the
            /// number of the vector.
            605 DataReplaced {
                /// The stored data.
                data: u16,
                /// Number of vectors that Message Control grants.
                granted: u16,
            }
                "the function replaces low bits of the data {data:#x}, because Message Control \
                 grants {granted} vectors";
        }
        Bus {
            /// The device may write to the bus.
            606 BusMaster "bus mastering is enabled";
            /// The IOMMU maps the address in the device's message to the doorbell.
            607 Mapped {
                /// The address in the device's message.
                iova: u64,
                /// The doorbell's physical address.
                doorbell: u64,
            } "the IOMMU maps {iova:#x} to the doorbell at {doorbell:#x}";
        }
        Doorbell {
            /// A controller receives messages at this address.
            608 Doorbell(address: u64) "a controller receives messages at {address:#x}";
            /// The interrupt is signaled by the controller's own input, without a message.
            609 Input(interrupt: HwIrq) "input of INTID {interrupt}";
        }
        Translation {
            /// An ITS translates the message to this interrupt.
            610 Event {
                /// Sender of the message.
                device: DeviceId,
                /// Data of the message.
                event: EventId,
                /// INTID of the LPI.
                interrupt: HwIrq,
            } "DeviceID {device}, EventID {event} maps to INTID {interrupt}";
            /// The message contains this INTID, so it needs no translation.
            611 MessageIntid(interrupt: HwIrq) "the message names INTID {interrupt}";
            /// The ITS refused commands, which may be why a mapping is missing.
            612 RefusedCommands {
                /// Number of refused commands.
                count: u64,
                /// Address of the first refused command.
                address: u64,
                /// Name of the first refused command.
                command: &'static str,
                /// Reason why the first command was refused.
                reason: &'static str,
                /// The operand that the reason is about, if the command is still in memory.
                operand: Option<u32>,
                /// Advice on the command, if its refusal may be the reason for the obstacle.
                fix: Option<&'static str>,
            }
                "the ITS refused {}{command} at {address:#x}: \
                 {reason}{}" (several(count), with_operand(operand));
            /// A command about the event is in memory at or after `GITS_CWRITER`, so the ITS does
            /// not execute it. It may also be an old command of a queue that has wrapped.
            613 Unannounced {
                /// Name of the command.
                command: &'static str,
                /// Address of the command.
                address: u64,
                /// Low word of `GITS_CWRITER`.
                write: u32,
                /// `true` if the command may be an old one, because the queue has wrapped, or may
                /// have before a restore.
                wrapped: bool,
            }
                "the ITS does not execute {command} at {address:#x}, because GITS_CWRITER = \
                 {write:#x} does not include \
                 it{}" (if wrapped { ", unless it is an old command" } else { "" });
            /// The ITS has executed a command that removed the mapping.
            614 Removed {
                /// Name of the command.
                command: &'static str,
                /// Address of the command.
                address: u64,
            } "{command} at {address:#x} has removed the mapping";
            /// The base register of a table or queue was written before `GITS_CTLR.Quiescent` was
            /// read as 1 after the ITS had been disabled. Writes while the bit is 0 are
            /// UNPREDICTABLE.
            615 WrittenWhileBusy {
                /// The register.
                register: TableRegister,
                /// The value that was written.
                value: u64,
            } "{register} was written with {value:#x} before GITS_CTLR.Quiescent was read as 1";
            /// The device's interrupt translation table is not in memory. This may not stop a
            /// model, but stops hardware and saves of the table.
            616 TranslationTableMissing {
                /// Sender of the message.
                device: DeviceId,
                /// Address of the table.
                itt: u64,
                /// Size of the table in bytes.
                bytes: u64,
            }
                "the interrupt translation table that MAPD gives DeviceID {device}, {bytes} bytes \
                 at {itt:#x}, is not in memory";
            /// Other events are mapped to the same interrupt.
            617 SharedInterrupt {
                /// INTID of the LPI.
                interrupt: HwIrq,
                /// Another event that is mapped to the interrupt, if known.
                other: Option<(DeviceId, EventId)>,
                /// Number of other events that are mapped to the interrupt.
                events: u32,
            } "INTID {interrupt} is also mapped by {}" (sharing(other, events));
            /// The controller identifies the sender by this DeviceID. The EventID is unknown.
            618 Sender(device: DeviceId) "the device has DeviceID {device}";
            /// A GSI is routed to this interrupt.
            619 Route {
                /// The GSI.
                gsi: Gsi,
                /// INTID of the interrupt.
                interrupt: HwIrq,
            } "GSI {gsi} is routed to INTID {interrupt}";
        }
        Configuration {
            /// The interrupt is enabled and has this priority value. Lower values are higher
            /// priorities.
            620 Enabled(priority: u8) "enabled, priority {priority:#x}";
            /// The input is level-sensitive: the interrupt is pending only while its line is high.
            621 LevelSensitive "level-sensitive in GICD_ICFGR<n>";
            /// The byte that configures an LPI, in the table that its redistributor uses.
            622 ConfigurationByte {
                /// Address of the byte.
                address: u64,
                /// The byte: priority in bits 7:2, enable in bit 0.
                byte: u8,
            } "the configuration byte at {address:#x} is {byte:#04x}";
        }
        Pending {
            /// The interrupt is pending.
            623 Pending(interrupt: HwIrq) "INTID {interrupt} is pending";
            /// The interrupt is not pending: no message, edge or level has arrived since it was
            /// last acknowledged, or its pending state was cleared.
            603 NotPending(interrupt: HwIrq) "INTID {interrupt} is not pending";
            /// Another interrupt is pending, but no driver has claimed it.
            624 OtherPending(interrupt: HwIrq)
                "INTID {interrupt} is pending, but no driver has claimed it"
                => "request the INTID to which the device's line is wired: SPI n of a devicetree \
                 is INTID 32 + n, and PPI n is INTID 16 + n";
        }
        Target {
            /// The interrupt is routed to a CPU that can take it.
            625 Target(cpu: Cpu, state: TargetState) "CPU {cpu}, which {}" (state.clause());
            /// The interrupt is routed to this CPU, whose state is unknown.
            626 Routed(cpu: Cpu) "routed to CPU {cpu}";
        }
        Interface {
            /// The CPU interface would signal the interrupt if it were pending, and `PSTATE.I`, if
            /// known, does not mask it. The pending state is not known.
            627 WouldSignal(cpu: Cpu) "CPU {cpu} lets the interrupt through";
            /// The CPU interface compares priorities without their low bits, which the binary point
            /// selects.
            628 GroupPriority {
                /// The interrupt's priority.
                priority: u8,
                /// The bits of the priority that are compared.
                group_priority: u8,
                /// `ICC_BPR<n>_EL1`.
                binary_point: u8,
            }
                "priority {priority:#x} is compared as {group_priority:#x}, because the binary \
                 point (ICC_BPR<n>_EL1) is {binary_point}"
                => "end the active interrupt with ICC_EOIR1_EL1, or lower the binary point, so \
                 that the interrupt preempts it";
            /// The CPU interface signals the interrupt to its CPU.
            629 Signaled(cpu: Cpu) "signaled to CPU {cpu}";
        }
        Dispatch {
            /// The interrupt's number in the kernel.
            630 Irq(number: u32) "IRQ number {number}";
        }
        Handler {
            /// The handler has run this many times.
            631 Runs(runs: u64) "the handler has run {}" (times(runs));
        }
    }
}

impl Fact {
    /// Returns the stage at which this fact is observed.
    pub const fn stage(self) -> Stage {
        self.stated_stage()
    }

    /// Returns the stable code.
    pub const fn code(self) -> Code {
        self.stated_code()
    }

    /// Returns `true` if the fact shows a mistake, which may not stop the interrupt by itself.
    pub const fn is_warning(self) -> bool {
        matches!(
            self,
            Self::WrittenWhileBusy { .. }
                | Self::TranslationTableMissing { .. }
                | Self::OtherVectorPending(_)
                | Self::DataReplaced { .. }
                | Self::OtherPending(_)
        )
    }

    /// Returns advice on the mistake that a warning shows, which may be empty, or `None` if the fact
    /// is no [warning](Self::is_warning).
    pub(super) fn advice(self) -> Option<&'static str> {
        self.is_warning().then(|| self.stated_fix())
    }

    /// Returns advice on the mistake that the fact shows, if it is the likely reason for the
    /// obstacle.
    pub(super) fn fix(self, obstacle: Obstacle) -> Option<&'static str> {
        Some(match self {
            Self::RefusedCommands { fix, .. } if obstacle.stage() == Stage::Translation => {
                return fix;
            }
            Self::Unannounced { wrapped: false, .. } if obstacle.stage() <= Stage::Pending => {
                "advance GITS_CWRITER past the command"
            }
            Self::WrittenWhileBusy { .. } if obstacle.stage() == Stage::Translation => {
                "wait until GITS_CTLR.Quiescent is 1 before writing the register"
            }
            Self::ConfigurationByte { .. } if matches!(obstacle, Obstacle::Disabled { .. }) => {
                "set bit 0 of the byte, or write the table's address to GICR_PROPBASER"
            }
            Self::GroupPriority { .. }
                if matches!(obstacle, Obstacle::PriorityNotHigher { .. }) =>
            {
                self.stated_fix()
            }
            _ => return None,
        })
    }
}
