//! Device attributes that Linux's KVM uses to expose its GICv3 and ITS to a VMM
//! (`Documentation/virt/kvm/devices/arm-vgic-v3.rst`, `arm-vgic-its.rst`): groups, encodings and
//! error numbers.

mod entries;

pub use entries::{CollectionEntry, DeviceEntry, TranslationEntry};

use alloc::collections::TryReserveError;
use bitfield_struct::bitfield;
use gic_arch::Affinity;
use gic_arch::icc::SysRegEncoding;

/// A GICv3 or ITS device attribute, with a value of at most 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Attribute {
    /// Address of a register frame, which is selected by a constant in [`frame`].
    Address(u64),
    /// A 32-bit distributor register, or one half of a wider register.
    Distributor {
        /// Offset in bytes from the frame's base.
        offset: u32,
    },
    /// Number of INTIDs below 1024, including private interrupts; a 32-bit value.
    InterruptCount,
    /// A command, which is selected by a constant in [`control`].
    Control(u64),
    /// A 32-bit redistributor register, or one half of a wider register.
    Redistributor {
        /// Affinity of the redistributor's vCPU.
        cpu: Affinity,
        /// Offset in bytes from RD_base.
        offset: u32,
    },
    /// A CPU interface register, accessed as a 64-bit value.
    SystemRegister {
        /// Affinity of the CPU interface's vCPU.
        cpu: Affinity,
        /// Encoding of the system register.
        register: SysRegEncoding,
    },
    /// Information on 32 wired interrupts, with one bit for each interrupt.
    Levels {
        /// Affinity of the vCPU, if the interrupts are private.
        cpu: Affinity,
        /// Requested information. Only [`LINE_LEVEL`] is defined.
        info: u32,
        /// INTID of the first interrupt: a multiple of 32, below 1024.
        first: u16,
    },
    /// An ITS register, always accessed as a 64-bit value.
    Its {
        /// Offset in bytes from the control frame's base.
        offset: u64,
    },
    /// INTID of the PPI that the virtual interface uses for maintenance interrupts, for guests that
    /// are hypervisors. 32 bits. Available since Linux 6.16.
    MaintenanceInterrupt,
}

/// Error for an attribute group that neither the GICv3 nor an ITS has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a GICv3 and an ITS have no attribute group {0}")]
pub struct UnknownGroup(pub u32);

/// Value of `info` in [`Attribute::Levels`] that selects the levels of the lines.
pub const LINE_LEVEL: u32 = 0;

/// Values of [`Attribute::Address`].
pub mod frame {
    /// The distributor.
    pub const DISTRIBUTOR: u64 = 2;
    /// All redistributors, consecutively.
    pub const REDISTRIBUTORS: u64 = 3;
    /// An ITS.
    pub const ITS: u64 = 4;
    /// One of several redistributor regions: a [`RedistributorRegion`](super::RedistributorRegion).
    pub const REDISTRIBUTOR_REGION: u64 = 5;

    /// Address of a frame that hasn't been placed yet.
    pub const NOWHERE: u64 = u64::MAX;
}

/// Value of [`frame::REDISTRIBUTOR_REGION`]: address and size of a region of consecutive
/// redistributors.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RedistributorRegion {
    /// Number of the region, starting at 0 without gaps. To read the attribute, pass the number in
    /// this field.
    #[bits(12)]
    pub index: u16,
    /// Must be zero.
    #[bits(4)]
    pub flags: u8,
    /// Bits 51:16 of the first redistributor's address.
    #[bits(36)]
    pub base_51_16: u64,
    /// Number of redistributors in the region; must not be zero.
    #[bits(12)]
    pub count: u16,
}

impl RedistributorRegion {
    /// Returns the guest physical address of the first redistributor.
    pub const fn base(self) -> u64 {
        self.base_51_16() << 16
    }

    /// Sets the address of the first redistributor. Bits 15:0 and 63:52 of `base` are dropped.
    pub const fn with_base(self, base: u64) -> Self {
        self.with_base_51_16((base >> 16) & 0xf_ffff_ffff)
    }
}

/// Values of [`Attribute::Control`].
pub mod control {
    /// Completes the initialization of a GICv3 or an ITS. No vCPUs or addresses can be added
    /// afterwards.
    pub const INIT: u64 = 0;
    /// Writes the tables of an ITS to guest memory.
    pub const ITS_SAVE_TABLES: u64 = 1;
    /// Reads the tables of an ITS from guest memory.
    pub const ITS_RESTORE_TABLES: u64 = 2;
    /// Writes the pending bits of all LPIs of a GICv3 to guest memory.
    pub const SAVE_PENDING_TABLES: u64 = 3;
    /// Resets an ITS to its state after creation.
    pub const ITS_RESET: u64 = 4;
}

/// Attribute group numbers.
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
    /// Decodes group and attribute numbers. Bits that the group does not use are ignored, as KVM
    /// does.
    ///
    /// # Errors
    /// [`UnknownGroup`] if neither device has the group.
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

    /// Returns the group's number.
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

    /// Returns the attribute's number in its group. Drops bits in [`Levels`](Self::Levels) that
    /// don't fit in their field.
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

    /// Returns the width in bytes that KVM uses to read and write the value. Commands don't have a
    /// value.
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

/// Error numbers that Linux returns for attribute accesses on these devices.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Errno {
    /// `ENOENT`: the region does not exist.
    #[error("the region does not exist (ENOENT)")]
    NoEntry,
    /// `ENXIO`: the register does not exist, or the device has no address yet.
    #[error("the register does not exist, or the device has no address yet (ENXIO)")]
    NoRegister,
    /// `E2BIG`: an address is beyond the guest's address space.
    #[error("beyond the guest's address space (E2BIG)")]
    TooBig,
    /// `ENOMEM`: memory is exhausted.
    #[error("no memory left (ENOMEM)")]
    NoMemory,
    /// `EACCES`: KVM can't access the state because it is held in hardware.
    #[error("the state is held in hardware (EACCES)")]
    NoAccess,
    /// `EFAULT`: guest memory cannot be read or written at this address.
    #[error("guest memory cannot be read or written (EFAULT)")]
    Fault,
    /// `EBUSY`: the attribute cannot change in this state, or a vCPU is running.
    #[error("the attribute cannot change in this state, or a vCPU is running (EBUSY)")]
    Busy,
    /// `EEXIST`: the attribute is already set, or an entry occurs twice in a table.
    #[error("already set, or an entry occurs twice in a table (EEXIST)")]
    Exists,
    /// `ENODEV`: this device does not have the attribute.
    #[error("this device does not have the attribute (ENODEV)")]
    NoDevice,
    /// `EINVAL`: the value is invalid.
    #[error("the value is invalid (EINVAL)")]
    Invalid,
}

impl Errno {
    /// All error numbers.
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

    /// Returns the error with Linux's number, or `None` if these devices do not return it.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|errno| errno.number() == number)
    }

    /// Returns Linux's error number as a positive value.
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
}

impl From<TryReserveError> for Errno {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}
