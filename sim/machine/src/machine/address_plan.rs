//! The address space of a machine that is being planned. Firmware places some regions; the others
//! are placed in the gaps.

use super::Refusal;
use doorbell_hardware::bus::{AddressMap, Overlap};
use gic_firmware::Region;

/// Bounds on the regions that firmware does not place: above the addresses that boards use for
/// registers, and within the address bits that boards implement.
const FROM: u64 = 1 << 32;
const BELOW: u64 = 1 << 48;
/// Alignment of regions that firmware does not place. The alignment also keeps these regions apart.
const ALIGN: u64 = 1 << 20;

/// Claimed address ranges, and the notes to be reported.
#[derive(Default)]
pub(super) struct AddressPlan {
    map: AddressMap,
    pub(super) notes: Vec<String>,
}

impl AddressPlan {
    /// Claims a region at the address that firmware states.
    pub(super) fn claim(&mut self, name: &str, region: Region) -> Result<(), Overlap> {
        self.map.claim(name, region)
    }

    /// Claims a region at the address that firmware states, unless the region overlaps a claimed
    /// one. Returns `true` if the region was claimed.
    pub(super) fn try_claim(&mut self, name: &str, region: Region) -> bool {
        self.map.claim(name, region).is_ok()
    }

    /// Claims an unused range of addresses.
    pub(super) fn invent(
        &mut self,
        what: &'static str,
        name: &str,
        size: u64,
    ) -> Result<Region, Refusal> {
        let region = self.map.find_free(size, ALIGN, FROM, BELOW).ok_or(Refusal::NoRoom(what))?;
        self.map.claim(name, region)?;
        Ok(region)
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}
