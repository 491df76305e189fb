//! Compares the ITS with a naive implementation based on lists and searches. Both implementations
//! execute a random sequence of commands, messages, register writes and acknowledgments. After each
//! step, both must have the same LPIs pending at the same redistributors, and must have refused the
//! same commands for the same reasons.

mod naive;

use self::naive::{Cached, LPIS, Model, VCPUS};
use super::rig::*;
use crate::frames::its::CommandFault;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use gic_arch::its::Command;
use gic_arch::{Lpi, Priority};
use proptest::prelude::*;

/// An action by the guest or a device.
#[derive(Clone, Copy, Debug)]
enum Step {
    Command(Command),
    Send {
        device: u32,
        event: u32,
    },
    Configure {
        lpi: u32,
        enable: bool,
        priority: u8,
    },
    Acknowledge {
        vcpu: u16,
        than: u8,
    },
    EnableLpis(u16),
    DisableLpis(u16),
    InvalidateAll(u16),
    Invalidate {
        vcpu: u16,
        lpi: u32,
    },
    SetLpi {
        vcpu: u16,
        lpi: u32,
    },
    ClearLpi {
        vcpu: u16,
        lpi: u32,
    },
    EnableIts(bool),
    /// Save the machine, and continue with a machine restored from the saved state.
    Migrate,
}

fn device() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 0u32..4, 1 => Just(8192), 1 => Just(70_000)]
}

fn event() -> impl Strategy<Value = u32> {
    let edges = prop_oneof![Just(31u32), Just(32), Just(100), Just(3000)];
    prop_oneof![12 => 0u32..4, 4 => edges, 1 => 0u32..9000]
}

fn lpi() -> impl Strategy<Value = u32> {
    LPIS
}

fn collection() -> impl Strategy<Value = u16> {
    prop_oneof![20 => 0u16..4, 1 => Just(8192u16)]
}

fn any_vcpu() -> impl Strategy<Value = u16> {
    prop_oneof![20 => 0..VCPUS, 1 => Just(VCPUS)]
}

fn command() -> impl Strategy<Value = Command> {
    let bits = prop_oneof![Just(1u8), Just(2), Just(5), Just(6), Just(12), Just(16), Just(17)];
    let intid = prop_oneof![20 => lpi(), 1 => Just(8191), 1 => Just(65536)];
    prop_oneof![
        2 => (device(), bits).prop_map(|(device, bits)| mapd(device, bits)),
        1 => device().prop_map(unmapd),
        3 => (collection(), any_vcpu()).prop_map(|(collection, vcpu)| mapc(collection, vcpu)),
        1 => collection().prop_map(unmapc),
        10 => (device(), event(), intid, collection())
            .prop_map(|(device, event, lpi, collection)| mapti(device, event, lpi, collection)),
        4 => (device(), event(), collection())
            .prop_map(|(device, event, to)| movi(device, event, to)),
        2 => (device(), event()).prop_map(|(device, event)| discard(device, event)),
        3 => (device(), event()).prop_map(|(device, event)| int(device, event)),
        1 => (device(), event()).prop_map(|(device, event)| clear(device, event)),
        3 => (device(), event()).prop_map(|(device, event)| inv(device, event)),
        1 => collection().prop_map(invall),
        4 => (any_vcpu(), any_vcpu()).prop_map(|(from, to)| movall(from, to)),
        1 => any_vcpu().prop_map(sync),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => command().prop_map(Step::Command),
        12 => (0u32..4, event()).prop_map(|(device, event)| Step::Send { device, event }),
        4 => (lpi(), any::<bool>(), any::<u8>())
            .prop_map(|(lpi, enable, priority)| Step::Configure { lpi, enable, priority }),
        8 => (0..VCPUS, prop_oneof![3 => Just(0xffu8), 1 => any::<u8>()])
            .prop_map(|(vcpu, than)| Step::Acknowledge { vcpu, than }),
        2 => (0..VCPUS).prop_map(Step::EnableLpis),
        1 => (0..VCPUS).prop_map(Step::DisableLpis),
        1 => (0..VCPUS).prop_map(Step::InvalidateAll),
        1 => (0..VCPUS, lpi()).prop_map(|(vcpu, lpi)| Step::Invalidate { vcpu, lpi }),
        2 => (0..VCPUS, lpi()).prop_map(|(vcpu, lpi)| Step::SetLpi { vcpu, lpi }),
        1 => (0..VCPUS, lpi()).prop_map(|(vcpu, lpi)| Step::ClearLpi { vcpu, lpi }),
        1 => prop_oneof![3 => Just(true), 1 => Just(false)].prop_map(Step::EnableIts),
        1 => Just(Step::Migrate),
    ]
}

