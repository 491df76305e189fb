//! The cost of changing a route in small and large tables.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kvm;

use crate::measurements::FETCH_OR;
use crate::probe::{Fallible, MeasureError, Probe, each, named};
use irq_routing::{Change, GsiSpace, Inputs, Route, Router, Routing};
use msi_types::{Delivery, DeviceId, Gsi, Level, Line, MsiMessage, SetLine};
use std::sync::Arc;
use std::time::Instant;

const REPEATS: u32 = 4096;
const DOORBELL: u64 = 0x0809_0040;
const FEW: &str = "route-update-16";
/// Name of the cases in KVM.
pub(crate) const KVM: &str = "peer-kvm-route-update";

/// Returns probes that change one route in tables of two sizes.
pub(crate) fn probes() -> Result<Vec<Probe>, MeasureError> {
    let cases = [(FEW, FETCH_OR, 4), ("route-update-4096", FEW, 12)];
    cases.into_iter().map(|(name, of, bits)| named(name, update(name, of, bits))).collect()
}

/// A controller that ignores all lines, because the routes are changed but never used.
struct NoLines;

impl SetLine for NoLines {
    fn set_line(&self, _: Line, _: Level) -> Delivery {
        Delivery::Blocked
    }

    fn pulse(&self, _: Line) -> Delivery {
        Delivery::Blocked
    }
}

fn route(gsi: u32, round: u32) -> Route {
    Route::to_its(
        DeviceId::new(gsi / 32),
        MsiMessage { address: DOORBELL, data: gsi % 32 + 32 * (round % 2) },
    )
}

/// Changes the message of one route after the other, each in a separate commit, across a table of
/// 2^`bits` routes. The first pass isn't counted: it only warms the caches, which other cases have
/// used since the last sample.
fn update(name: &'static str, of: &'static str, bits: u32) -> Fallible<Probe> {
    let routes = 1 << bits;
    let space = GsiSpace::new(4096).with_first_allocated(0);
    let table = Router::new(space, Inputs::new(Arc::new(NoLines)))?;
    let full: Vec<_> = (0..routes).map(|gsi| (Gsi::new(gsi), route(gsi, 0))).collect();
    table.replace(&full)?;
    let mut at = 0u32;
    Ok(Probe::new(name, of, move || {
        let mut change_each = |changes| {
            let mut made = 0;
            for _ in 0..changes {
                // With an odd stride, each pass reaches every route in the table once.
                let (gsi, turn) = (at.wrapping_mul(1021) & (routes - 1), (at >> bits) + 1);
                let change = Change::Set(Gsi::new(gsi), route(gsi, turn));
                made += table.commit(&[change]).map_or(0, |changes| changes.made);
                at = at.wrapping_add(1);
            }
            made
        };
        change_each(routes);
        let start = Instant::now();
        let made = change_each(REPEATS);
        let time = each(start.elapsed(), REPEATS);
        if made == REPEATS {
            Ok(time)
        } else {
            Err(format!("{made} of {REPEATS} changes were made").into())
        }
    }))
}

/// Returns probes for the same change in KVM, which only accepts whole tables.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn kvm() -> Fallible<Vec<Probe>> {
    let cases = [("peer-kvm-route-update-16", 16), ("peer-kvm-route-update-4096", 4096)];
    cases.into_iter().map(|(name, routes)| kvm::update(name, routes)).collect()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) fn kvm() -> Fallible<Vec<Probe>> {
    Err("only for an x86 Linux host".into())
}
