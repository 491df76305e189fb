//! The fuzzer's input, which is arbitrary but often valid enough to pass the first checks.

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use vgic::VgicConfig;
use vgic_kvm::abi::{Attribute, RedistributorRegion, frame};
use vgic_kvm::{KvmDevice, at_revision, kvm_config, kvm_its_config};

use crate::damage::Damage;
use crate::memory::layout;

/// Configuration of a machine that KVM can create.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub struct KvmShape {
    pub(super) cpus: u8,
    pub(super) interrupts: u8,
    pub(super) its: u8,
    pub(super) is_old: bool,
}

impl KvmShape {
    /// Returns the configuration: one to four vCPUs and at most three ITSes, because larger
    /// machines take too long to create.
    pub fn config(self) -> VgicConfig {
        // The ITS may be below or above the redistributors, which start at 0x080a_0000.
        let bases = [0x0808_0000, 0x0900_0000, 0x0902_0000];
        let its = bases.into_iter().take(usize::from(self.its % 4)).map(kvm_its_config).collect();
        let interrupts = 64 + 32 * u32::from(self.interrupts % 31);
        let config = kvm_config(1 + u16::from(self.cpus % 4), interrupts).with_its(its);
        let revision = if self.is_old { 2 } else { 3 };
        let iidr = config.iidr.with_revision(revision);
        at_revision(config, iidr).expect("KVM has both revisions")
    }
}

/// An action of the VMM.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Act {
    /// Assigns an address to every table.
    Boot,
    /// Writes `word` to an entry of a table in the guest's memory.
    Word { place: TableAddress, index: u8, word: Word },
    /// Accesses an attribute.
    Access(Access),
    /// Damages the saved state's bytes, and reads the state through KVM's attributes if it is still
    /// valid.
    Damage(Damage),
    /// Saves everything, and loads it into a fresh machine.
    Save,
    /// Restores the machine from the attributes.
    Restore,
}

/// An access to an attribute.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Access {
    /// `KVM_SET_DEVICE_ATTR`.
    Set(Named, Value),
    /// `KVM_GET_DEVICE_ATTR`.
    Get(Named),
    /// `KVM_HAS_DEVICE_ATTR`.
    Has(Named),
    /// Reads a region of redistributors.
    Region(u8),
}

/// A device.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Device {
    /// The GICv3.
    Gic,
    /// An ITS.
    Its(u8),
}

impl Device {
    /// Returns the device as a type of the model.
    fn named(self) -> KvmDevice {
        match self {
            Self::Gic => KvmDevice::Gic,
            Self::Its(index) => KvmDevice::Its((index % 4).into()),
        }
    }
}

/// A device's attribute.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Named {
    /// An attribute that a save lists.
    Saved(u16),
    /// A command or an address, which no save lists.
    Unsaved { device: Device, number: u8 },
    /// An attribute with an arbitrary group and number. The upper half of a number names a vCPU.
    Raw { device: Device, group: u8, high: u8, low: u32 },
}

impl Named {
    /// Returns the attribute as a type of the model, if it is valid.
    pub fn decode(self, saved: &[(KvmDevice, Attribute)]) -> Option<(KvmDevice, Attribute)> {
        let (device, group, high, low) = match self {
            Self::Saved(index) => return saved.get(usize::from(index) % saved.len()).copied(),
            Self::Unsaved { device, number } => {
                let attribute = match number % 14 {
                    command @ 0..6 => Attribute::Control(command.into()),
                    address => Attribute::Address(u64::from(address) - 6),
                };
                return Some((device.named(), attribute));
            }
            Self::Raw { device, group, high, low } => (device.named(), group, high, low),
        };
        let number = u64::from(high % 5) << 32 | u64::from(low);
        Some((device, Attribute::decode((group % 12).into(), number).ok()?))
    }
}

/// The value of an attribute.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Value {
    /// An arbitrary value.
    Raw(u64),
    /// A small value.
    Small(u16),
    /// An address for a frame.
    Frame(u8),
    /// A region of redistributors.
    Region { index: u8, place: u8, count: u8 },
    /// A register of a table: its address, and the other fields.
    Table { place: TableAddress, above: u16, below: u16 },
}

impl Value {
    /// Returns the value that is written.
    pub fn bits(self) -> u64 {
        let base = |place: u8| 0x0800_0000 + u64::from(place % 64) * 0x1_0000;
        match self {
            Self::Raw(value) => value,
            Self::Small(value) => value.into(),
            Self::Frame(u8::MAX) => frame::NOWHERE,
            Self::Frame(place) => base(place),
            Self::Region { index, place, count } => RedistributorRegion::new()
                .with_index((index % 4).into())
                .with_base(base(place))
                .with_count((count % 8).into())
                .into_bits(),
            Self::Table { place, above, below } => {
                u64::from(above) << 48 | place.address() | u64::from(below & 0xfff)
            }
        }
    }
}

/// An address in the guest's memory.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum TableAddress {
    /// The device table.
    Devices,
    /// The collection table.
    Collections,
    /// A device's events, or a page of the second level.
    Translations(u8),
    /// The bits for LPIs in a pending table.
    Pending(u8),
    /// The end of memory.
    End,
}

impl TableAddress {
    /// Returns the address.
    pub const fn address(self) -> u64 {
        match self {
            Self::Devices => layout::table(0),
            Self::Collections => layout::table(1),
            Self::Translations(number) => layout::translation_table((number % 8) as u64),
            Self::Pending(cpu) => layout::pending((cpu % 4) as u64) + 0x400,
            Self::End => layout::END - 0x1_0000,
        }
    }
}

/// An entry of a table.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Word {
    /// An arbitrary value.
    Raw(u64),
    /// An entry for a device.
    Device { events: TableAddress, bits: u8, next: u8 },
    /// An entry for an event.
    Event { lpi: u8, collection: u8, next: u8 },
    /// An entry for a collection.
    Collection { collection: u8, cpu: u8 },
    /// An entry for a page of the second level.
    Page(TableAddress),
}

impl Word {
    /// Returns the value in memory.
    pub fn bits(self) -> u64 {
        let valid = 1 << 63;
        match self {
            Self::Raw(word) => word,
            Self::Device { events, bits, next } => {
                valid | u64::from(next) << 49 | events.address() >> 8 << 5 | u64::from(bits % 18)
            }
            Self::Event { lpi, collection, next } => {
                u64::from(next) << 48 | (8190 + u64::from(lpi)) << 16 | u64::from(collection % 8)
            }
            Self::Collection { collection, cpu } => {
                valid | u64::from(cpu % 5) << 16 | u64::from(collection % 8)
            }
            Self::Page(place) => valid | place.address(),
        }
    }
}
