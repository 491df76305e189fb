//! Out-of-memory tests: calls must fail, and succeed when retried with enough memory.

use super::*;
use doorbell_test_support::{outside, until_it_succeeds, with_allocations};

/// Removes LPIs, because failing to allocate their tables is not an error for the GIC as a whole.
fn without_lpis(fake: &Board) {
    fake.at_distributor(|frame| frame.typer.set_lpis(false));
}

#[test]
fn a_gic_without_heap_is_refused() {
    let fake = Board::with_cpus(CPUS);
    without_lpis(&fake);
    fake.at_redistributor(1, |frame| frame.iidr = 0x0201_743b);
    let platform = Arc::new(fake.clone());
    let machine =
        vec![String::from("mediatek,broken-save-restore-fw"), String::from("rockchip,rk3588")];
    let (gic, failures) = until_it_succeeds(
        || Gic::new(platform.clone(), outside(|| config().with_machine(machine.clone()))),
        |error| assert!(matches!(error, GicError::NoMemory(_)), "{error}"),
    );
    assert_eq!((failures, gic.errata().count()), (2, 2), "allocations of CPUs and errata");
    let registers = FakeRegisters::default();
    with_allocations(0, || gic.distributor().interrupt(IntId::new(40)).unwrap().enable());
    assert_eq!(gic.cpu_on(cpu(0), &registers), Ok(None));
}

#[test]
fn discovery_without_heap_for_errata_cpus_or_lpis_is_refused() {
    let fake = Board::with_cpus(CPUS);
    fake.at_distributor(|frame| frame.iidr = 0x0402_043b);
    let (gic, failures) = until_it_succeeds(
        || {
            let gic = Gic::new(outside(|| Arc::new(fake.clone())), outside(config))?;
            gic.lpis().map(drop)?;
            Ok(gic)
        },
        |error: GicError| assert!(error.to_string().contains("out of memory"), "{error}"),
    );
    assert_eq!(
        (failures, gic.errata().count()),
        (4, 1),
        "allocations of errata, CPUs, LPIs and pending tables"
    );
    assert!(gic.cpu_on(cpu(0), &FakeRegisters::default()).unwrap().is_some());
}

#[test]
fn a_suspend_without_heap_changes_nothing() {
    let (fake, gic, registers) = running();
    gic.unmask(hwirq(40));
    let (room, failures) = until_it_succeeds(
        || gic.suspend_room(),
        |error| {
            assert!(matches!(error, GicError::NoMemory(_)), "{error}");
            assert!(gic.is_on(cpu(0)));
        },
    );
    assert_eq!(failures, 2, "allocations of shared interrupts and of the rest");
    assert!(fake.at_distributor(|frame| frame.control.enable_grp1()));
    let saved = with_allocations(0, || gic.suspend(room, cpu(0), &registers[0])).unwrap();
    assert!(!gic.is_on(cpu(0)));
    with_allocations(0, || gic.resume(&saved, &registers[0])).unwrap();
    assert!(fake.at_distributor(|frame| frame.spis.state(IntId::new(40)).enabled));
}
