//! RAM, at the address stated by firmware if possible, otherwise at a chosen address.

use super::{AddressPlan, Refusal};
use gic_firmware::{Description, Region};

/// Minimum amount of memory for the drivers' tables and the devices' mailboxes.
const ENOUGH: u64 = 64 << 20;
/// Size of the RAM that the machine adds if firmware states less than the minimum. (Boot loaders
/// often fill in the memory node.)
const INVENTED: u64 = 1 << 30;
/// Maximum size of a bank. A larger bank would only cost page tables.
const MOST: u64 = 1 << 38;

pub(super) fn plan(
    description: &Description,
    space: &mut AddressPlan,
) -> Result<Vec<Region>, Refusal> {
    let mut regions = Vec::new();
    for stated in &description.memory {
        let Some(region) = Region::new(stated.base(), stated.size().min(MOST)) else { continue };
        if space.try_claim("RAM", region) {
            regions.push(region);
        } else {
            space.note(format!(
                "{} is omitted: it overlaps a device ({})",
                stated.value, stated.origin
            ));
        }
    }
    if regions.iter().map(|region| region.size()).sum::<u64>() < ENOUGH {
        let region = space.invent("RAM", "RAM", INVENTED)?;
        space.note(format!("the description has no usable RAM: 1 GiB was placed at {region}"));
        regions.push(region);
    }
    Ok(regions)
}
