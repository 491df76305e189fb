//! Tests for distributor and redistributor errata.

use super::*;
use gic_driver::SecurityView;
use gic_driver::errata::Erratum;

fn named(names: &[&str]) -> GicConfig {
    config().with_machine(names.iter().map(|name| (*name).into()).collect())
}

#[test]
fn a_waker_that_is_unusable_is_left_alone() {
    let fake = Board::with_cpus(0);
    for number in 0..CPUS {
        let mut frame = FakeRedistributor::new(number, number + 1 == CPUS).awake();
        frame.power.waker_broken = true;
        fake.world().redistributors.push(frame);
    }
    let gic = Gic::new(Arc::new(fake), named(&["qcom,msm8996-gic-v3", "arm,gic-v3"])).unwrap();
    let registers = FakeRegisters::default();
    gic.cpu_on(cpu(1), &registers).unwrap();
    gic.cpu_off(cpu(1), &registers).unwrap();
    gic.cpu_on(cpu(0), &registers).unwrap();
    let saved = gic.suspend(gic.suspend_room().unwrap(), cpu(0), &registers).unwrap();
    gic.resume(&saved, &registers).unwrap();
}

#[test]
fn extended_spis_that_an_erratum_makes_unusable_are_not_accessed() {
    for (iidr, there) in [(0x0204_043b, false), (0, false), (0x0202_043b, true)] {
        let fake = Board::with_cpus(CPUS);
        fake.at_distributor(|frame| frame.iidr = iidr);
        let gic = discovered(&fake).unwrap();
        assert_eq!(gic.claim(hwirq(4096), count(1)).is_ok(), there, "{iidr:#x}");
        assert_eq!(fake.at_distributor(|frame| frame.routes.contains_key(&0x8000)), there);
    }
}

#[test]
fn the_asr8601_erratum_shifts_affinities_down_one_level() {
    let fake = Board::with_cpus(CPUS);
    let cpus = (0..CPUS).map(|cpu| Affinity::new(0, 0, cpu, 0)).collect();
    let config = named(&["asr,asr8601-gic-v3", "arm,gic-v3"]).with_cpus(cpus);
    let gic = Gic::new(Arc::new(fake.clone()), config).unwrap();
    gic.cpu_on(cpu(2), &FakeRegisters::default()).unwrap();
    gic.set_target(hwirq(40), cpu(2)).unwrap();
    assert_eq!(gic.affinity(cpu(2)), Some(Affinity::new(0, 0, 0, 2)));
    assert_eq!(fake.at_distributor(|frame| frame.routes[&0x6140]), 2);
}

#[test]
fn the_rk3399_erratum_selects_the_single_security_state() {
    for (name, expected) in
        [("rockchip,rk3399", SecurityView::Single), ("other", SecurityView::Secure)]
    {
        let mut distributor = FakeDistributor::new(Security::Secure);
        // State in which firmware leaves the distributor for Non-secure software.
        distributor.control = distributor.control.with_are(true).with_are_ns(true);
        let fake = Board::with(distributor, vec![FakeRedistributor::new(0, true)]);
        let gic = Gic::new(Arc::new(fake.clone()), named(&[name])).unwrap();
        assert_eq!(gic.distributor().view(), expected, "{name}");
        let state = fake.at_distributor(|frame| *frame.spis.state(IntId::new(40)));
        let single = expected == SecurityView::Single;
        assert_eq!((state.group, state.group_modifier), (single, !single));
    }
}

#[test]
fn an_spi_routed_to_another_cpu_is_deactivated_at_the_distributor() {
    for (iidr, target, expected) in
        [(0x0400_043b, 1, false), (0x0400_043b, 0, true), (0x0403_043b, 1, true)]
    {
        let (fake, _, registers) = running();
        fake.at_distributor(|frame| frame.iidr = iidr);
        let gic = discovered(&fake).unwrap();
        for (cpu, registers) in gic.cpus().zip(&registers) {
            gic.cpu_on(cpu, registers).unwrap();
        }
        gic.set_target(hwirq(40), cpu(target)).unwrap();
        registers[0].raise(40);
        let interface = gic.cpu_interface(&registers[0]);
        let taken = interface.acknowledge().unwrap();
        fake.at_distributor(|frame| frame.spis.state(IntId::new(40)).active = true);
        gic.end(&interface, taken);
        let active = fake.at_distributor(|frame| frame.spis.state(IntId::new(40)).active);
        assert_eq!(
            (active, registers[0].deactivated()),
            (expected, vec![40]),
            "{iidr:#x} {target}"
        );
    }
}

