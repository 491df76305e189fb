//! Events on the path of a message, from the device's write to the end of its interrupt.
//!
//! Controller models do not report events, so that tracing adds nothing to the injection path.
//! Instead, a monitor reports events at the interfaces that it connects. [`Observed`] wraps
//! `SignalMsi` or `Kick` and reports the calls; the monitor reports all other events itself. A
//! monitor that does not trace does not wrap its interfaces, and pays nothing.
//!
//! | event | where the monitor sees it |
//! |---|---|
//! | [`Sent`](Event::Sent) | [`SignalMsi<RequesterId>`](SignalMsi), at the bus |
//! | [`Translated`](Event::Translated), [`Pending`](Event::Pending), [`Dropped`](Event::Dropped) | [`SignalMsi<DeviceId>`](SignalMsi), at the controller |
//! | [`Kicked`](Event::Kicked) | [`Kick`] |
//! | [`Listed`](Event::Listed) | the hypervisor's list registers, before it enters the guest |
//! | [`Taken`](Event::Taken), [`Ended`](Event::Ended) | the CPU interface, where a vCPU acknowledges and ends an interrupt |
//! | [`Command`](Event::Command) | a write to `GITS_CWRITER` |
//! | [`Moved`](Event::Moved) | the interrupt core, or [`MsiParent::end_move`](crate::MsiParent::end_move) |
//!
//! # Example
//!
//! A monitor that prints the messages at its ITS and the kicks of vCPUs:
//!
//! ```
//! use msi_types::trace::{Event, Observed, Observer};
//! use msi_types::{Cpu, Delivery, DeviceId, Kick, MsiMessage, SignalMsi};
//! use std::sync::Arc;
//!
//! struct Printer;
//! impl Observer for Printer {
//!     fn observe(&self, event: Event) {
//!         println!("{event}");
//!     }
//! }
//!
//! # struct Its;
//! # impl SignalMsi<DeviceId> for Its {
//! #     fn signal_msi(&self, _: DeviceId, _: MsiMessage) -> Delivery {
//! #         Delivery::Pending
//! #     }
//! # }
//! # let its: Arc<dyn SignalMsi<DeviceId>> = Arc::new(Its);
//! # let wake: Arc<dyn Kick> = Arc::new(|_: Cpu| ());
//! // `wake` is the monitor's own `Kick`. The monitor passes `kick` to the model.
//! let kick = Observed::new(wake, Arc::new(Printer));
//! kick.kick(Cpu::new(1)); // CPU 1 is kicked
//!
//! // `its` is the model's ITS. The monitor passes `doorbell` to the devices.
//! let doorbell = Observed::new(its, Arc::new(Printer));
//! let message = MsiMessage { address: 0x0809_0040, data: 9 };
//! // DeviceID 0x12 writes 0x9 to 0x8090040
//! // DeviceID 0x12's message 0x9 is pending
//! assert_eq!(doorbell.signal_msi(DeviceId::new(0x12), message), Delivery::Pending);
//! ```

use crate::{Cpu, Delivery, DeviceId, HwIrq, Kick, MsiMessage, RequesterId, SignalMsi};
use core::fmt;
use core::ops::Deref;

