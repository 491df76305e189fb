//! Distributor tests, in each security view.

use crate::fake::{Board, BoardFrame, DISTRIBUTOR, FakeDistributor, InterruptState, Security};
use gic_arch::{Affinity, IntId, Priority};
use gic_driver::distributor::MessageRegisters;
use gic_driver::{
    Block, Distributor, DistributorConfig, GicError, Group, Interrupt, Route, SecurityView,
    SharedBlock,
};
use msi_types::{Pending, Trigger};
use proptest::prelude::*;

const BLOCK: Block = Block::Distributor(DISTRIBUTOR);

fn machine(security: Security) -> Board {
    Board::with(FakeDistributor::new(security), vec![])
}

fn open(fake: &Board) -> Result<Distributor<BoardFrame>, GicError> {
    Distributor::new(fake, fake.distributor_frame(), DISTRIBUTOR)
}

fn config() -> DistributorConfig {
    DistributorConfig::new(Priority::new(0xa0), Affinity::new(0, 0, 1, 2))
}

/// Returns a machine with an initialized distributor.
fn initialized(security: Security) -> (Board, Distributor<BoardFrame>) {
    let fake = machine(security);
    let distributor = open(&fake).unwrap();
    distributor.init(&fake, config()).unwrap();
    (fake, distributor)
}

fn intids() -> Vec<IntId> {
    (32..96).chain(4096..4128).map(IntId::new).collect()
}

fn state_of(frame: &mut FakeDistributor, intid: IntId) -> &mut InterruptState {
    if intid.get() < 4096 { frame.spis.state(intid) } else { frame.extended.state(intid) }
}

fn states(fake: &Board) -> Vec<InterruptState> {
    let state = |intid| fake.at_distributor(|frame| *state_of(frame, intid));
    intids().into_iter().map(state).collect()
}

mod views {
    use super::*;

    #[test]
    fn a_single_security_state_is_detected() {
        assert_eq!(open(&machine(Security::Single)).unwrap().view(), SecurityView::Single);
    }

    #[test]
    fn the_secure_view_is_found_after_reset() {
        assert_eq!(open(&machine(Security::Secure)).unwrap().view(), SecurityView::Secure);
    }

    #[test]
    fn the_non_secure_view_is_found_after_reset() {
        assert_eq!(open(&machine(Security::NonSecure)).unwrap().view(), SecurityView::NonSecure);
    }

    #[test]
    fn non_secure_view_is_found_with_group_enabled() {
        let fake = machine(Security::NonSecure);
        fake.at_distributor(|frame| {
            frame.control = frame.control.with_are_ns(true).with_enable_grp1(true);
        });
        assert_eq!(open(&fake).unwrap().view(), SecurityView::NonSecure);
    }

    #[test]
    fn opening_disables_groups_before_it_changes_affinity_routing() {
        let fake = machine(Security::NonSecure);
        fake.at_distributor(|frame| frame.control = frame.control.with_enable_grp1(true));
        // The fake panics if affinity routing changes while a group is enabled.
        assert_eq!(open(&fake).unwrap().view(), SecurityView::NonSecure);
    }

    #[test]
    fn a_gicv2_is_refused() {
        let fake = machine(Security::Single);
        fake.at_distributor(|frame| frame.pidr2 = 0x2b);
        let refused = open(&fake).unwrap_err();
        let found = gic_arch::ArchRevision::V2;
        assert_eq!(refused, GicError::WrongRevision { block: BLOCK, found });
    }
}

mod init {
    use super::*;

    #[test]
    fn secure_init_enables_only_secure_group_1() {
        let (fake, _) = initialized(Security::Secure);
        fake.at_distributor(|frame| {
            let control = frame.control;
            let routes = control.are() && control.are_ns();
            assert!(routes && control.enable_grp1_s() && !control.enable_grp1());
            let mut spis = frame.spis.states()[32..].iter();
            assert!(spis.all(|state| !state.group && state.group_modifier));
        });
    }

