//! Explanations in each security view.

use super::*;
use gic_arch::gicd;
use gic_driver::{MmioExt, SecurityView};
use msi_types::explain::{Group, Obstacle};

/// Non-secure accesses read groups as zero, and see another layout of `GICD_CTLR`.
#[test]
fn a_pending_spi_passes_in_every_view() {
    for (security, view) in [
        (Security::Single, SecurityView::Single),
        (Security::Secure, SecurityView::Secure),
        (Security::NonSecure, SecurityView::NonSecure),
    ] {
        let redistributors = (0..CPUS).map(|cpu| FakeRedistributor::new(cpu, cpu + 1 == CPUS));
        let fake = Board::with(FakeDistributor::new(security), redistributors.collect());
        let gic = discovered(&fake).unwrap();
        assert_eq!(gic.distributor().view(), view);
        gic.cpu_on(cpu(0), &FakeRegisters::default()).unwrap();
        gic.claim(hwirq(40), count(1)).unwrap();
        gic.set_target(hwirq(40), cpu(0)).unwrap();
        gic.unmask(hwirq(40));
        gic.set_pending(hwirq(40), Pending::Set);
        assert_eq!(gic.explain(hwirq(40)).obstacle(), None, "{view:?}");
        gic.distributor().stop(&fake).unwrap();
        let ctlr = gic.distributor().mmio().read(gicd::CTLR).into();
        let withheld = Obstacle::GroupDisabled { group: Group::One, ctlr };
        assert_eq!(gic.explain(hwirq(40)).obstacle(), Some(withheld), "{view:?}");
    }
}
