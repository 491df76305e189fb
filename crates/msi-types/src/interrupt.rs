//! Interrupts (their messages, trigger modes and pending states), and the interfaces between device
//! models, interrupt controller models and the virtual machine monitor: messages and line changes
//! in one direction, results and notifications in the other.

use crate::Cpu;

/// A message-signaled interrupt: a write of `data` to `address`.
///
/// ```
/// use msi_types::MsiMessage;
///
/// let message = MsiMessage { address: 0x1_0809_0040, data: 9 };
/// assert_eq!((message.address_high(), message.address_low()), (1, 0x0809_0040));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct MsiMessage {
    /// Bus address of the doorbell: a physical address, or an I/O virtual address if an IOMMU
    /// translates it.
    pub address: u64,
    /// The written value. PCI MSI only sends its lower 16 bits (32 with extended data), and MSI-X
    /// sends all 32.
    pub data: u32,
}

/// The pair of messages behind a level-triggered interrupt: a device asserts it with one and
/// deasserts it with the other. Such an interrupt requires a store that holds both messages, e.g.
/// in a platform device. A PCI vector has only one message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LevelMessages {
    /// The message that asserts the interrupt, which then stays pending until it is deasserted.
    pub assert: MsiMessage,
    /// The message that deasserts the interrupt.
    pub deassert: MsiMessage,
}

impl MsiMessage {
    /// Returns the upper 32 bits of the address, as capability registers store them.
    pub const fn address_high(self) -> u32 {
        (self.address >> 32) as u32
    }

    /// Returns the lower 32 bits of the address, as capability registers store them.
    pub const fn address_low(self) -> u32 {
        (self.address & 0xffff_ffff) as u32
    }
}

/// Trigger mode of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trigger {
    /// Triggered by a rising edge or a message: pending until acknowledged.
    Edge,
    /// Triggered by a high level: pending while the source asserts it.
    Level,
}

/// Operation on the pending state of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pending {
    /// Make the interrupt pending, as the device's own message would.
    Set,
    /// Clear the pending state.
    Clear,
}

/// Result of a message, as `KVM_SIGNAL_MSI` reports it.
#[doc(alias = "kvm_set_irq")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Delivery {
    /// The interrupt is pending. If it was already pending, the message is merged with the earlier
    /// one.
    Pending,
    /// A controller accepted the message but dropped it, because its interrupt is unmapped,
    /// disabled or out of range.
    Blocked,
    /// No controller receives messages at that address.
    NoDoorbell,
}

/// Accepts messages from senders that are identified by an `Id` at this point of the path: a
/// [`RequesterId`](crate::RequesterId) on the bus, a [`DeviceId`](crate::DeviceId) at the ITS,
/// [`NoIdentity`](crate::NoIdentity) at doorbells that ignore the sender. Each layer performs one
/// translation; layers can be stacked.
///
/// Implementations must not take a lock or allocate, and must not make a system call unless they
/// have to wake a target.
#[doc(alias = "KVM_SIGNAL_MSI")]
pub trait SignalMsi<Id>: Send + Sync {
    /// Sends `message` on behalf of `from`.
    ///
    /// Context: any.
    fn signal_msi(&self, from: Id, message: MsiMessage) -> Delivery;
}

/// A wired input of a GIC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Line {
    /// A shared peripheral interrupt, by INTID (32–1019, 4096–5119).
    Spi(u32),
    /// A private peripheral interrupt of one CPU, by INTID (16–31, 1056–1119): timers, PMU,
    /// maintenance.
    Ppi {
        /// The CPU that owns the line.
        cpu: Cpu,
        /// The interrupt.
        intid: u32,
    },
}

/// The electrical state of a line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Level {
    /// Not asserted.
    Low,
    /// Asserted.
    High,
}

/// Accepts level changes of wired inputs.
pub trait SetLine: Send + Sync {
    /// Drives `line` to `level`.
    ///
    /// Context: any.
    fn set_line(&self, line: Line, level: Level) -> Delivery;

    /// Sends one edge on `line` as a single operation. An edge-triggered interrupt becomes pending
    /// regardless of the line's level, and even if pulses are concurrent. The line's level does not
    /// change, so a pulse does not affect a level-sensitive interrupt: it would end before the
    /// interrupt could be acknowledged.
    ///
    /// Context: any.
    fn pulse(&self, line: Line) -> Delivery;
}

/// Notifies the virtual machine monitor that a vCPU must wake or leave the guest. Closures
/// implement this trait:
///
/// ```
/// use msi_types::{Cpu, Kick};
///
/// let threads = [std::thread::current()];
/// let kick = move |cpu: Cpu| threads[cpu.index()].unpark();
/// kick.kick(Cpu::new(0));
/// ```
#[doc(alias = "kvm_vcpu_kick")]
pub trait Kick: Send + Sync {
    /// Wakes `cpu`, or makes it leave the guest. Called from any thread, without locks held. Called
    /// only once each time the CPU goes to sleep, even if several messages arrive.
    fn kick(&self, cpu: Cpu);
}

impl<F: Fn(Cpu) + Send + Sync> Kick for F {
    fn kick(&self, cpu: Cpu) {
        self(cpu);
    }
}

/// Observes when a guest deactivates the interrupt of a line, so that a level-triggered source can
/// be resampled.
pub trait LineObserver: Send + Sync {
    /// Called when the guest has deactivated the interrupt of `line`.
    fn deactivated(&self, line: Line);
}
