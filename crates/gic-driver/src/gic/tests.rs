use super::*;
use crate::cpu_interface::{SgiId, Split};
use crate::fake::{
    DISTRIBUTOR, Fake, FakeDistributor, FakeRedistributor, FakeRegisters, REDISTRIBUTORS, Security,
};
use crate::lpi::PendingLpis;
use crate::{Coherence, Route};
use alloc::vec;
use core::num::NonZeroU16;
use gic_arch::gicr::{Propbaser, STRIDE_V3};
use gic_arch::{IntId, icc};
use msi_types::{MsiError, Pending, Trigger, Vector, WiredParent};

extern crate std;

const CPUS: u8 = 3;

fn config() -> GicConfig {
    let region = PhysicalRegion { base: REDISTRIBUTORS, bytes: u64::from(CPUS) * STRIDE_V3 };
    let affinities = (0..CPUS).map(|cpu| Affinity::new(0, 0, 0, cpu)).collect();
    GicConfig::new(DISTRIBUTOR, vec![RedistributorRegion { region, stride: None }], affinities)
}

fn discovered(fake: &Fake) -> Result<Gic<Fake>, GicError> {
    Gic::new(Arc::new(fake.clone()), config())
}

/// A GIC with all CPUs on.
fn running() -> (Fake, Gic<Fake>, Vec<FakeRegisters>) {
    let fake = Fake::with_cpus(CPUS);
    let gic = discovered(&fake).unwrap();
    let registers: Vec<_> = gic.cpus().map(|_| FakeRegisters::default()).collect();
    for (cpu, registers) in gic.cpus().zip(&registers) {
        gic.cpu_on(cpu, registers).unwrap();
    }
    (fake, gic, registers)
}

fn cpu(number: u32) -> Cpu {
    Cpu::new(number)
}

fn vector(number: u32) -> Vector {
    Vector::new(number)
}

fn count(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap()
}

mod life {
    use super::*;

    #[test]
    fn a_cpu_that_was_turned_on_has_sgis_lpis_and_an_interface() {
        let (fake, gic, registers) = running();
        for (index, registers) in registers.iter().enumerate() {
            fake.at_redistributor(index, |frame| {
                assert!(
                    frame.bank.states()[..16].iter().all(|state| state.enabled && state.priority == 0xa0)
                );
                assert!(frame.control.enable_lpis());
            });
            assert_eq!(registers.get(icc::IGRPEN1.encoding()), 1);
        }
        assert!(gic.cpus().all(|cpu| gic.is_on(cpu)));
    }

    #[test]
    fn an_its_learns_how_to_name_a_redistributor() {
        let gic = discovered(&Fake::with_cpus(CPUS)).unwrap();
        let found = gic.redistributor_frames(cpu(2)).unwrap();
        let names = (found.address(), found.processor_number());
        assert_eq!(names, (REDISTRIBUTORS + 2 * STRIDE_V3, 102));
        assert!(gic.redistributor_frames(cpu(3)).is_err());
    }

    #[test]
    fn a_cpu_without_redistributor_is_named_when_it_is_turned_on() {
        let fake = Fake::with_cpus(1);
        let gic = discovered(&fake).unwrap();
        let refused = gic.cpu_on(cpu(1), &FakeRegisters::default());
        assert_eq!(refused, Err(GicError::NoRedistributor(Affinity::new(0, 0, 0, 1))));
        assert_eq!(gic.cpu_on(cpu(9), &FakeRegisters::default()), Err(GicError::UnknownCpu(cpu(9))));
    }

    #[test]
    fn cpus_beyond_the_configuration_are_passed_over() {
        let fake = Fake::with_cpus(CPUS);
        let mut config = config();
        config.cpus.truncate(1);
        let gic = Gic::new(Arc::new(fake.clone()), config).unwrap();
        gic.cpu_on(cpu(0), &FakeRegisters::default()).unwrap();
        assert!(!fake.at_redistributor(1, |frame| frame.control.enable_lpis()));
    }

