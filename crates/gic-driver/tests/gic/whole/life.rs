//! Tests for discovery and CPU hotplug.
//!
//! Out-of-memory tests: calls must fail, and succeed when retried with enough memory.

use super::*;
use doorbell_test_support::{outside, until_it_succeeds, with_allocations};

#[test]
fn cpu_on_enables_sgis_lpis_and_interface() {
    let (fake, gic, registers) = running();
    for (index, registers) in registers.iter().enumerate() {
        fake.at_redistributor(index, |frame| {
            assert!(
                frame.bank.states()[..16]
                    .iter()
                    .all(|state| state.enabled && state.priority == 0xa0)
            );
            assert!(frame.lpis_enabled());
        });
        assert_eq!(registers.get(icc::IGRPEN1.encoding()), 1);
    }
    assert!(gic.cpus().all(|cpu| gic.is_on(cpu)));
}

#[test]
fn a_redistributor_reports_its_address_and_number() {
    let gic = discovered(&Board::with_cpus(CPUS)).unwrap();
    let found = gic.redistributor_frames(cpu(2)).unwrap();
    let names = (found.address(), found.processor_number());
    assert_eq!(names, (REDISTRIBUTOR + 2 * STRIDE_V3, 102));
    assert!(gic.redistributor_frames(cpu(3)).is_err());
}

#[test]
fn cpu_on_names_a_missing_redistributor() {
    let fake = Board::with_cpus(1);
    let gic = discovered(&fake).unwrap();
    let refused = gic.cpu_on(cpu(1), &FakeRegisters::default());
    assert_eq!(refused, Err(GicError::NoRedistributor(Affinity::new(0, 0, 0, 1))));
    assert_eq!(gic.cpu_on(cpu(9), &FakeRegisters::default()), Err(GicError::UnknownCpu(cpu(9))));
}

/// Checks that, as in Linux, redistributors found before an invalid frame are kept.
#[test]
fn a_bad_region_costs_only_its_own_cpus() {
    let fake = Board::with_cpus(CPUS);
    fake.at_redistributor(1, |frame| frame.typer = frame.typer.with_last(true));
    fake.at_redistributor(2, |frame| frame.pidr2 = 0);
    let region = |first: u64, frames: u64| {
        let base = REDISTRIBUTOR + first * STRIDE_V3;
        RedistributorRegion::new(PhysicalRegion { base, bytes: frames * STRIDE_V3 })
    };
    let regions = vec![region(2, 1), region(0, 2)];
    let gic = Gic::new(Arc::new(fake.clone()), config().with_redistributors(regions)).unwrap();
    let block = Block::Redistributor(REDISTRIBUTOR + 2 * STRIDE_V3);
    assert!(
        matches!(gic.bad_regions(), [GicError::WrongRevision { block: at, .. }] if *at == block)
    );
    assert!(gic.cpu_on(cpu(1), &FakeRegisters::default()).is_ok());
    let refused = gic.cpu_on(cpu(2), &FakeRegisters::default());
    assert_eq!(refused, Err(GicError::NoRedistributor(Affinity::new(0, 0, 0, 2))));
}

#[test]
fn a_region_may_be_longer_than_its_redistributors() {
    let fake = Board::with_cpus(CPUS);
    fake.at_redistributor(2, |frame| frame.typer = frame.typer.with_last(false));
    let bytes = u64::from(CPUS) * STRIDE_V3 + 0x1_0000;
    let region = RedistributorRegion::new(PhysicalRegion { base: REDISTRIBUTOR, bytes });
    let config = config().with_redistributors(vec![region]);
    let gic = Gic::new(Arc::new(fake.clone()), config).unwrap();
    assert!(matches!(gic.bad_regions(), [GicError::RegionTruncated { .. }]));
    assert!(gic.cpu_on(cpu(2), &FakeRegisters::default()).is_ok());
}

#[test]
fn a_gic_without_any_redistributor_is_refused() {
    let fake = Board::with_cpus(1);
    fake.at_redistributor(0, |frame| frame.pidr2 = 0);
    let refused = Gic::new(Arc::new(fake), config()).unwrap_err();
    assert!(matches!(refused, GicError::WrongRevision { .. }), "{refused}");
}

#[test]
fn lpis_stay_disabled_at_a_cpu_beyond_the_configuration() {
    let fake = Board::with_cpus(CPUS);
    let config = config().with_cpus(config().cpus()[..1].to_vec());
    let gic = Gic::new(Arc::new(fake.clone()), config).unwrap();
    gic.cpu_on(cpu(0), &FakeRegisters::default()).unwrap();
    assert!(gic.cpu_on(cpu(1), &FakeRegisters::default()).is_err());
    assert!(!fake.at_redistributor(1, |frame| frame.lpis_enabled()));
}

