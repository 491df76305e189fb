//! Passes devices' messages to the vCPU that is loaded on the CPU that receives them, without an
//! exit.
//!
//! Each vector of a passed-through function is a physical LPI. Its handler signals the message to
//! the guest's GIC, which makes a virtual LPI pending and kicks the vCPU; the vCPU then moves the
//! virtual LPI into a list register. If the vCPU is in guest mode on this CPU, and the list
//! register can be written at once ([`InGuest::list_message`](vgic::InGuest::list_message)), the
//! message takes a shorter path, which skips the interrupt core and the guest's routes. The
//! vector's own state still decides whether the guest lets it send a message, and which one.

use alloc::sync::Arc;
use gic_arch::{IntId, Lpi};
use msi_types::{DeviceId, MsiMessage};
use spin::Once;

/// Number of physical LPIs that can have a vector here. Messages of the others take the ordinary
/// path.
const VECTORS: usize = 1 << 10;
/// Each vector with the number of the guest that it belongs to, by the physical LPI's index.
static ALL: [Once<(usize, Arc<dyn MessageVector>)>; VECTORS] = [const { Once::new() }; VECTORS];

/// A function's vector, whose message a physical LPI announces.
pub trait MessageVector: Send + Sync {
    /// Signals the vector's message to the guest's GIC, unless `delivers` returns `true` because it
    /// has delivered the message.
    fn signal(&self, delivers: &mut dyn FnMut(DeviceId, MsiMessage) -> bool);
}

/// Adds a vector of the guest with this number. Its messages must be meant for the guest's GIC as
/// they are, without translation.
pub fn add(physical: Lpi, guest: usize, vector: Arc<dyn MessageVector>) {
    if let Some(place) = ALL.get(physical.index() as usize) {
        place.call_once(|| (guest, vector));
    }
}

/// Returns the vector whose message an interrupt announces, if it belongs to this guest.
#[inline]
pub(crate) fn of(intid: IntId, guest: usize) -> Option<&'static dyn MessageVector> {
    let lpi = Lpi::try_from(intid).ok()?;
    let (owner, vector) = ALL.get(lpi.index() as usize)?.get()?;
    (*owner == guest).then_some(&**vector)
}