    #[test]
    fn an_address_without_a_distributor_is_named() {
        let config = GicConfig { distributor: 0x1000, ..config() };
        let refused = Gic::new(Arc::new(Fake::with_cpus(1)), config).unwrap_err();
        assert_eq!(refused, GicError::NotMapped(Block::Distributor(0x1000)));
    }

    #[test]
    fn a_frame_of_an_older_gic_is_refused_before_it_is_touched() {
        let config = GicConfig { distributor_bytes: Some(0x1000), ..config() };
        let refused = Gic::new(Arc::new(Fake::with_cpus(CPUS)), config.clone()).unwrap_err();
        assert_eq!(
            refused,
            GicError::FrameTooSmall { block: Block::Distributor(DISTRIBUTOR), bytes: 0x1000 }
        );
        let config = GicConfig { distributor_bytes: Some(0x1_0000), ..config };
        assert!(Gic::new(Arc::new(Fake::with_cpus(CPUS)), config).is_ok());
    }

    #[test]
    fn wired_interrupts_work_where_lpis_are_refused() {
        let fake = Fake::with_cpus(CPUS);
        fake.at_redistributor(1, |frame| {
            frame.propbaser = Propbaser::new().with_address(0x4000_0000).with_id_bits_minus_one(15);
            frame.control = frame.control.with_ces(false).with_enable_lpis(true);
            frame.lpis_stuck = true;
        });
        let gic = discovered(&fake).unwrap();
        assert!(matches!(gic.lpis().unwrap_err(), LpiError::AlreadyEnabled { .. }));
        assert_eq!(gic.cpu_on(cpu(0), &FakeRegisters::default()), Ok(None));
        assert_eq!(gic.claim(vector(40), count(1)), Ok(()));
    }

    #[test]
    fn a_machine_whose_registers_lie_about_coherence_is_known_by_its_name() {
        for (name, expected) in [("rockchip,rk3588", Coherence::NonCoherent), ("other", Coherence::Coherent)]
        {
            let fake = Fake::with_cpus(1);
            fake.at_redistributor(0, |frame| frame.iidr = 0x0201_743b);
            let config = GicConfig { machine: vec![name.into()], ..config() };
            let gic = Gic::new(Arc::new(fake), config).unwrap();
            gic.cpu_on(cpu(0), &FakeRegisters::default()).unwrap();
            assert_eq!(gic.lpis().unwrap().coherence(), expected);
        }
    }

    #[test]
    fn lpi_tables_lie_where_redistributors_of_32_bits_reach_them() {
        for (name, expected) in [("rockchip,rk3566", 0), ("other", 2)] {
            let fake = Fake::with_cpus(1);
            fake.at_redistributor(0, |frame| frame.iidr = 0x0201_743b);
            let config = GicConfig { machine: vec![name.into()], ..config() };
            let gic = Gic::new(Arc::new(fake.clone()), config).unwrap();
            gic.cpu_on(cpu(0), &FakeRegisters::default()).unwrap();
            let tables = fake.in_memory(|memory| (memory.tables(), memory.tables_from(1 << 32)));
            assert_eq!(tables, (2, expected), "{name}");
        }
    }

    #[test]
    fn a_cpu_that_was_turned_off_takes_nothing_and_can_be_turned_on_again() {
        let (fake, gic, registers) = running();
        gic.cpu_off(cpu(1), &registers[1]).unwrap();
        assert!(!gic.is_on(cpu(1)) && fake.at_redistributor(1, |frame| frame.sleep));
        assert_eq!(registers[1].get(icc::IGRPEN1.encoding()), 0);
        let attached = gic.cpu_on(cpu(1), &registers[1]).unwrap().unwrap();
        assert_eq!(attached.pending, PendingLpis::Kept);
        assert!(gic.is_on(cpu(1)));
    }

    #[test]
    fn an_interface_without_system_registers_leaves_the_cpu_off() {
        let gic = discovered(&Fake::with_cpus(CPUS)).unwrap();
        let refused = gic.cpu_on(cpu(0), &FakeRegisters::without_system_registers());
        assert_eq!(refused, Err(GicError::NoSystemRegisters));
        assert!(!gic.is_on(cpu(0)));
    }