#[test]
fn the_error_names_a_distributor_that_cannot_be_mapped() {
    let fake = Board::with_cpus(1);
    fake.world().unmapped.insert(DISTRIBUTOR);
    let refused = Gic::new(Arc::new(fake), config()).unwrap_err();
    assert_eq!(refused, GicError::NotMapped(Block::Distributor(DISTRIBUTOR)));
}

#[test]
fn older_gic_is_refused_before_any_access() {
    let config = config().with_distributor_bytes(Some(0x1000));
    let refused = Gic::new(Arc::new(Board::with_cpus(CPUS)), config.clone()).unwrap_err();
    assert_eq!(
        refused,
        GicError::FrameTooSmall { block: Block::Distributor(DISTRIBUTOR), bytes: 0x1000 }
    );
    let config = config.with_distributor_bytes(Some(0x1_0000));
    assert!(Gic::new(Arc::new(Board::with_cpus(CPUS)), config).is_ok());
}

#[test]
fn wired_interrupts_work_where_lpis_are_refused() {
    let fake = Board::with_cpus(CPUS);
    fake.at_redistributor(1, |frame| {
        frame.leave_enabled(0x4000_0000, 0x4100_0000, std::iter::empty());
    });
    let gic = discovered(&fake).unwrap();
    assert!(matches!(gic.lpis().unwrap_err(), LpiError::AlreadyEnabled { .. }));
    assert_eq!(gic.cpu_on(cpu(0), &FakeRegisters::default()), Ok(None));
    assert_eq!(gic.claim(hwirq(40), count(1)), Ok(()));
}

#[test]
fn machine_name_overrides_claimed_coherence() {
    for (name, expected) in
        [("rockchip,rk3588", Coherence::NonCoherent), ("other", Coherence::Coherent)]
    {
        let fake = Board::with_cpus(1);
        fake.at_redistributor(0, |frame| frame.iidr = 0x0201_743b);
        let config = config().with_machine(vec![name.into()]);
        let gic = Gic::new(Arc::new(fake), config).unwrap();
        gic.cpu_on(cpu(0), &FakeRegisters::default()).unwrap();
        assert_eq!(gic.lpis().unwrap().coherence(), expected);
    }
}

#[test]
fn lpi_tables_respect_32_address_bits() {
    for (name, expected) in [("rockchip,rk3566", 0), ("other", 2)] {
        let fake = Board::with_cpus(1);
        fake.at_redistributor(0, |frame| frame.iidr = 0x0201_743b);
        let config = config().with_machine(vec![name.into()]);
        let gic = Gic::new(Arc::new(fake.clone()), config).unwrap();
        gic.cpu_on(cpu(0), &FakeRegisters::default()).unwrap();
        let tables = fake.in_memory(|memory| (memory.live_regions(), memory.regions_from(1 << 32)));
        assert_eq!(tables, (2, expected), "{name}");
    }
}

#[test]
fn cpu_off_and_cpu_on_restore_a_cpu() {
    let (fake, gic, registers) = running();
    gic.cpu_off(cpu(1), &registers[1]).unwrap();
    assert!(!gic.is_on(cpu(1)) && fake.at_redistributor(1, |frame| frame.power.sleep));
    assert_eq!(registers[1].get(icc::IGRPEN1.encoding()), 0);
    let attached = gic.cpu_on(cpu(1), &registers[1]).unwrap().unwrap();
    assert_eq!(attached.pending, PendingLpis::Kept);
    assert!(gic.is_on(cpu(1)));
}

#[test]
fn missing_system_registers_leave_the_cpu_off() {
    let gic = discovered(&Board::with_cpus(CPUS)).unwrap();
    let refused = gic.cpu_on(cpu(0), &FakeRegisters::without_system_registers());
    assert_eq!(refused, Err(GicError::NoSystemRegisters));
    assert!(!gic.is_on(cpu(0)));
}

#[test]
fn split_eoi_separates_end_of_interrupt_from_deactivation() {
    let gic = discovered(&Board::with_cpus(CPUS)).unwrap();
    let registers = FakeRegisters::default();
    gic.cpu_on_with::<_, SplitEoi>(cpu(0), &registers).unwrap();
    registers.raise(40);
    let interface = gic.cpu_interface_with::<_, SplitEoi>(&registers);
    let active = interface.end(interface.acknowledge().unwrap());
    assert_eq!((registers.running(), registers.deactivated()), (vec![], vec![]));
    interface.deactivate(active);
    assert_eq!(registers.deactivated(), [40]);
}

#[test]
fn sgi_targets_are_limited_by_the_distributors_range_selector() {
    let (_, gic, registers) = running();
    // The CPU interface has a range selector, but the distributor does not.
    let sent =
        gic.cpu_interface(&registers[0]).send(SgiId::new(1).unwrap(), Affinity::new(0, 0, 0, 16));
    assert!(matches!(sent, Err(GicError::SgiOutOfReach(..))));
}

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