/// An event on the path of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A device writes a message to the bus.
    Sent {
        /// The device, as its bus identifies it.
        from: RequesterId,
        /// The message.
        message: MsiMessage,
    },
    /// The bus has translated the device's requester ID, and the message reaches a controller.
    Translated {
        /// The device, as the controller identifies it.
        device: DeviceId,
        /// The message.
        message: MsiMessage,
    },
    /// The message's interrupt is pending. If the interrupt was already pending, a single
    /// acknowledgment covers both messages.
    Pending {
        /// The device.
        device: DeviceId,
        /// The message.
        message: MsiMessage,
    },
    /// The message did not make an interrupt pending.
    Dropped {
        /// The device.
        device: DeviceId,
        /// The message.
        message: MsiMessage,
        /// The reason: [`Delivery::Blocked`] or [`Delivery::NoDoorbell`].
        delivery: Delivery,
    },
    /// A CPU is woken, or made to leave its guest, because an interrupt is pending.
    Kicked {
        /// The CPU.
        cpu: Cpu,
    },
    /// A list register presents an interrupt to the guest on a CPU. The guest acknowledges and ends
    /// the interrupt without an exit, so the hypervisor sees both only after the next one.
    Listed {
        /// The guest's CPU.
        cpu: Cpu,
        /// The interrupt.
        hwirq: HwIrq,
    },
    /// A CPU has acknowledged an interrupt.
    Taken {
        /// The CPU.
        cpu: Cpu,
        /// The interrupt.
        hwirq: HwIrq,
    },
    /// A CPU has signaled the end of an interrupt.
    Ended {
        /// The CPU.
        cpu: Cpu,
        /// The interrupt.
        hwirq: HwIrq,
    },
    /// Software has passed a command to an ITS.
    Command {
        /// Address of the ITS's registers.
        its: u64,
        /// The command, encoded as in the queue.
        words: [u64; 4],
    },
    /// An interrupt has a new target.
    Moved {
        /// The interrupt.
        hwirq: HwIrq,
        /// The new target.
        to: Cpu,
    },
}

/// Formats the event as a clause, with an ITS command as its four words.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { from, message } => {
                write!(f, "requester {from} writes {:#x} to {:#x}", message.data, message.address)
            }
            Self::Translated { device, message } => {
                write!(f, "DeviceID {device} writes {:#x} to {:#x}", message.data, message.address)
            }
            Self::Pending { device, message } => {
                write!(f, "DeviceID {device}'s message {:#x} is pending", message.data)
            }
            Self::Dropped { device, message, delivery } => {
                let reason = if *delivery == Delivery::NoDoorbell {
                    "no controller receives messages at that address"
                } else {
                    "the controller dropped it"
                };
                write!(f, "DeviceID {device}'s message {:#x} is lost: {reason}", message.data)
            }
            Self::Kicked { cpu } => write!(f, "CPU {cpu} is kicked"),
            Self::Listed { cpu, hwirq } => {
                write!(f, "interrupt {hwirq} is in a list register of CPU {cpu}")
            }
            Self::Taken { cpu, hwirq } => write!(f, "CPU {cpu} takes interrupt {hwirq}"),
            Self::Ended { cpu, hwirq } => write!(f, "CPU {cpu} ends interrupt {hwirq}"),
            Self::Command { its, words: [w0, w1, w2, w3] } => {
                write!(f, "the ITS at {its:#x} receives {w0:#x} {w1:#x} {w2:#x} {w3:#x}")
            }
            Self::Moved { hwirq, to } => write!(f, "interrupt {hwirq} moves to CPU {to}"),
        }
    }
}

/// Receives the events of a machine.
pub trait Observer: Send + Sync {
    /// Records an event. Called by the thread that causes the event, possibly by several threads
    /// concurrently. The injection path reports `Sent`, `Translated`, `Pending`, `Dropped` and
    /// `Kicked`, so implementations must not block and must not send messages.
    ///
    /// Context: any.
    fn observe(&self, event: Event);
}

/// An interface whose calls are reported to an observer. `T` and `O` are references or other
/// pointers, such as `Arc`.
#[derive(Clone, Copy, Debug)]
pub struct Observed<T, O> {
    seam: T,
    observer: O,
}

impl<T, O> Observed<T, O> {
    /// Creates a wrapper of `seam` that reports its calls to `observer`.
    pub const fn new(seam: T, observer: O) -> Self {
        Self { seam, observer }
    }
}

impl<T, O> SignalMsi<RequesterId> for Observed<T, O>
where
    T: Deref<Target: SignalMsi<RequesterId>> + Send + Sync,
    O: Deref<Target: Observer> + Send + Sync,
{
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        self.observer.observe(Event::Sent { from, message });
        self.seam.signal_msi(from, message)
    }
}