    #[test]
    fn non_secure_init_keeps_secure_interrupts() {
        let fake = machine(Security::NonSecure);
        let kept = fake.at_distributor(|frame| {
            let state = frame.spis.state(IntId::new(33));
            (state.enabled, state.forwarded, state.priority) = (true, true, 0x20);
            *state
        });
        open(&fake).unwrap().init(&fake, config()).unwrap();
        fake.at_distributor(|frame| {
            assert!(frame.control.are_ns() && frame.control.enable_grp1());
            assert_eq!(*frame.spis.state(IntId::new(33)), kept);
            // The hardware holds priority 0xd0 if 0xa0 is written through the Non-secure view.
            assert_eq!(frame.spis.state(IntId::new(34)).priority, 0xd0);
        });
    }

    #[test]
    fn init_disables_groups_before_it_enables_affinity_routing() {
        let fake = machine(Security::Single);
        fake.at_distributor(|frame| frame.control = frame.control.with_enable_grp0(true));
        open(&fake).unwrap().init(&fake, config()).unwrap();
    }

    #[test]
    fn init_accesses_no_route_registers_of_intids_1020_to_1023() {
        let fake = machine(Security::Single);
        fake.at_distributor(|frame| frame.typer = frame.typer.with_it_lines_number(31));
        // The fake has no route registers for these INTIDs.
        open(&fake).unwrap().init(&fake, config()).unwrap();
    }

    #[test]
    fn a_distributor_without_affinity_routing_is_refused() {
        let fake = machine(Security::Single);
        fake.at_distributor(|frame| frame.no_affinity_routing = true);
        let refused = open(&fake).unwrap().init(&fake, config()).unwrap_err();
        assert_eq!(refused, GicError::NoAffinityRouting(BLOCK));
    }

    #[test]
    fn the_timeout_error_names_the_stuck_rwp_bit() {
        let fake = machine(Security::Single);
        let distributor = open(&fake).unwrap();
        fake.at_distributor(|frame| frame.stuck = true);
        let error = distributor.init(&fake, config()).unwrap_err();
        assert_eq!(error.to_string(), "distributor@8000000: timed out waiting for RWP = 0");
    }
}