/// The real ITS and its naive counterpart.
struct Pair {
    rig: Rig,
    /// States of the naive ITS that are consistent with the real ITS's behavior so far.
    models: Vec<Model>,
    queues: Vec<crate::lpi::PendingLpis>,
}

impl Pair {
    /// Creates a real and a naive ITS with three devices, an LPI for each event, collection n
    /// mapped to vCPU n, and LPIs enabled at each redistributor.
    fn new() -> Self {
        let rig = Rig::running(VCPUS);
        let mut model = Model::enabled();
        for vcpu in 0..VCPUS {
            model.collections.insert(vcpu, vcpu);
            model.lpis_enabled.insert(vcpu);
        }
        for lpi in LPIS {
            model.memory.insert(lpi, Cached { enable: true, priority: 0xa0 });
        }
        (0..VCPUS).for_each(|vcpu| model.cache_all(vcpu));
        let queues = (0..VCPUS).map(|vcpu| rig.vcpu(vcpu)).collect();
        let mut pair = Self { rig, models: vec![model], queues };
        let devices = [mapd(0, 1), mapd(1, 6), mapd(2, 12)];
        let events = (0..6u32)
            .map(|at| mapti(at % 3, at / 3, LPIS.start + at, u16::try_from(at % 3).unwrap()));
        devices.into_iter().chain(events).for_each(|command| pair.command(command).unwrap());
        pair.each(Model::settle);
        pair
    }

    fn each(&mut self, change: impl FnMut(&mut Model)) {
        self.models.iter_mut().for_each(change);
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let rig = &self.rig;
        match step {
            Step::Command(command) => self.command(command)?,
            Step::Acknowledge { vcpu, than } => self.acknowledge(vcpu, than)?,
            Step::Send { device, event } => {
                rig.send(device, event);
                self.each(|model| model.send(device, event));
            }
            Step::Configure { lpi, enable, priority } => {
                rig.configure(lpi, enable, priority);
                self.each(|model| {
                    model.memory.insert(lpi, Cached { enable, priority });
                });
            }
            Step::EnableLpis(vcpu) => {
                rig.enable_lpis(vcpu);
                let before = core::mem::take(&mut self.models);
                self.models =
                    before.into_iter().flat_map(|model| model.after_enabling(vcpu)).collect();
            }
            Step::DisableLpis(vcpu) => {
                rig.disable_lpis(vcpu);
                self.each(|model| model.disable_lpis(vcpu));
            }
            Step::InvalidateAll(vcpu) => {
                rig.lpis.invalidate_all(cpu(vcpu));
                rig.finish_sweeps();
                self.each(|model| model.reload(vcpu, |_| true));
            }
            Step::Invalidate { vcpu, lpi } => {
                rig.lpis.invalidate(cpu(vcpu), Lpi::try_from(lpi).unwrap()).unwrap();
                rig.finish_sweeps();
                self.each(|model| model.invalidate(vcpu, lpi));
            }
            // A machine cannot combine events with direct LPIs.
            Step::SetLpi { lpi, .. } if self.models[0].maps(lpi) => {}
            Step::SetLpi { vcpu, lpi } => {
                rig.set_lpi(vcpu, lpi);
                self.each(|model| model.set_lpi(vcpu, lpi));
            }
            Step::ClearLpi { vcpu, lpi } => {
                rig.lpis.clear_lpi(cpu(vcpu), Lpi::try_from(lpi).unwrap());
                self.each(|model| model.clear_lpi(vcpu, lpi));
            }
            Step::EnableIts(enabled) => {
                rig.set_enabled(enabled);
                self.each(|model| model.its_enabled = enabled);
            }
            Step::Migrate => self.migrate(),
        }
        self.compare(step)
    }