impl<T, O> SignalMsi<DeviceId> for Observed<T, O>
where
    T: Deref<Target: SignalMsi<DeviceId>> + Send + Sync,
    O: Deref<Target: Observer> + Send + Sync,
{
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        self.observer.observe(Event::Translated { device: from, message });
        let delivery = self.seam.signal_msi(from, message);
        self.observer.observe(match delivery {
            Delivery::Pending => Event::Pending { device: from, message },
            Delivery::Blocked | Delivery::NoDoorbell => {
                Event::Dropped { device: from, message, delivery }
            }
        });
        delivery
    }
}

impl<T, O> Kick for Observed<T, O>
where
    T: Deref<Target: Kick> + Send + Sync,
    O: Deref<Target: Observer> + Send + Sync,
{
    fn kick(&self, cpu: Cpu) {
        self.observer.observe(Event::Kicked { cpu });
        self.seam.kick(cpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::{String, ToString};
    use std::sync::Mutex;
    use std::vec::Vec;

    const MESSAGE: MsiMessage = MsiMessage { address: 0x0809_0040, data: 9 };

    #[derive(Default)]
    struct Log(Mutex<Vec<Event>>);

    impl Observer for Log {
        fn observe(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }

    impl Log {
        fn take(&self) -> Vec<Event> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    /// A receiver that returns this delivery, after checking that exactly one event has been
    /// reported.
    struct Answer<'a>(Delivery, &'a Log);

    impl<Id> SignalMsi<Id> for Answer<'_> {
        fn signal_msi(&self, _: Id, message: MsiMessage) -> Delivery {
            assert_eq!((message, self.1.0.lock().unwrap().len()), (MESSAGE, 1));
            self.0
        }
    }

    #[test]
    fn the_outcome_of_a_message_is_reported_after_its_translation() {
        let (log, device) = (Log::default(), DeviceId::new(0x12));
        for delivery in [Delivery::Pending, Delivery::Blocked, Delivery::NoDoorbell] {
            let answer = Answer(delivery, &log);
            let observed = Observed::new(&answer, &log);
            assert_eq!(observed.signal_msi(device, MESSAGE), delivery);
            let outcome = match delivery {
                Delivery::Pending => Event::Pending { device, message: MESSAGE },
                _ => Event::Dropped { device, message: MESSAGE, delivery },
            };
            assert_eq!(log.take(), [Event::Translated { device, message: MESSAGE }, outcome]);
        }
    }

    #[test]
    fn a_sent_message_is_reported_with_its_requester_id() {
        let (log, from) = (Log::default(), RequesterId::pci(1, 2, 3));
        let answer = Answer(Delivery::Blocked, &log);
        assert_eq!(Observed::new(&answer, &log).signal_msi(from, MESSAGE), Delivery::Blocked);
        assert_eq!(log.take(), [Event::Sent { from, message: MESSAGE }]);
    }

    #[test]
    fn a_kick_is_reported_and_passed_on() {
        let (log, kicked) = (Log::default(), Mutex::new(Vec::new()));
        let kick = |cpu: Cpu| kicked.lock().unwrap().push(cpu);
        Observed::new(&kick, &log).kick(Cpu::new(3));
        assert_eq!(log.take(), [Event::Kicked { cpu: Cpu::new(3) }]);
        assert_eq!(*kicked.lock().unwrap(), [Cpu::new(3)]);
    }

    #[test]
    fn a_dropped_message_states_the_reason() {
        let lost = |delivery| -> String {
            Event::Dropped { device: DeviceId::new(1), message: MESSAGE, delivery }.to_string()
        };
        assert_eq!(
            lost(Delivery::NoDoorbell),
            "DeviceID 0x1's message 0x9 is lost: no controller receives messages at that address"
        );
        assert!(lost(Delivery::Blocked).ends_with("the controller dropped it"));
    }
}