mod interrupts {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Enable,
        Disable,
        Priority(u8),
        Pend(Pending),
        Activate,
        Deactivate,
        Trigger(Trigger),
        Group(Group),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            Just(Op::Enable),
            Just(Op::Disable),
            any::<u8>().prop_map(Op::Priority),
            Just(Op::Pend(Pending::Set)),
            Just(Op::Pend(Pending::Clear)),
            Just(Op::Activate),
            Just(Op::Deactivate),
            Just(Op::Trigger(Trigger::Edge)),
            Just(Op::Trigger(Trigger::Level)),
            Just(Op::Group(Group::Zero)),
            Just(Op::Group(Group::One)),
        ]
    }

    fn apply(fake: &Board, interrupt: &Interrupt<'_, BoardFrame>, op: Op) -> Result<(), GicError> {
        match op {
            Op::Enable => interrupt.enable(),
            Op::Disable => return interrupt.disable(fake),
            Op::Priority(priority) => interrupt.set_priority(Priority::new(priority)),
            Op::Pend(pending) => interrupt.set_pending(pending),
            Op::Activate => interrupt.activate(),
            Op::Deactivate => interrupt.deactivate(),
            Op::Trigger(trigger) => return interrupt.set_trigger(fake, trigger),
            Op::Group(group) => return interrupt.set_group(fake, SecurityView::Single, group),
        }
        Ok(())
    }

    /// Computes the expected state after an operation, independently of the fake.
    fn expected(mut state: InterruptState, op: Op) -> InterruptState {
        match op {
            Op::Enable => (state.enabled, state.forwarded) = (true, true),
            Op::Disable => (state.enabled, state.forwarded) = (false, false),
            Op::Priority(priority) => state.priority = priority & 0xf8,
            Op::Pend(pending) => state.pending = pending == Pending::Set,
            Op::Activate => state.active = true,
            Op::Deactivate => state.active = false,
            Op::Trigger(_) if state.enabled => {}
            Op::Trigger(trigger) => state.edge = trigger == Trigger::Edge,
            Op::Group(group) => state.group = group == Group::One,
        }
        state
    }

    proptest! {
        #[test]
        fn an_operation_changes_only_its_own_interrupts_field(
            ops in prop::collection::vec((0usize..96, op()), 1..40)
        ) {
            let (fake, distributor) = initialized(Security::Single);
            for (index, op) in ops {
                let intid = intids()[index];
                let before = states(&fake);
                let refused = apply(&fake, &distributor.interrupt(intid).unwrap(), op).err();
                for ((at, before), after) in intids().iter().zip(before).zip(states(&fake)) {
                    let own = *at == intid;
                    let want = if own { expected(before, op) } else { before };
                    prop_assert_eq!(after, want, "{:?} at {} seen at {}", op, intid, at);
                    if own {
                        let must_refuse = matches!(op, Op::Trigger(trigger)
                            if before.enabled && before.edge != (trigger == Trigger::Edge));
                        prop_assert_eq!(refused.is_some(), must_refuse);
                    }
                }
            }
        }

        #[test]
        fn interrupt_settings_read_back_as_written(index in 0usize..96, op in op()) {
            let (fake, distributor) = initialized(Security::Single);
            let interrupt = distributor.interrupt(intids()[index]).unwrap();
            apply(&fake, &interrupt, op).unwrap();
            match op {
                Op::Enable => prop_assert!(interrupt.is_enabled()),
                Op::Disable => prop_assert!(!interrupt.is_enabled()),
                Op::Priority(priority) => {
                    prop_assert_eq!(interrupt.priority().get(), priority & 0xf8);
                }
                Op::Pend(pending) => {
                    prop_assert_eq!(interrupt.is_pending(), pending == Pending::Set);
                }
                Op::Activate => prop_assert!(interrupt.is_active()),
                Op::Deactivate => prop_assert!(!interrupt.is_active()),
                Op::Trigger(trigger) => prop_assert_eq!(interrupt.trigger(), trigger),
                Op::Group(_) => {}
            }
        }
    }

    #[test]
    fn unimplemented_intids_are_refused() {
        let (_, distributor) = initialized(Security::Single);
        for number in [0, 31, 96, 1019, 1020, 1056, 4095, 4128, 5119, 8192, u32::MAX] {
            let intid = IntId::new(number);
            let refused = GicError::NoSuchInterrupt { block: BLOCK, intid };
            assert_eq!(distributor.interrupt(intid).unwrap_err(), refused);
            assert_eq!(distributor.set_route(intid, Route::AnyParticipating), Err(refused));
        }
    }

    #[test]
    fn non_secure_priorities_read_as_written() {
        let (_, distributor) = initialized(Security::NonSecure);
        let interrupt = distributor.interrupt(IntId::new(40)).unwrap();
        interrupt.set_priority(Priority::new(0x50));
        assert_eq!(interrupt.priority(), Priority::new(0x50));
    }

    #[test]
    fn secure_interrupt_cannot_be_taken() {
        let (_, distributor) = initialized(Security::NonSecure);
        let take =
            |number| distributor.interrupt(IntId::new(number)).unwrap().take(Priority::HIGHEST);
        assert_eq!(take(33), Err(GicError::KeptBySecure(IntId::new(33))));
        assert_eq!(take(34), Ok(()));
    }

    #[test]
    fn groups_the_security_view_cannot_set_are_refused() {
        for (security, view, group) in [
            (Security::NonSecure, SecurityView::NonSecure, Group::One),
            (Security::Single, SecurityView::Single, Group::SecureOne),
        ] {
            let (fake, distributor) = initialized(security);
            let interrupt = distributor.interrupt(IntId::new(40)).unwrap();
            let refused = interrupt.set_group(&fake, view, group);
            assert_eq!(refused, Err(GicError::GroupRefused(IntId::new(40))));
        }
    }
}

mod routes {
    use super::*;

    #[test]
    fn a_route_is_written_where_the_manual_specifies() {
        let (fake, distributor) = initialized(Security::Single);
        let target = Affinity::new(4, 3, 2, 1);
        distributor.set_route(IntId::new(42), Route::To(target)).unwrap();
        distributor.set_route(IntId::new(4100), Route::AnyParticipating).unwrap();
        fake.at_distributor(|frame| {
            assert_eq!(frame.routes[&0x6150], 0x04_0003_0201);
            assert_eq!(frame.routes[&0x8020], 0x8000_0000);
        });
    }

