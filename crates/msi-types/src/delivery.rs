//! The interfaces between device models, interrupt controller models and the monitor: messages and
//! lines one way, results and notifications the other.

use crate::{Cpu, MsiMessage};

/// Result of a message: one of the three answers of `KVM_SIGNAL_MSI`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Delivery {
    /// The interrupt is pending now: newly, or it already was (a pending bit holds one message).
    Pending,
    /// A controller took the message and dropped it: not mapped, disabled, out of range.
    Blocked,
    /// No controller listens at that address.
    NoDoorbell,
}

/// Takes messages from senders known as `Id` at this point of the way. That is a
/// [`RequesterId`](crate::RequesterId) on the bus, a [`DeviceId`](crate::DeviceId) at the ITS,
/// [`NoIdentity`](crate::NoIdentity) at doorbells that do not ask. One translation per layer;
/// layers stack.
///
/// Implementations take no lock, allocate nothing and make no system call unless a target sleeps.
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
pub enum Level {
    /// Not asserted.
    Low,
    /// Asserted.
    High,
}

/// Takes line changes.
pub trait SetLine: Send + Sync {
    /// Drives `line` to `level`.
    ///
    /// Context: any.
    fn set_line(&self, line: Line, level: Level) -> Delivery;

    /// Sends one edge on `line`, as one operation: an edge-triggered interrupt becomes pending at
    /// any level of the line, and under concurrent pulses. The level of the line does not change. A
    /// level-sensitive interrupt is therefore unaffected: a pulse ends before the interrupt can be
    /// acknowledged.
    ///
    /// Context: any.
    fn pulse(&self, line: Line) -> Delivery;
}

/// Tells the virtual machine monitor that a CPU which sleeps or runs guest code has something to
/// do. A closure is one:
///
/// ```
/// use msi_types::{Cpu, Kick};
///
/// let threads = [std::thread::current()];
/// let kick = move |cpu: Cpu| threads[cpu.index()].unpark();
/// kick.kick(Cpu::new(0));
/// ```
pub trait Kick: Send + Sync {
    /// Wakes `cpu`, or makes it leave the guest. Called from any thread, without locks held; called
    /// once for one transition of the CPU to sleep, however many messages arrive.
    fn kick(&self, cpu: Cpu);
}

impl<F: Fn(Cpu) + Send + Sync> Kick for F {
    fn kick(&self, cpu: Cpu) {
        self(cpu);
    }
}

/// Hears when a guest finished with a line, to resample a level-triggered source.
pub trait LineObserver: Send + Sync {
    /// The guest deactivated `line`.
    fn deactivated(&self, line: Line);
}
