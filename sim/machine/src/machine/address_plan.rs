//! The machine's address space during planning: regions placed by firmware, and regions invented in
//! the gaps between them.

use super::Refusal;
use doorbell_hardware::bus::{AddressMap, Overlap};
use gic_firmware::Region;

/// Invented regions lie above the addresses where boards have registers, and below those that
/// exceed the address bits of boards.
const FROM: u64 = 1 << 32;
const BELOW: u64 = 1 << 48;
/// Alignment of invented regions, which also separates them.
const ALIGN: u64 = 1 << 20;

/// Claimed addresses, and the notes about them.
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

    /// Claims a region at the address that firmware states, unless it overlaps a claimed one.
    /// Returns `true` on success.
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
