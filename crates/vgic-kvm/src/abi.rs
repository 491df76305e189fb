//! The device attributes by which Linux's KVM shows its GICv3 and ITS to a monitor
//! (`Documentation/virt/kvm/devices/arm-vgic-v3.rst`, `arm-vgic-its.rst`): groups, encodings, error
//! numbers.

mod entries;

pub use entries::{CollectionEntry, DeviceEntry, TranslationEntry};

use alloc::collections::TryReserveError;
use bitfield_struct::bitfield;
use gic_arch::Affinity;
use gic_arch::icc::SysRegEncoding;

/// A device attribute, of the GICv3 or of an ITS; its value is at most 64 bits wide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Attribute {
    /// Address of a frame: a value of [`frame`].
    Address(u64),
    /// A distributor register, 32 bits; of wider ones, the half at this offset.
    Distributor {
        /// Bytes from the frame's base.
        offset: u32,
    },
    /// Number of INTIDs below 1024, the private ones included. 32 bits.
    InterruptCount,
    /// A command: a value of [`control`].
    Control(u64),
    /// A redistributor register, 32 bits; of wider ones, the half at this offset.
    Redistributor {
        /// vCPU of the redistributor.
        cpu: Affinity,
        /// Bytes from RD_base.
        offset: u32,
    },
    /// A CPU interface register, 64 bits.
    SystemRegister {
        /// vCPU of the CPU interface.
        cpu: Affinity,
        /// System register.
        register: SysRegEncoding,
    },
    /// Information on 32 wired interrupts, 32 bits.
    Levels {
        /// vCPU, if the interrupts are private.
        cpu: Affinity,
        /// Requested information: [`LINE_LEVEL`] alone is defined.
        info: u32,
        /// INTID of the first: a multiple of 32, below 1024.
        first: u16,
    },
    /// An ITS register, always 64 bits.
    Its {
        /// Bytes from the control frame's base.
        offset: u64,
    },
    /// INTID of the PPI by which the virtual interface asks for maintenance, for guests that are
    /// hypervisors, 32 bits. From Linux 6.16 on.
    MaintenanceInterrupt,
}

/// The group does not exist on a GICv3 or ITS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a GICv3 and an ITS have no attribute group {0}")]
pub struct UnknownGroup(pub u32);

/// [`Attribute::Levels`]: are the lines high?
pub const LINE_LEVEL: u32 = 0;

/// Values of [`Attribute::Address`].
pub mod frame {
    /// The distributor.
    pub const DISTRIBUTOR: u64 = 2;
    /// All redistributors, consecutively.
    pub const REDISTRIBUTORS: u64 = 3;
    /// An ITS.
    pub const ITS: u64 = 4;
    /// One of several regions of redistributors: a
    /// [`RedistributorRegion`](super::RedistributorRegion).
    pub const REDISTRIBUTOR_REGION: u64 = 5;

    /// Address of a frame that was not given one.
    pub const NOWHERE: u64 = u64::MAX;
}

/// The value of [`frame::REDISTRIBUTOR_REGION`]: where consecutive redistributors lie, for how many
/// there is room.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RedistributorRegion {
    /// Number of the region, from 0 on without a gap. Who reads the attribute says it here.
    #[bits(12)]
    pub index: u16,
    /// Zero.
    #[bits(4)]
    pub flags: u8,
    /// Bits 51:16 of the first one's address.
    #[bits(36)]
    pub base_51_16: u64,
    /// For how many; not zero.
    #[bits(12)]
    pub count: u16,
}

impl RedistributorRegion {
    /// Guest physical address of the first redistributor.
    pub const fn base(self) -> u64 {
        self.base_51_16() << 16
    }

    /// With the first redistributor at `base`; bits 15:0 and 63:52 are dropped.
    pub const fn with_base(self, base: u64) -> Self {
        self.with_base_51_16((base >> 16) & 0xf_ffff_ffff)
    }
}

/// Values of [`Attribute::Control`].
pub mod control {
    /// Both devices: no more vCPUs, no more addresses.
    pub const INIT: u64 = 0;
    /// ITS: write its tables to guest memory.
    pub const ITS_SAVE_TABLES: u64 = 1;
    /// ITS: read its tables from guest memory.
    pub const ITS_RESTORE_TABLES: u64 = 2;
    /// GICv3: write the LPIs' pending bits to guest memory.
    pub const SAVE_PENDING_TABLES: u64 = 3;
    /// ITS: as after creation.
    pub const ITS_RESET: u64 = 4;
}

/// Numbers of the groups.
mod group {
    pub(super) const ADDRESS: u32 = 0;
    pub(super) const DISTRIBUTOR: u32 = 1;
    pub(super) const INTERRUPT_COUNT: u32 = 3;
    pub(super) const CONTROL: u32 = 4;
    pub(super) const REDISTRIBUTOR: u32 = 5;
    pub(super) const SYSTEM_REGISTER: u32 = 6;
    pub(super) const LEVELS: u32 = 7;
    pub(super) const ITS: u32 = 8;
    pub(super) const MAINTENANCE_INTERRUPT: u32 = 9;
}