    #[test]
    fn ending_and_deactivating_can_be_split() {
        let gic = discovered(&Fake::with_cpus(CPUS)).unwrap();
        let registers = FakeRegisters::default();
        gic.cpu_on_with::<_, Split>(cpu(0), &registers).unwrap();
        registers.raise(40);
        let interface = gic.cpu_interface_with::<_, Split>(&registers);
        let active = interface.end(interface.acknowledge().unwrap());
        assert!(registers.deactivated().is_empty());
        interface.deactivate(active);
        assert_eq!(registers.deactivated(), [40]);
    }

    #[test]
    fn sgis_are_limited_by_the_distributor() {
        let (_, gic, registers) = running();
        // The interface has a range selector, the distributor does not.
        let sent = gic.cpu_interface(&registers[0]).send(SgiId::new(1).unwrap(), Affinity::new(0, 0, 0, 16));
        assert!(matches!(sent, Err(GicError::SgiOutOfReach(..))));
    }
}

mod quirks {
    use super::*;
    use crate::SecurityView;
    use crate::errata::Erratum;

    fn named(names: &[&str]) -> GicConfig {
        GicConfig { machine: names.iter().map(|name| (*name).into()).collect(), ..config() }
    }

    #[test]
    fn a_waker_that_is_unusable_is_left_alone() {
        let fake = Fake::with_cpus(0);
        for number in 0..CPUS {
            let mut frame = FakeRedistributor::new(number, number + 1 == CPUS).awake();
            frame.waker_broken = true;
            fake.0.redistributors.lock().unwrap().push(frame);
        }
        let gic = Gic::new(Arc::new(fake), named(&["qcom,msm8996-gic-v3", "arm,gic-v3"])).unwrap();
        let registers = FakeRegisters::default();
        gic.cpu_on(cpu(1), &registers).unwrap();
        gic.cpu_off(cpu(1), &registers).unwrap();
        gic.cpu_on(cpu(0), &registers).unwrap();
        let saved = gic.suspend(cpu(0), &registers).unwrap();
        gic.resume(&saved, &registers).unwrap();
    }

    #[test]
    fn extended_spis_that_are_not_there_are_not_touched() {
        for (iidr, there) in [(0x0204_043b, false), (0, false), (0x0202_043b, true)] {
            let fake = Fake::with_cpus(CPUS);
            fake.at_distributor(|frame| frame.iidr = iidr);
            let gic = discovered(&fake).unwrap();
            assert_eq!(gic.claim(vector(4096), count(1)).is_ok(), there, "{iidr:#x}");
            assert_eq!(fake.at_distributor(|frame| frame.routes.contains_key(&0x8000)), there);
        }
    }

    #[test]
    fn affinities_are_one_level_down_where_the_gic_has_them_so() {
        let fake = Fake::with_cpus(CPUS);
        let cpus = (0..CPUS).map(|cpu| Affinity::new(0, 0, cpu, 0)).collect();
        let config = GicConfig { cpus, ..named(&["asr,asr8601-gic-v3", "arm,gic-v3"]) };
        let gic = Gic::new(Arc::new(fake.clone()), config).unwrap();
        gic.cpu_on(cpu(2), &FakeRegisters::default()).unwrap();
        gic.set_target(vector(40), cpu(2)).unwrap();
        assert_eq!(gic.affinity(cpu(2)), Some(Affinity::new(0, 0, 0, 2)));
        assert_eq!(fake.at_distributor(|frame| frame.routes[&0x6140]), 2);
    }

