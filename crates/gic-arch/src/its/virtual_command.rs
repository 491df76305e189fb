//! ITS commands for virtual LPIs (GICv4.0; IHI 0069 §5.3).

use super::command::{high, low};
use super::{MapAction, RawCommand, RdBase, UnknownOpcode, VpeId};
use crate::IntId;
use msi_types::{DeviceId, EventId};

const VMOVI: u8 = 0x21;
const VMOVP: u8 = 0x22;
const VSYNC: u8 = 0x25;
const VMAPP: u8 = 0x29;
const VMAPTI: u8 = 0x2a;
const VINVALL: u8 = 0x2d;
/// Doorbell INTID of an event without a doorbell.
const NO_DOORBELL: u32 = IntId::SPURIOUS.get();
const V: u64 = 1 << 63;
/// VMOVI changes the doorbell.
const D: u64 = 1;
const TABLE: u64 = 0x000f_ffff_ffff_0000;

/// A command for virtual LPIs. DISCARD, INT, CLEAR and INV have no virtual form: the
/// [physical commands](super::Command) also operate on an event that is mapped to a vPE.
///
/// ```
/// use gic_arch::its::{VirtualCommand, VpeId};
/// use msi_types::{DeviceId, EventId};
///
/// let (device, event, vpe) = (DeviceId::new(0x12), EventId::new(9), VpeId::new(3));
/// let command = VirtualCommand::Vmapti { device, event, vpe, intid: 8200, doorbell: None };
/// assert_eq!(command.encode()[0], 0x12_0000_002a);
/// assert_eq!(VirtualCommand::decode(command.encode()), Ok(command));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VirtualCommand {
    /// Assigns a pending table and a redistributor to a vPE, or unmaps the vPE.
    Vmapp {
        /// vPE to map or unmap.
        vpe: VpeId,
        /// Redistributor that delivers the vPE's interrupts.
        target: RdBase,
        /// Physical address of the pending table, which must be 64 KiB-aligned and below 2^52.
        pending_table: u64,
        /// Number of virtual INTID bits, minus one: 0 to 31.
        id_bits_minus_one: u8,
        /// Action to perform.
        action: MapAction,
    },
    /// Maps an event to a virtual LPI of a vPE.
    Vmapti {
        /// Device that sends the event.
        device: DeviceId,
        /// The device's event.
        event: EventId,
        /// vPE that takes the virtual LPI.
        vpe: VpeId,
        /// Virtual INTID to which the event is mapped.
        intid: u32,
        /// Physical LPI that becomes pending if the vPE is not resident.
        doorbell: Option<u32>,
    },
    /// Moves an event, and its pending state, to another vPE.
    Vmovi {
        /// Device that sends the event.
        device: DeviceId,
        /// The device's event.
        event: EventId,
        /// vPE to which the event is moved.
        vpe: VpeId,
        /// Doorbell from now on: a physical LPI, or 1023 for none. `None` keeps the doorbell.
        doorbell: Option<u32>,
    },
    /// Moves a vPE to another redistributor.
    Vmovp {
        /// vPE to move.
        vpe: VpeId,
        /// Redistributor that delivers the vPE's interrupts from now on.
        target: RdBase,
        /// ITSes that execute the same command, as a bitmap of `GITS_CTLR.ITS_Number`; ignored if
        /// `GITS_TYPER.VMOVP` is 1.
        its_list: u16,
        /// Number by which these ITSes recognize the command; ignored if `GITS_TYPER.VMOVP` is 1.
        sequence: u16,
    },
    /// Completes when earlier commands for this vPE have taken effect.
    Vsync {
        /// vPE to wait for.
        vpe: VpeId,
    },
    /// Makes the redistributor reload the configuration of all virtual LPIs of a vPE from memory.
    Vinvall {
        /// vPE whose LPIs are affected.
        vpe: VpeId,
    },
}

impl VirtualCommand {
    /// Decodes a command. Every 256-bit pattern is accepted if its opcode is known; RES0 bits are
    /// ignored.
    ///
    /// # Errors
    /// The opcode is not that of a command for virtual LPIs.
    pub const fn decode(raw: RawCommand) -> Result<Self, UnknownOpcode> {
        let [w0, w1, w2, w3] = raw;
        let device = DeviceId::new(high(w0));
        let event = EventId::new(low(w1));
        let vpe = VpeId::from_word(w1);
        let [opcode, ..] = w0.to_le_bytes();
        Ok(match opcode {
            VMAPP => Self::Vmapp {
                vpe,
                target: RdBase::from_field(w2 >> 16),
                pending_table: w3 & TABLE,
                id_bits_minus_one: w3.to_le_bytes()[0] & 0x1f,
                action: if w2 & V != 0 { MapAction::Map } else { MapAction::Unmap },
            },
            VMAPTI => {
                let doorbell = if high(w2) == NO_DOORBELL { None } else { Some(high(w2)) };
                Self::Vmapti { device, event, vpe, intid: low(w2), doorbell }
            }
            VMOVI => {
                let doorbell = if w2 & D != 0 { Some(high(w2)) } else { None };
                Self::Vmovi { device, event, vpe, doorbell }
            }
            VMOVP => {
                let [list_low, list_high, ..] = w1.to_le_bytes();
                Self::Vmovp {
                    vpe,
                    target: RdBase::from_field(w2 >> 16),
                    its_list: u16::from_le_bytes([list_low, list_high]),
                    sequence: VpeId::from_word(w0).get(),
                }
            }
            VSYNC => Self::Vsync { vpe },
            VINVALL => Self::Vinvall { vpe },
            _ => return Err(UnknownOpcode(opcode)),
        })
    }

    /// Encodes a command. Operands that exceed the width of their fields (see the variants) lose
    /// their upper bits.
    pub const fn encode(self) -> RawCommand {
        const fn of(opcode: u8, device: DeviceId) -> u64 {
            opcode as u64 | (device.get() as u64) << 32
        }
        const fn to(event: EventId, vpe: VpeId) -> u64 {
            event.get() as u64 | vpe.word()
        }
        match self {
            Self::Vmapp { vpe, target, pending_table, id_bits_minus_one, action } => {
                let valid = match action {
                    MapAction::Map => V,
                    MapAction::Unmap => 0,
                };
                let table = pending_table & TABLE | (id_bits_minus_one & 0x1f) as u64;
                [VMAPP as u64, vpe.word(), valid | target.field() << 16, table]
            }
            Self::Vmapti { device, event, vpe, intid, doorbell } => {
                let doorbell = match doorbell {
                    Some(doorbell) => doorbell,
                    None => NO_DOORBELL,
                };
                let intids = intid as u64 | (doorbell as u64) << 32;
                [of(VMAPTI, device), to(event, vpe), intids, 0]
            }
            Self::Vmovi { device, event, vpe, doorbell } => {
                let changed = match doorbell {
                    Some(doorbell) => (doorbell as u64) << 32 | D,
                    None => 0,
                };
                [of(VMOVI, device), to(event, vpe), changed, 0]
            }
            Self::Vmovp { vpe, target, its_list, sequence } => {
                let first = VMOVP as u64 | (sequence as u64) << 32;
                [first, its_list as u64 | vpe.word(), target.field() << 16, 0]
            }
            Self::Vsync { vpe } => [VSYNC as u64, vpe.word(), 0, 0],
            Self::Vinvall { vpe } => [VINVALL as u64, vpe.word(), 0, 0],
        }
    }
}