impl Attribute {
    /// From the group and attribute numbers. Bits that the group does not use are ignored, as KVM
    /// does.
    ///
    /// # Errors
    /// [`UnknownGroup`] if neither device has it.
    pub const fn decode(group: u32, attribute: u64) -> Result<Self, UnknownGroup> {
        let low = low_half(attribute);
        let cpu = Affinity::from_packed(low_half(attribute >> 32));
        Ok(match group {
            group::ADDRESS => Self::Address(attribute),
            group::DISTRIBUTOR => Self::Distributor { offset: low },
            group::INTERRUPT_COUNT => Self::InterruptCount,
            group::CONTROL => Self::Control(attribute),
            group::REDISTRIBUTOR => Self::Redistributor { cpu, offset: low },
            group::SYSTEM_REGISTER => {
                let [low, high, ..] = low.to_le_bytes();
                let register = SysRegEncoding::from_packed(u16::from_le_bytes([low, high]));
                Self::SystemRegister { cpu, register }
            }
            group::LEVELS => {
                let [first, above, ..] = (low & FIRST_MASK).to_le_bytes();
                Self::Levels {
                    cpu,
                    info: low >> INFO_SHIFT,
                    first: u16::from_le_bytes([first, above]),
                }
            }
            group::ITS => Self::Its { offset: attribute },
            group::MAINTENANCE_INTERRUPT => Self::MaintenanceInterrupt,
            _ => return Err(UnknownGroup(group)),
        })
    }

    /// The group's number.
    pub const fn group(self) -> u32 {
        match self {
            Self::Address(_) => group::ADDRESS,
            Self::Distributor { .. } => group::DISTRIBUTOR,
            Self::InterruptCount => group::INTERRUPT_COUNT,
            Self::Control(_) => group::CONTROL,
            Self::Redistributor { .. } => group::REDISTRIBUTOR,
            Self::SystemRegister { .. } => group::SYSTEM_REGISTER,
            Self::Levels { .. } => group::LEVELS,
            Self::Its { .. } => group::ITS,
            Self::MaintenanceInterrupt => group::MAINTENANCE_INTERRUPT,
        }
    }

    /// The attribute's number in its group. Of [`Levels`](Self::Levels), what is above its field is
    /// dropped.
    pub const fn number(self) -> u64 {
        match self {
            Self::Address(number) | Self::Control(number) | Self::Its { offset: number } => number,
            Self::Distributor { offset } => offset as u64,
            Self::InterruptCount | Self::MaintenanceInterrupt => 0,
            Self::Redistributor { cpu, offset } => of(cpu) | offset as u64,
            Self::SystemRegister { cpu, register } => of(cpu) | register.packed() as u64,
            Self::Levels { cpu, info, first } => {
                of(cpu) | ((info << INFO_SHIFT) | (first as u32 & FIRST_MASK)) as u64
            }
        }
    }

    /// Width of the value in bytes, as KVM reads and writes it; commands have none.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Control(_) => 0,
            Self::Distributor { .. }
            | Self::InterruptCount
            | Self::MaintenanceInterrupt
            | Self::Redistributor { .. }
            | Self::Levels { .. } => 4,
            Self::Address(_) | Self::SystemRegister { .. } | Self::Its { .. } => 8,
        }
    }
}

const FIRST_MASK: u32 = 0x3ff;
const INFO_SHIFT: u32 = 10;

const fn of(cpu: Affinity) -> u64 {
    (cpu.packed() as u64) << 32
}

const fn low_half(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Linux's error numbers that accesses to attributes of these devices return.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Errno {
    /// `ENOENT`: no such region.
    #[error("no such region (ENOENT)")]
    NoEntry,
    /// `ENXIO`: no such register, or the device has no address yet.
    #[error("no such register, or the device has no address yet (ENXIO)")]
    NoRegister,
    /// `E2BIG`: beyond the guest's address space.
    #[error("beyond the guest's address space (E2BIG)")]
    TooBig,
    /// `ENOMEM`.
    #[error("no memory left (ENOMEM)")]
    NoMemory,
    /// `EACCES`: held in hardware.
    #[error("held in hardware (EACCES)")]
    NoAccess,
    /// `EFAULT`: guest memory cannot be read or written there.
    #[error("guest memory cannot be read or written there (EFAULT)")]
    Fault,
    /// `EBUSY`: not in this state, or a vCPU runs.
    #[error("not in this state, or a vCPU runs (EBUSY)")]
    Busy,
    /// `EEXIST`: set already, or twice in a table.
    #[error("set already, or twice in a table (EEXIST)")]
    Exists,
    /// `ENODEV`: not of this device.
    #[error("not an attribute of this device (ENODEV)")]
    NoDevice,
    /// `EINVAL`: the value cannot be.
    #[error("the value cannot be (EINVAL)")]
    Invalid,
}

impl Errno {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NoEntry,
        Self::NoRegister,
        Self::TooBig,
        Self::NoMemory,
        Self::NoAccess,
        Self::Fault,
        Self::Busy,
        Self::Exists,
        Self::NoDevice,
        Self::Invalid,
    ];

    /// Linux's number, positive.
    pub const fn number(self) -> i32 {
        match self {
            Self::NoEntry => 2,
            Self::NoRegister => 6,
            Self::TooBig => 7,
            Self::NoMemory => 12,
            Self::NoAccess => 13,
            Self::Fault => 14,
            Self::Busy => 16,
            Self::Exists => 17,
            Self::NoDevice => 19,
            Self::Invalid => 22,
        }
    }

    /// From Linux's number; `None` for one that these devices do not give.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|errno| errno.number() == number)
    }
}

impl From<TryReserveError> for Errno {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}