#[test]
fn split_eoi_deactivates_a_rerouted_spi_at_the_distributor() {
    for (target, by_interface) in [(1, vec![]), (0, vec![40])] {
        let fake = Board::with_cpus(CPUS);
        fake.at_distributor(|frame| frame.iidr = 0x0402_043b);
        let gic = discovered(&fake).unwrap();
        let registers: Vec<_> = gic.cpus().map(|_| FakeRegisters::default()).collect();
        for (cpu, registers) in gic.cpus().zip(&registers) {
            gic.cpu_on_with::<_, SplitEoi>(cpu, registers).unwrap();
        }
        gic.set_target(hwirq(40), cpu(target)).unwrap();
        registers[0].raise(40);
        let interface = gic.cpu_interface_with::<_, SplitEoi>(&registers[0]);
        let taken = interface.acknowledge().unwrap();
        fake.at_distributor(|frame| frame.spis.state(IntId::new(40)).active = true);
        let active = gic.end(&interface, taken);
        assert!(fake.at_distributor(|frame| frame.spis.state(IntId::new(40)).active));
        gic.deactivate(&interface, active);
        assert_eq!(registers[0].deactivated(), by_interface);
        let active = fake.at_distributor(|frame| frame.spis.state(IntId::new(40)).active);
        assert_eq!(active, !by_interface.is_empty());
    }
}

/// Returns a GIC with one redistributor on each of `chips` chips.
fn of_chips(chips: u8) -> (Board, Gic<Board>) {
    let mut distributor = FakeDistributor::new(Security::Single);
    distributor.implement_all_spis();
    distributor.iidr = 0x0402_043b;
    distributor.stale_at_home = chips > 2;
    let at = |chip: u8| u64::from(chip) << 44;
    let redistributors = (0..chips)
        .map(|chip| {
            let mut frame = FakeRedistributor::new(chip, true);
            frame.base = REDISTRIBUTOR + at(chip);
            frame
        })
        .collect();
    let fake = Board::with(distributor, redistributors);
    let regions = (0..chips).map(|chip| {
        RedistributorRegion::new(PhysicalRegion {
            base: REDISTRIBUTOR + at(chip),
            bytes: STRIDE_V3,
        })
    });
    let cpus = (0..chips).map(|cpu| Affinity::new(0, 0, 0, cpu)).collect();
    let config = GicConfig::new(DISTRIBUTOR, regions.collect(), cpus)
        .with_machine(vec!["jep106:036b:0241".into()]);
    let gic = Gic::new(Arc::new(fake.clone()), config).unwrap();
    gic.cpu_on(cpu(0), &FakeRegisters::default()).unwrap();
    (fake, gic)
}

#[test]
fn spi_registers_are_read_at_the_owning_chip() {
    for chips in [2, 4] {
        let (fake, gic) = of_chips(chips);
        for intid in [40, 400, 700, 4100] {
            gic.claim(hwirq(intid), count(1)).unwrap();
            gic.set_trigger(hwirq(intid), Trigger::Edge).unwrap();
            gic.unmask(hwirq(intid));
            gic.set_target(hwirq(intid), cpu(0)).unwrap();
            assert!(!gic.is_pending(hwirq(intid)));
            gic.set_pending(hwirq(intid), Pending::Set);
            assert!(gic.is_pending(hwirq(intid)));
        }
        let registers = FakeRegisters::default();
        gic.cpu_on(cpu(0), &registers).unwrap();
        let saved = gic.suspend(gic.suspend_room().unwrap(), cpu(0), &registers).unwrap();
        gic.resume(&saved, &registers).unwrap();
        fake.at_distributor(|frame| {
            assert!(!frame.spis.state(IntId::new(399)).enabled);
            assert!(frame.spis.state(IntId::new(400)).enabled);
        });
    }
}

#[test]
fn an_erratum_left_to_the_kernel_is_reported() {
    let fake = Board::with_cpus(CPUS);
    let gic = Gic::new(Arc::new(fake), named(&["mediatek,broken-save-restore-fw"])).unwrap();
    let found: Vec<_> = gic.errata().map(|entry| entry.erratum).collect();
    assert_eq!(found, [Erratum::PrivatePrioritiesLost]);
}