    #[test]
    fn exposed_secure_registers_end_in_one_security_state() {
        for (name, expected) in [("rockchip,rk3399", SecurityView::Single), ("other", SecurityView::Secure)] {
            let mut distributor = FakeDistributor::new(Security::Secure);
            // As firmware leaves it, for Non-secure software.
            distributor.control = distributor.control.with_are(true).with_are_ns(true);
            let fake = Fake::new(distributor, vec![FakeRedistributor::new(0, true)]);
            let gic = Gic::new(Arc::new(fake.clone()), named(&[name])).unwrap();
            assert_eq!(gic.distributor().view(), expected, "{name}");
            let state = fake.at_distributor(|frame| *frame.spis.state(IntId::new(40)));
            let single = expected == SecurityView::Single;
            assert_eq!((state.group, state.group_modifier), (single, !single));
        }
    }

    #[test]
    fn an_spi_of_another_cpu_is_deactivated_at_the_distributor() {
        for (iidr, target, expected) in
            [(0x0400_043b, 1, false), (0x0400_043b, 0, true), (0x0403_043b, 1, true)]
        {
            let (fake, _, registers) = running();
            fake.at_distributor(|frame| frame.iidr = iidr);
            let gic = discovered(&fake).unwrap();
            for (cpu, registers) in gic.cpus().zip(&registers) {
                gic.cpu_on(cpu, registers).unwrap();
            }
            gic.set_target(vector(40), cpu(target)).unwrap();
            registers[0].raise(40);
            let interface = gic.cpu_interface(&registers[0]);
            let taken = interface.acknowledge().unwrap();
            fake.at_distributor(|frame| frame.spis.state(IntId::new(40)).active = true);
            gic.end(&interface, taken);
            let active = fake.at_distributor(|frame| frame.spis.state(IntId::new(40)).active);
            assert_eq!((active, registers[0].deactivated()), (expected, vec![40]), "{iidr:#x} {target}");
        }
    }

