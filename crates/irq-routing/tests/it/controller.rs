//! Interrupt controller that records the inputs it accepts and rejects messages to other doorbells.

use irq_routing::Inputs;
use msi_types::{Delivery, DeviceId, Level, Line, MsiMessage, NoIdentity, SetLine, SignalMsi};
use std::sync::{Arc, Mutex};

/// Input that the controller received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// A level on a line.
    Line(Line, Level),
    /// An edge on a line.
    Pulse(Line),
    /// A message to the ITS.
    Event(DeviceId, u32),
    /// A message to the doorbell that ignores the DeviceID.
    Rung(u32),
}

/// Controller with an ITS, a GICv2m frame and lines.
#[derive(Debug, Default)]
pub(crate) struct Controller(Mutex<Vec<Heard>>);

impl Controller {
    pub(crate) const ITS: u64 = 0x0809_0040;
    pub(crate) const FRAME: u64 = 0x0802_0040;

    pub(crate) fn inputs(self: &Arc<Self>) -> Inputs {
        Inputs::new(self.clone()).with_its(self.clone()).with_doorbells(self.clone())
    }

    /// Returns the inputs that were received since the last call.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn hear(&self, heard: Heard) -> Delivery {
        self.0.lock().unwrap().push(heard);
        Delivery::Pending
    }
}

impl SetLine for Controller {
    fn set_line(&self, line: Line, level: Level) -> Delivery {
        self.hear(Heard::Line(line, level))
    }

    fn pulse(&self, line: Line) -> Delivery {
        self.hear(Heard::Pulse(line))
    }
}

impl SignalMsi<DeviceId> for Controller {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        if message.address != Self::ITS {
            return Delivery::NoDoorbell;
        }
        self.hear(Heard::Event(from, message.data))
    }
}

impl SignalMsi<NoIdentity> for Controller {
    fn signal_msi(&self, _: NoIdentity, message: MsiMessage) -> Delivery {
        if message.address != Self::FRAME {
            return Delivery::NoDoorbell;
        }
        self.hear(Heard::Rung(message.data))
    }
}
