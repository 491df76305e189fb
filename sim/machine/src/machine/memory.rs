//! RAM: what firmware says, where it can be used; else invented.

use super::{AddressPlan, Refusal};
use gic_firmware::{Description, Region};

/// Memory that the drivers' tables and the devices' mailboxes need in any case.
const ENOUGH: u64 = 64 << 20;
/// Size of invented RAM, if firmware states less: boot loaders often fill it in.
const INVENTED: u64 = 1 << 30;
/// Beyond this a bank brings nothing but page tables.
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
                "{} is left out: it overlaps a device ({})",
                stated.value, stated.origin
            ));
        }
    }
    if regions.iter().map(|region| region.size()).sum::<u64>() < ENOUGH {
        let region = space.invent("RAM", "RAM", INVENTED)?;
        space.note(format!("the description has no usable RAM: 1 GiB was put at {region}"));
        regions.push(region);
    }
    Ok(regions)
}
