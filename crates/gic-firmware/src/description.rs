//! A machine's interrupt wiring, as any firmware describes it.

use crate::controller::{Controller, ControllerIndex};
use crate::finding::Finding;
use crate::gic::{BROKEN_SAVE_RESTORE, Gic};
use crate::origin::{Fact, NodeId};
use crate::requester::{PciHost, PlatformDevice};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use gic_arch::Affinity;

/// A machine as far as its interrupts are concerned.
///
/// Addresses are CPU physical addresses. Nodes that firmware disables are listed too, with their
/// [`Status`]: whoever builds or drives the machine skips them, whoever judges the firmware wants to see them.
/// Lists are in the order of the input.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Description {
    /// The machine's model name, if it has one.
    pub model: Option<Fact<String>>,
    /// By which names firmware identifies the machine, the most specific first.
    pub compatible: Vec<String>,
    /// The CPUs.
    pub cpus: Vec<Cpu>,
    /// The root interrupt controller; `None` if none of this family is described.
    pub gic: Option<Gic>,
    /// Everything that takes messages, of whatever kind. [`ControllerIndex`] counts here.
    pub controllers: Vec<Controller>,
    /// PCI host bridges.
    pub hosts: Vec<PciHost>,
    /// Devices outside of PCI that name an MSI controller.
    pub devices: Vec<PlatformDevice>,
    /// RAM.
    pub memory: Vec<Fact<Region>>,
    /// Defects of the input, in the order in which they were met.
    pub findings: Vec<Finding>,
}

impl Description {
    /// The controller with this index; `None` if the index is another description's.
    pub fn controller(&self, index: ControllerIndex) -> Option<&Controller> {
        self.controllers.get(index.get())
    }

    /// All controllers with their indices.
    pub fn indexed_controllers(&self) -> impl Iterator<Item = (ControllerIndex, &Controller)> {
        self.controllers
            .iter()
            .enumerate()
            .map(|(index, controller)| (ControllerIndex::new(index), controller))
    }

    /// The names by which drivers know what the machine's GIC does otherwise than the architecture
    /// says: those of the machine, then those of the GIC and the quirks that its node states.
    pub fn quirk_names(&self) -> impl Iterator<Item = &str> {
        let of_gic = self.gic.iter().flat_map(|gic| {
            let property = gic.broken_save_restore.then_some(BROKEN_SAVE_RESTORE);
            gic.compatible.iter().map(String::as_str).chain(property)
        });
        self.compatible.iter().map(String::as_str).chain(of_gic)
    }

    /// The CPUs that firmware enables.
    pub fn enabled_cpus(&self) -> impl Iterator<Item = &Cpu> {
        self.cpus.iter().filter(|cpu| cpu.status.is_enabled())
    }
}

/// A CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Its node.
    pub id: NodeId,
    /// Its affinity, `MPIDR_EL1`'s.
    pub affinity: Fact<Affinity>,
    /// State that firmware gives it.
    pub status: Fact<Status>,
}

impl Cpu {
    /// An enabled CPU.
    pub fn new(id: impl Into<NodeId>, affinity: Affinity) -> Self {
        Self { id: id.into(), affinity: Fact::stated(affinity), status: Fact::stated(Status::Enabled) }
    }
}

/// Permission for an operating system to use a node. A disabled ancestor disables the node; the
/// fact's origin is the ancestor then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// Usable.
    Enabled,
    /// There, but not to be used.
    Disabled,
}

impl Status {
    /// Is it usable?
    pub const fn is_enabled(self) -> bool {
        matches!(self, Self::Enabled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        })
    }
}

/// Coherence of a controller's own memory accesses with the CPUs' caches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coherence {
    /// As the controller's registers say: shareability that reads back is honoured.
    ByRegister,
    /// Never, whatever the registers read back (`dma-noncoherent`, MADT flag *non-coherent*).
    NonCoherent,
}

/// A range of CPU physical addresses. Never wraps: `base + size` is at most 2^64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    base: u64,
    size: u64,
}

impl Region {
    /// `size` bytes from `base` on; `None` if they reach past the end of the address space.
    pub const fn new(base: u64, size: u64) -> Option<Self> {
        match base.checked_add(size.saturating_sub(1)) {
            Some(_) => Some(Self { base, size }),
            None => None,
        }
    }

    /// First byte.
    pub const fn base(self) -> u64 {
        self.base
    }

    /// Length in bytes.
    pub const fn size(self) -> u64 {
        self.size
    }

    /// The last byte; `None` for an empty region.
    pub const fn last(self) -> Option<u64> {
        match self.size {
            0 => None,
            size => Some(self.base + (size - 1)),
        }
    }

    /// Is this address inside?
    pub const fn contains(self, address: u64) -> bool {
        address >= self.base && address - self.base < self.size
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last() {
            Some(last) => write!(f, "{:#x}-{last:#x}", self.base),
            None => write!(f, "{:#x} (empty)", self.base),
        }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({self})")
    }
}
