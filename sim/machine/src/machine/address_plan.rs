//! The machine's address space while it is planned: what firmware places, and what has to be
//! invented in the gaps.

use super::Refusal;
use doorbell_hardware::bus::{AddressMap, Overlap};
use gic_firmware::Region;

/// Invented regions lie above what boards use for registers, and below what they use no address
/// bits for.
const FROM: u64 = 1 << 32;
const BELOW: u64 = 1 << 48;
/// Alignment of invented regions, which keeps them apart.
const ALIGN: u64 = 1 << 20;

/// Claimed addresses, and what there is to say about them.
#[derive(Default)]
pub(super) struct AddressPlan {
    map: AddressMap,
    pub(super) notes: Vec<String>,
}

impl AddressPlan {
    /// Takes a region where firmware has it.
    pub(super) fn claim(&mut self, name: &str, region: Region) -> Result<(), Overlap> {
        self.map.claim(name, region)
    }

    /// Takes a region where firmware has it, if nobody has any of it.
    pub(super) fn try_claim(&mut self, name: &str, region: Region) -> bool {
        self.map.claim(name, region).is_ok()
    }

    /// Takes unused addresses.
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
