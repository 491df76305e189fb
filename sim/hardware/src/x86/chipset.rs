//! The target of device writes on an x86 machine: the local APICs, a remapping unit in front of
//! them, or RAM.

use super::interrupt_remapping::RemappingUnit;
use super::local_apics::{Arriving, LocalApicBank};
use crate::ram::Ram;
use msi_types::{Delivery, MsiMessage, RequesterId, SignalMsi};
use std::sync::Arc;
use vgic::GuestMemory as _;

/// A router for device writes. Writes to the MiB at 0xFEE00000 are messages, which reach the
/// remapping unit or, if the machine has none, the APICs. All other writes reach RAM.
pub struct Chipset {
    /// The local APICs.
    pub apics: Arc<LocalApicBank>,
    /// The remapping unit in front of the APICs, if the machine has one.
    pub remapping: Option<Arc<RemappingUnit>>,
    /// RAM, for writes that aren't messages.
    pub ram: Arc<Ram>,
}

/// Decodes a message in compatibility format (SDM vol. 3A §11.11). Returns `None` if the message
/// has the remappable format.
fn compatible(message: MsiMessage) -> Option<Arriving> {
    let MsiMessage { address, data } = message;
    let [vector, mode, ..] = data.to_le_bytes();
    (address >> 4 & 1 == 0).then(|| Arriving {
        destination: u32::try_from(address >> 12 & 0xff).unwrap_or(0),
        logical: address >> 2 & 1 != 0,
        delivery_mode: mode & 7,
        vector,
    })
}

impl SignalMsi<RequesterId> for Chipset {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        if message.address >> 20 != 0xfee {
            let _ = self.ram.write(message.address, &message.data.to_le_bytes());
            return Delivery::NoDoorbell;
        }
        let arriving = match &self.remapping {
            Some(unit) => unit.translate(from, message),
            None => compatible(message),
        };
        arriving.map_or(Delivery::Blocked, |arriving| self.apics.take(arriving))
    }
}

msi_types::debug_by!(Chipset as "Chipset", |it| {remapping: it.remapping});