    #[test]
    fn unimplemented_one_of_n_is_refused() {
        let fake = machine(Security::Single);
        fake.at_distributor(|frame| frame.typer = frame.typer.with_no_1_of_n(true));
        let refused = open(&fake).unwrap().set_route(IntId::new(42), Route::AnyParticipating);
        assert_eq!(refused, Err(GicError::NoOneOfN(BLOCK)));
    }

    #[test]
    fn message_register_addresses_depend_on_the_security_view() {
        let doorbells = |security| open(&machine(security)).unwrap().message_registers();
        let non_secure = MessageRegisters { set: 0x800_0040, clear: 0x800_0048 };
        assert_eq!(doorbells(Security::Single), Some(non_secure));
        assert_eq!(doorbells(Security::NonSecure), Some(non_secure));
        let secure = MessageRegisters { set: 0x800_0050, clear: 0x800_0058 };
        assert_eq!(doorbells(Security::Secure), Some(secure));
    }

    #[test]
    fn a_distributor_without_message_based_spis_has_no_doorbell() {
        let fake = machine(Security::Single);
        fake.at_distributor(|frame| frame.typer = frame.typer.with_mbis(false));
        assert_eq!(open(&fake).unwrap().message_registers(), None);
    }

    #[test]
    fn the_priority_bit_count_depends_on_the_security_view() {
        for (security, bits) in [(Security::Single, 5), (Security::NonSecure, 4)] {
            let (_, distributor) = initialized(security);
            assert_eq!(distributor.priority_bits(), Some(bits));
            assert_eq!(distributor.interrupt(IntId::new(32)).unwrap().priority().get(), 0xa0);
        }
    }
}

mod suspend {
    use super::*;

    fn state() -> impl Strategy<Value = InterruptState> {
        (any::<[bool; 5]>(), any::<u8>()).prop_map(|(flags, priority)| {
            let [enabled, pending, active, edge, group] = flags;
            let (forwarded, priority) = (enabled, priority & 0xf8);
            let none = InterruptState::default();
            InterruptState { enabled, forwarded, pending, active, priority, edge, group, ..none }
        })
    }

    proptest! {
        #[test]
        fn restore_after_power_loss_recovers_the_saved_state(
            saved_states in prop::collection::vec(state(), 96),
            routes in prop::collection::vec(any::<u32>(), 96),
        ) {
            let (fake, distributor) = initialized(Security::Single);
            for ((intid, state), route) in intids().iter().zip(&saved_states).zip(&routes) {
                fake.at_distributor(|frame| *state_of(frame, *intid) = *state);
                distributor.set_route(*intid, Route::To(Affinity::from_packed(*route))).unwrap();
            }
            let mut storage = vec![SharedBlock::default(); distributor.saved_blocks()];
            let saved = distributor.save(&mut storage).unwrap();

            fake.at_distributor(|frame| *frame = FakeDistributor::new(Security::Single));
            distributor.restore(&fake, &saved, &storage).unwrap();

            prop_assert_eq!(states(&fake), saved_states);
            for (intid, route) in intids().into_iter().zip(routes) {
                let route = Route::To(Affinity::from_packed(route));
                prop_assert_eq!(distributor.route(intid), Ok(route));
            }
            prop_assert!(
                fake.at_distributor(|frame| frame.control.enable_grp1() && frame.control.are())
            );
        }
    }

    #[test]
    fn restore_reverts_changes_made_after_the_save() {
        let (fake, distributor) = initialized(Security::Single);
        let interrupts =
            [50, 51, 52].map(|number| distributor.interrupt(IntId::new(number)).unwrap());
        let mut storage = vec![SharedBlock::default(); distributor.saved_blocks()];
        let saved = distributor.save(&mut storage).unwrap();
        interrupts[0].enable();
        interrupts[1].set_pending(Pending::Set);
        interrupts[2].activate();
        distributor.restore(&fake, &saved, &storage).unwrap();
        assert!(
            !interrupts[0].is_enabled()
                && !interrupts[1].is_pending()
                && !interrupts[2].is_active()
        );
    }

    #[test]
    fn save_refuses_storage_that_is_too_small() {
        let (_, distributor) = initialized(Security::Single);
        let refused = distributor.save(&mut [SharedBlock::default(); 2]);
        assert_eq!(refused, Err(GicError::StorageTooSmall { block: BLOCK, wanted: 3, given: 2 }));
    }
}