    fn migrate(&mut self) {
        let enabled: Vec<_> = self.models[0].lpis_enabled.iter().copied().collect();
        self.rig = self.rig.restored_elsewhere(VCPUS, &enabled);
        self.queues = (0..VCPUS).map(|vcpu| self.rig.vcpu(vcpu)).collect();
        self.each(Model::migrate);
    }

    /// Executes a command. Commands are skipped while the ITS is disabled, because this test
    /// doesn't cover commands that execute later.
    fn command(&mut self, command: Command) -> Result<(), TestCaseError> {
        if !self.models[0].its_enabled {
            return Ok(());
        }
        let before = self.rig.its.command_faults().count;
        self.rig.run([command]);
        let faults = self.rig.its.command_faults();
        let found =
            faults.last.filter(|_| faults.count > before).map(|command| match command.fault {
                CommandFault::Refused(error) => error.reason,
                other => panic!("{other}"),
            });
        for model in &mut self.models {
            prop_assert_eq!(found, model.execute(command).err(), "{}", command);
        }
        Ok(())
    }

    fn acknowledge(&mut self, vcpu: u16, than: u8) -> Result<(), TestCaseError> {
        let queue = &mut self.queues[usize::from(vcpu)];
        let peeked = queue.highest(Priority::new(than));
        let taken = queue.take(Priority::new(than));
        prop_assert_eq!(peeked, taken);
        let taken = taken.map(|taken| (taken.priority.get(), taken.lpi.get()));
        let before = core::mem::take(&mut self.models);
        for model in &before {
            let ready = model.ready(vcpu);
            let best =
                ready.iter().map(|(priority, _)| *priority).min().filter(|best| *best < than);
            if taken.map(|(priority, _)| priority) != best {
                continue;
            }
            match taken {
                Some((priority, lpi)) => {
                    self.models.extend(model.after_taking(vcpu, priority, lpi));
                }
                None => self.models.push(model.clone()),
            }
        }
        prop_assert!(
            !self.models.is_empty(),
            "taken: {:?}, ready: {:?}",
            taken,
            before[0].ready(vcpu)
        );
        Ok(())
    }

    fn compare(&mut self, step: Step) -> Result<(), TestCaseError> {
        self.each(Model::settle);
        let before = core::mem::take(&mut self.models);
        let joined: BTreeSet<_> = before.into_iter().flat_map(Model::after_joining).collect();
        self.models.extend(joined);
        let pending = |vcpu| self.rig.pending(vcpu).into_iter().collect::<BTreeSet<u32>>();
        let found: Vec<_> = (0..VCPUS).map(pending).collect();
        let expected =
            |model: &Model| (0..VCPUS).map(|vcpu| model.pending(vcpu)).collect::<Vec<_>>();
        let first = expected(&self.models[0]);
        self.models.retain(|model| expected(model) == found);
        prop_assert!(
            !self.models.is_empty(),
            "pending: {:?}, not {:?}, after {:?}",
            found,
            first,
            step
        );
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    })]

    #[test]
    #[ignore = "slow: `cargo xtask test --long` runs it"]
    fn any_sequence_leaves_the_same_lpis_pending_as_the_naive_its(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut pair = Pair::new();
        for step in steps {
            pair.step(step)?;
        }
    }
}