    #[test]
    fn a_split_deactivation_of_another_cpus_spi_is_the_distributors() {
        for (target, by_interface) in [(1, vec![]), (0, vec![40])] {
            let fake = Fake::with_cpus(CPUS);
            fake.at_distributor(|frame| frame.iidr = 0x0402_043b);
            let gic = discovered(&fake).unwrap();
            let registers: Vec<_> = gic.cpus().map(|_| FakeRegisters::default()).collect();
            for (cpu, registers) in gic.cpus().zip(&registers) {
                gic.cpu_on_with::<_, Split>(cpu, registers).unwrap();
            }
            gic.set_target(vector(40), cpu(target)).unwrap();
            registers[0].raise(40);
            let interface = gic.cpu_interface_with::<_, Split>(&registers[0]);
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

    /// Redistributors at `chips` chips, one each.
    fn of_chips(chips: u8) -> (Fake, Gic<Fake>) {
        let mut distributor = FakeDistributor::new(Security::Single);
        distributor.implement_all_spis();
        distributor.iidr = 0x0402_043b;
        distributor.stale_at_home = chips > 2;
        let at = |chip: u8| u64::from(chip) << 44;
        let redistributors = (0..chips)
            .map(|chip| {
                let mut frame = FakeRedistributor::new(chip, true);
                frame.offset = at(chip);
                frame
            })
            .collect();
        let fake = Fake::new(distributor, redistributors);
        let regions = (0..chips).map(|chip| RedistributorRegion {
            region: PhysicalRegion { base: REDISTRIBUTORS + at(chip), bytes: STRIDE_V3 },
            stride: None,
        });
        let cpus = (0..chips).map(|cpu| Affinity::new(0, 0, 0, cpu)).collect();
        let config = GicConfig {
            machine: vec!["jep106:036b:0241".into()],
            ..GicConfig::new(DISTRIBUTOR, regions.collect(), cpus)
        };
        let gic = Gic::new(Arc::new(fake.clone()), config).unwrap();
        gic.cpu_on(cpu(0), &FakeRegisters::default()).unwrap();
        (fake, gic)
    }

    #[test]
    fn registers_of_spis_are_read_at_the_chip_that_owns_them() {
        for chips in [2, 4] {
            let (fake, gic) = of_chips(chips);
            for intid in [40, 400, 700, 4100] {
                gic.claim(vector(intid), count(1)).unwrap();
                gic.set_trigger(vector(intid), Trigger::Edge).unwrap();
                gic.unmask(vector(intid));
                gic.set_target(vector(intid), cpu(0)).unwrap();
                assert!(!gic.is_pending(vector(intid)));
                gic.set_pending(vector(intid), Pending::Set);
                assert!(gic.is_pending(vector(intid)));
            }
            let registers = FakeRegisters::default();
            gic.cpu_on(cpu(0), &registers).unwrap();
            let saved = gic.suspend(cpu(0), &registers).unwrap();
            gic.resume(&saved, &registers).unwrap();
            fake.at_distributor(|frame| {
                assert!(!frame.spis.state(IntId::new(399)).enabled);
                assert!(frame.spis.state(IntId::new(400)).enabled);
            });
        }
    }

    #[test]
    fn what_the_driver_leaves_to_the_kernel_is_told() {
        let fake = Fake::with_cpus(CPUS);
        let gic = Gic::new(Arc::new(fake), named(&["mediatek,broken-save-restore-fw"])).unwrap();
        let found: Vec<_> = gic.errata().map(|entry| entry.erratum).collect();
        assert_eq!(found, [Erratum::PrivatePrioritiesLost]);
    }
}

mod suspending {
    use super::*;

    /// Everything but the identity is lost.
    fn lose_power(fake: &Fake) {
        fake.at_distributor(|frame| *frame = FakeDistributor::new(Security::Single));
        for index in 0..CPUS.into() {
            fake.at_redistributor(index, FakeRedistributor::reset);
        }
    }

    #[test]
    fn a_gic_that_lost_power_comes_back_with_routes_enables_and_lpis() {
        let (fake, gic, registers) = running();
        gic.claim(vector(40), count(1)).unwrap();
        gic.set_target(vector(40), cpu(2)).unwrap();
        gic.unmask(vector(40));
        gic.redistributor_frames(cpu(0)).unwrap().interrupt(IntId::new(27)).unwrap().enable();
        for off in [1, 2] {
            gic.cpu_off(cpu(off), &registers[off as usize]).unwrap();
            fake.at_redistributor(off as usize, |frame| frame.powered = false);
        }

        let saved = gic.suspend(cpu(0), &registers[0]).unwrap();
        lose_power(&fake);
        let resumed = gic.resume(&saved, &registers[0]).unwrap();

        assert_eq!(resumed.lpis, PendingLpis::Kept);
        let to = Route::To(Affinity::new(0, 0, 0, 2));
        assert_eq!(gic.distributor().route(IntId::new(40)), Ok(to));
        assert!(gic.distributor().interrupt(IntId::new(40)).unwrap().is_enabled());
        fake.at_redistributor(0, |frame| {
            assert!(frame.bank.state(IntId::new(27)).enabled && frame.control.enable_lpis());
        });
        assert!(gic.is_on(cpu(0)) && !gic.is_on(cpu(1)));
        gic.cpu_on(cpu(1), &registers[1]).unwrap();
    }

    #[test]
    fn a_suspend_that_did_not_cost_power_is_undone() {
        let (fake, gic, registers) = running();
        gic.unmask(vector(40));
        let saved = gic.suspend(cpu(0), &registers[0]).unwrap();
        assert!(!fake.at_distributor(|frame| frame.control.enable_grp1()));
        gic.resume(&saved, &registers[0]).unwrap();
        assert!(
            fake.at_distributor(
                |frame| frame.control.enable_grp1() && frame.spis.state(IntId::new(40)).enabled
            )
        );
    }

    #[test]
    fn resume_keeps_the_split_eoi_mode() {
        let fake = Fake::with_cpus(1);
        let gic = discovered(&fake).unwrap();
        let registers = FakeRegisters::default();
        gic.cpu_on_with::<_, Split>(cpu(0), &registers).unwrap();
        let interface = gic.cpu_interface_with::<_, Split>(&registers);
        interface.set_mask(Priority::new(0xc0));
        let saved = gic.suspend(cpu(0), &registers).unwrap();
        registers.reset();
        gic.resume(&saved, &registers).unwrap();

        registers.raise(40);
        let active = interface.end(interface.acknowledge().unwrap());
        assert!(registers.deactivated().is_empty());
        interface.deactivate(active);
        assert_eq!(interface.mask(), Priority::new(0xc0));
    }

    #[test]
    fn a_suspend_that_times_out_stops_the_rest_and_can_be_resumed() {
        let (fake, gic, registers) = running();
        gic.unmask(vector(40));
        fake.at_distributor(|frame| frame.stuck = true);
        let refused = gic.suspend(cpu(0), &registers[0]).unwrap_err();
        let SuspendError::Incomplete { error, saved } = refused else { panic!("{refused}") };
        let block = Block::Distributor(DISTRIBUTOR);
        assert_eq!(error, GicError::TimedOut { block, what: "RWP = 0" });
        assert_eq!(registers[0].get(icc::IGRPEN1.encoding()), 0);
        fake.at_redistributor(0, |frame| assert!(frame.sleep && !frame.control.enable_lpis()));

        fake.at_distributor(|frame| frame.stuck = false);
        gic.resume(&saved, &registers[0]).unwrap();
        assert!(gic.is_on(cpu(0)));
        fake.at_distributor(|frame| assert!(frame.spis.state(IntId::new(40)).enabled));
    }

    #[test]
    fn a_suspend_names_the_redistributor_that_does_not_stop() {
        let (fake, gic, registers) = running();
        fake.at_redistributor(0, |frame| frame.stuck = true);
        let refused = gic.suspend(cpu(0), &registers[0]).unwrap_err();
        let SuspendError::Incomplete { error, .. } = refused else { panic!("{refused}") };
        assert!(matches!(error, GicError::TimedOut { block: Block::Redistributor(REDISTRIBUTORS), .. }));
        assert!(!fake.at_distributor(|frame| frame.control.enable_grp1()));
    }

    #[test]
    fn pending_lpis_that_cannot_be_saved_are_reported_lost() {
        let fake = Fake::with_cpus(CPUS);
        fake.at_redistributor(0, |frame| frame.control = frame.control.with_ces(false));
        let gic = discovered(&fake).unwrap();
        let registers = FakeRegisters::default();
        gic.cpu_on(cpu(0), &registers).unwrap();
        let saved = gic.suspend(cpu(0), &registers).unwrap();
        lose_power(&fake);
        assert_eq!(gic.resume(&saved, &registers).unwrap().lpis, PendingLpis::Lost);
    }
}

mod wired {
    use super::*;

    #[test]
    fn an_interrupt_has_one_owner() {
        let (_, gic, _) = running();
        gic.claim(vector(40), count(4)).unwrap();
        assert_eq!(gic.claim(vector(43), count(2)), Err(MsiError::UnknownVector(vector(43))));
        // Nothing of the refused claim remains.
        assert_eq!(gic.claim(vector(44), count(1)), Ok(()));
        gic.release(vector(40), count(4));
        assert_eq!(gic.claim(vector(40), count(4)), Ok(()));
    }

    #[test]
    fn a_claim_that_collides_at_its_end_keeps_nothing() {
        let (_, gic, _) = running();
        gic.claim(vector(43), count(1)).unwrap();
        assert!(gic.claim(vector(40), count(4)).is_err());
        assert_eq!(gic.claim(vector(40), count(3)), Ok(()));
    }

    #[test]
    fn what_is_no_wired_interrupt_here_is_not_given_out() {
        let (_, gic, _) = running();
        let none = [(95, 2), (1019, 1), (1023, 1), (1087, 2), (4127, 2), (8192, 1), (u32::MAX, 1)];
        for (first, many) in none {
            assert!(gic.claim(vector(first), count(many)).is_err(), "{first}");
        }
        assert_eq!(gic.claim(vector(4096), count(32)), Ok(()));
    }

    #[test]
    fn a_private_vector_is_unmasked_masked_and_made_pending_at_the_calling_cpu_alone() {
        let (fake, gic, _) = running();
        for intid in [5, 27, 1060] {
            let states = || {
                let state =
                    |index| fake.at_redistributor(index, |frame| *frame.bank.state(IntId::new(intid)));
                [0, 1].map(|index| (state(index).forwarded, state(index).pending))
            };
            gic.mask(vector(intid));
            fake.run_on(1);
            gic.mask(vector(intid));
            gic.unmask(vector(intid));
            gic.set_pending(vector(intid), Pending::Set);
            assert!(gic.is_pending(vector(intid)));
            assert_eq!(states(), [(false, false), (true, true)], "{intid}");
            gic.mask(vector(intid));
            gic.set_pending(vector(intid), Pending::Clear);
            fake.run_on(0);
            gic.unmask(vector(intid));
            assert_eq!(states(), [(true, false), (false, false)], "{intid}");
        }
    }

    #[test]
    fn a_private_vector_has_one_owner_and_a_trigger_but_no_target() {
        let (fake, gic, _) = running();
        gic.claim(vector(27), count(1)).unwrap();
        assert_eq!(gic.claim(vector(27), count(1)), Err(MsiError::UnknownVector(vector(27))));
        gic.set_trigger(vector(27), Trigger::Edge).unwrap();
        assert!(fake.at_redistributor(0, |frame| frame.bank.state(IntId::new(27)).edge));
        let refused = gic.set_target(vector(27), cpu(1));
        assert!(matches!(refused, Err(MsiError::NotReachable(_, _))));
        gic.unmask(vector(27));
        gic.release(vector(27), count(1));
        assert!(!fake.at_redistributor(0, |frame| frame.bank.state(IntId::new(27)).forwarded));
        assert_eq!(gic.claim(vector(27), count(1)), Ok(()));
    }

    #[test]
    fn an_interrupt_of_secure_software_is_not_given_out() {
        let fake =
            Fake::new(FakeDistributor::new(Security::NonSecure), vec![FakeRedistributor::new(0, true)]);
        let gic = Gic::new(Arc::new(fake), config()).unwrap();
        assert_eq!(gic.claim(vector(32), count(2)), Err(MsiError::UnknownVector(vector(33))));
        assert_eq!(gic.claim(vector(32), count(1)), Ok(()));
    }

    #[test]
    fn released_interrupts_are_disabled_and_not_pending() {
        let (fake, gic, _) = running();
        gic.claim(vector(40), count(1)).unwrap();
        gic.unmask(vector(40));
        gic.set_pending(vector(40), Pending::Set);
        assert!(gic.is_pending(vector(40)));
        gic.release(vector(40), count(1));
        let state = fake.at_distributor(|frame| *frame.spis.state(IntId::new(40)));
        assert!(!state.enabled && !state.forwarded && !state.pending);
    }

    #[test]
    fn a_masked_interrupt_is_not_forwarded_on_return() {
        let (fake, gic, _) = running();
        gic.unmask(vector(40));
        gic.mask(vector(40));
        assert!(!fake.at_distributor(|frame| frame.spis.state(IntId::new(40)).forwarded));
    }

    #[test]
    fn the_trigger_of_an_unmasked_interrupt_is_refused_with_the_reason() {
        let (_, gic, _) = running();
        assert_eq!(gic.set_trigger(vector(40), Trigger::Edge), Ok(()));
        gic.unmask(vector(40));
        let refused = gic.set_trigger(vector(40), Trigger::Level).unwrap_err();
        assert_eq!(
            std::string::ToString::to_string(&refused),
            "gicv3@8000000, set trigger: the interrupt is enabled"
        );
    }

    #[test]
    fn a_cpu_that_is_off_or_unknown_is_no_target() {
        let (_, gic, registers) = running();
        gic.cpu_off(cpu(1), &registers[1]).unwrap();
        for number in [1, 9] {
            let refused = gic.set_target(vector(40), cpu(number));
            assert!(matches!(refused, Err(MsiError::NotReachable(..))), "{number}");
        }
    }
}
