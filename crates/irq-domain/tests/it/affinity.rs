//! Affinity changes and CPU hotplug.

use crate::mock::{
    Addressing, CPUS, Controller, FAULT, FIRST, Hook, Hotplug as _, Kernel, Machine, Root, Store,
    StoreKind, attached, combinations,
};
use irq_domain::{
    AffinityPolicy, Config, Interrupts, IrqHandle, MoveError, MsiDevice, MsiDeviceConfig,
    PlacedVector, Placement, WiredRequest,
};
use msi_types::{
    Cpu, HwIrq, Masking, MoveOutcome, MsiError, RequesterId, Rewrite, Shape, StoreError, Trigger,
};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A device whose vectors all have a handler. The first vector is on CPU 0.
struct Setup {
    machine: Machine,
    store: Arc<Store>,
    // The handles, which are dropped before the device. A separate test covers handles that outlive
    // their device.
    handles: Vec<Arc<IrqHandle>>,
    device: MsiDevice,
}

fn setup(controller: Addressing, store: StoreKind, count: u16) -> Setup {
    let (machine, store, device) = attached(controller, store, count);
    let request = |slot| Arc::new(device.request(slot, "test", |_| {}).unwrap());
    let handles = (0..count).map(request).collect();
    Setup { machine, store, handles, device }
}

impl Setup {
    /// Fires a slot, and returns the CPU at which it becomes pending.
    fn fire(&self, slot: u16) -> Cpu {
        self.store.fire(slot);
        let pending = self.machine.controller.pending_at();
        self.machine.settle();
        assert_eq!(pending.len(), 1);
        pending[0].0
    }
}

#[test]
fn a_moved_interrupt_is_delivered_to_its_new_cpu() {
    for (kind, store) in combinations() {
        let setup = setup(kind, store, 1);
        for to in (0..CPUS).chain([1]).map(Cpu::new) {
            setup.handles[0].set_affinity(to).unwrap();
            assert_eq!(setup.handles[0].effective_affinity(), to);
            assert_eq!(setup.fire(0), to, "{kind:?} {store:?}");
        }
        assert_eq!(setup.handles[0].count(), 5);
    }
}

#[test]
fn a_move_without_a_new_message_writes_nothing() {
    for (kind, to) in [(Addressing::Stays, 3), (Addressing::NamesCpu, 0)] {
        let setup = setup(kind, StoreKind::MSIX, 1);
        let before = setup.store.writes.load(Ordering::Relaxed);
        let moved = setup.handles[0].set_affinity(Cpu::new(to)).unwrap();
        assert_eq!((moved.is_new, setup.handles[0].effective_affinity()), (to != 0, Cpu::new(to)));
        assert_eq!(setup.store.writes.load(Ordering::Relaxed), before, "{kind:?}");
    }
}

#[test]
fn set_affinity_undoes_or_adopts_a_move_by_the_controller() {
    for to in [0, 3].map(Cpu::new) {
        let setup = setup(Addressing::Stays, StoreKind::MSIX, 1);
        setup.machine.controller.displace(setup.handles[0].hwirq(), Cpu::new(3));
        assert_eq!(setup.fire(0), Cpu::new(3));
        let moved = setup.handles[0].set_affinity(to).unwrap();
        assert_eq!((moved.is_new, setup.handles[0].effective_affinity()), (true, to));
        assert_eq!(setup.fire(0), to);
    }
}

/// An MSI store that refuses to change its message.
const FIXED: StoreKind =
    StoreKind { rewrite: Rewrite::Never, masking: Masking::None, ..StoreKind::SLOW };

#[test]
fn a_fixed_message_or_an_atomic_endpoint_moves_unmasked() {
    let atomic = StoreKind { rewrite: Rewrite::Atomic64, ..FIXED };
    for (kind, store) in [(Addressing::Stays, FIXED), (Addressing::NamesCpuFarApart, atomic)] {
        let setup = setup(kind, store, 1);
        setup.handles[0].set_affinity(Cpu::new(2)).unwrap();
        assert_eq!(setup.fire(0), Cpu::new(2), "{store:?}");
    }
}

#[test]
fn a_failed_move_keeps_the_message_and_the_target() {
    let (near, far) = (Addressing::NamesCpu, Addressing::NamesCpuFarApart);
    let narrow = StoreKind { address_bits: 32, ..StoreKind::MSIX };
    let too_wide = MsiError::AddressTooWide { address: 0x2_080a_0040, bits: 32 };
    let injected = MoveError::Store(StoreError { slot: 0, reason: "injected" });
    let misaligned = MoveError::Misaligned { data: FIRST + 2, count: 4 };
    let no_fault = |_: &Setup| {};
    let in_store = |setup: &Setup| setup.store.fail_in.store(0, Ordering::Relaxed);
    let in_move = |setup: &Setup| setup.machine.controller.fail_in.store(0, Ordering::Relaxed);
    let in_data = |setup: &Setup| setup.machine.controller.skew.store(2, Ordering::Relaxed);
    let cases: [(_, _, _, fn(&Setup), _); 7] = [
        (far, StoreKind::MSI, 1, no_fault, MsiError::WouldTear.into()),
        (near, FIXED, 1, no_fault, MsiError::WouldTear.into()),
        (far, narrow, 1, no_fault, too_wide.into()),
        (near, StoreKind::MSIX, 1, in_store, injected),
        (near, StoreKind::SLOW, 1, in_store, injected),
        (near, StoreKind::MSIX, 1, in_move, FAULT.into()),
        (near, StoreKind::MSI_MASKABLE, 4, in_data, misaligned),
    ];
    for (kind, store, count, fault, error) in cases {
        let setup = setup(kind, store, count);
        let handle = &setup.handles[usize::from(count / 2)];
        let before = (setup.store.message(0), handle.effective_affinity());
        fault(&setup);
        let row = format!("{kind:?} {store:?} {error}");
        assert_eq!(handle.set_affinity(Cpu::new(2)), Err(error), "{row}");
        // A move that did not begin has no outcome.
        let outcomes = vec![MoveOutcome::RolledBack; usize::from(error != FAULT.into())];
        assert_eq!(setup.machine.controller.outcomes(), outcomes, "{row}");
        assert_eq!((setup.store.message(0), handle.effective_affinity()), before, "{row}");
        assert_eq!(setup.fire(0), Cpu::new(0), "{row}");
    }
}

#[test]
fn a_message_during_a_rewrite_is_delivered_to_the_new_cpu() {
    let setup = setup(Addressing::NamesCpu, StoreKind::MSIX, 1);
    let store = setup.store.clone();
    *setup.store.meanwhile.lock().unwrap() = Some(Hook(Box::new(move || store.fire(0))));
    setup.handles[0].set_affinity(Cpu::new(2)).unwrap();
    assert_eq!(setup.machine.controller.pending_at(), [(Cpu::new(2), setup.handles[0].hwirq())]);
}

#[test]
fn vectors_that_share_one_message_move_together() {
    for store in [StoreKind::MSI, StoreKind::MSI_MASKABLE] {
        let setup = setup(Addressing::NamesCpu, store, 4);
        let moved = setup.handles[2].set_affinity(Cpu::new(3)).unwrap();
        assert_eq!(moved.others, [0, 1, 3].map(|slot: usize| setup.handles[slot].irq()));
        for (slot, handle) in (0..).zip(&setup.handles) {
            assert_eq!(handle.effective_affinity(), Cpu::new(3));
            assert_eq!(setup.fire(slot), Cpu::new(3));
            assert_eq!(handle.count(), 1);
        }
    }
}

#[test]
fn vectors_of_a_group_with_a_stable_message_move_individually() {
    let setup = setup(Addressing::Stays, StoreKind::MSI, 4);
    let moved = setup.handles[2].set_affinity(Cpu::new(3)).unwrap();
    assert_eq!((moved.is_new, moved.others), (true, vec![]));
    assert_eq!([setup.fire(1), setup.fire(2)], [Cpu::new(0), Cpu::new(3)]);
}

#[test]
fn a_vector_disabled_during_a_move_stays_masked() {
    let setup = setup(Addressing::NamesCpu, StoreKind::MSIX, 1);
    let handle = setup.handles[0].clone();
    let other_cpu = handle.clone();
    *setup.store.meanwhile.lock().unwrap() = Some(Hook(Box::new(move || other_cpu.disable())));
    handle.set_affinity(Cpu::new(2)).unwrap();
    assert!(setup.store.is_masked(0));
    handle.enable();
    assert!(!setup.store.is_masked(0));
}

#[test]
fn an_enable_during_a_move_takes_effect_when_the_move_ends() {
    let setup = setup(Addressing::NamesCpu, StoreKind::MSIX, 1);
    let handle = setup.handles[0].clone();
    handle.disable();
    // A message that was in flight when the interrupt was disabled must be sent again when it is
    // enabled.
    setup.machine.interrupts.dispatch(Cpu::new(0), handle.hwirq());
    let (other_cpu, store, controller) =
        (handle.clone(), setup.store.clone(), setup.machine.controller.clone());
    *setup.store.meanwhile.lock().unwrap() = Some(Hook(Box::new(move || {
        other_cpu.enable();
        assert!(store.is_masked(0), "unmasked during the rewrite");
        assert_eq!(controller.pending_at(), [], "sent again during the move");
    })));
    handle.set_affinity(Cpu::new(2)).unwrap();
    assert!(!setup.store.is_masked(0));
    assert_eq!(setup.machine.controller.pending_at(), [(Cpu::new(2), handle.hwirq())]);
}

#[test]
fn an_enable_and_disable_during_a_move_lose_no_message() {
    let setup = setup(Addressing::NamesCpu, StoreKind::MSIX, 1);
    let handle = setup.handles[0].clone();
    handle.disable();
    setup.machine.interrupts.dispatch(Cpu::new(0), handle.hwirq());
    let other_cpu = handle.clone();
    *setup.store.meanwhile.lock().unwrap() = Some(Hook(Box::new(move || {
        other_cpu.enable();
        other_cpu.disable();
    })));
    handle.set_affinity(Cpu::new(2)).unwrap();
    assert_eq!(setup.machine.controller.pending_at(), []);
    handle.enable();
    setup.machine.settle();
    assert_eq!(handle.count(), 1);
}

#[test]
fn taking_a_cpu_offline_moves_its_interrupts_away() {
    for kind in [Addressing::Stays, Addressing::NamesCpu] {
        let setup = setup(kind, StoreKind::MSIX, 8);
        assert_eq!(setup.machine.interrupts.offline(Cpu::new(1)), Ok(vec![]));
        for (slot, handle) in (0..).zip(&setup.handles) {
            assert_ne!(handle.effective_affinity(), Cpu::new(1));
            assert_eq!(setup.fire(slot), handle.effective_affinity());
        }
    }
}

#[test]
fn stranded_interrupts_are_reported() {
    let setup = setup(Addressing::NamesCpuFarApart, StoreKind::MSI, 1);
    let irq = setup.handles[0].irq();
    let stranded = setup.machine.interrupts.offline(setup.handles[0].effective_affinity()).unwrap();
    let stranded: Vec<_> = stranded.iter().map(|stranded| (stranded.irq, stranded.error)).collect();
    assert_eq!(stranded, [(irq, MoveError::Controller(MsiError::WouldTear))]);
}

#[test]
fn taking_the_last_cpu_offline_strands_its_interrupts() {
    let setup = setup(Addressing::Stays, StoreKind::MSIX, 4);
    for cpu in 1..CPUS {
        assert_eq!(setup.machine.interrupts.offline(Cpu::new(cpu)), Ok(vec![]));
    }
    let stranded = setup.machine.interrupts.offline(Cpu::new(0)).unwrap();
    assert_eq!(stranded.len(), 4);
    assert!(stranded.iter().all(|each| each.error == MoveError::Offline(Cpu::new(0))));
}

#[test]
fn an_offline_cpu_is_assigned_no_interrupt() {
    let machine = Machine::new(Addressing::Stays);
    machine.interrupts.offline(Cpu::new(2)).unwrap();
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    let granted = device.allocate(Shape::Independent, 8..=8).unwrap();
    assert!(granted.iter().all(|vector| vector.cpu != Cpu::new(2)));
    let refused = machine.interrupts.set_affinity(granted[0].irq, Cpu::new(2));
    assert_eq!(refused, Err(MoveError::Offline(Cpu::new(2))));
    machine.interrupts.bring_online(Cpu::new(2)).unwrap();
    machine.interrupts.set_affinity(granted[0].irq, Cpu::new(2)).unwrap();
}

#[test]
fn an_unreachable_cpu_is_passed_over() {
    let machine = Machine::new(Addressing::NamesCpu);
    machine.controller.set_unreachable(2);
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    let granted = device.allocate(Shape::Independent, 8..=8).unwrap();
    assert!(granted.iter().all(|vector| vector.cpu != Cpu::new(2)));
    assert_eq!(machine.interrupts.offline(Cpu::new(1)), Ok(vec![]));
    assert!(device.vectors().unwrap().iter().all(|vector| ![1, 2].contains(&vector.cpu.get())));
}

#[test]
fn an_unknown_cpu_is_refused() {
    let setup = setup(Addressing::Stays, StoreKind::MSIX, 1);
    let unknown = Cpu::new(CPUS);
    assert!(setup.machine.interrupts.bring_online(unknown).is_err());
    assert!(setup.machine.interrupts.offline(unknown).is_err());
    assert_eq!(setup.handles[0].set_affinity(unknown), Err(MoveError::Offline(unknown)));
}

#[test]
fn setting_the_affinity_of_a_dropped_device_fails() {
    let setup = setup(Addressing::Stays, StoreKind::MSIX, 1);
    let irq = setup.handles[0].irq();
    drop(setup.device);
    assert_eq!(setup.handles[0].set_affinity(Cpu::new(1)), Err(MoveError::UnknownIrq(irq)));
    let refused = setup.machine.interrupts.set_affinity(irq, Cpu::new(1));
    assert_eq!(refused, Err(MoveError::UnknownIrq(irq)));
}

#[test]
fn a_stranded_interrupt_cannot_be_moved_to_its_offline_cpu() {
    let setup = setup(Addressing::NamesCpu, StoreKind::MSIX, 1);
    let handle = &setup.handles[0];
    let here = handle.effective_affinity();
    setup.machine.controller.fail_in.store(0, Ordering::Relaxed);
    assert_eq!(setup.machine.interrupts.offline(here).unwrap().len(), 1);
    assert_eq!(handle.effective_affinity(), here);
    assert_eq!(handle.set_affinity(here).unwrap_err(), MoveError::Offline(here));
}

struct Policy(fn(&Placement<'_>) -> Cpu);

impl AffinityPolicy for Policy {
    fn choose(&self, of: &Placement<'_>) -> Cpu {
        self.0(of)
    }
}

/// Creates a core with the given policy and only the boot CPU online, and requests a wired
/// interrupt.
fn line_under(policy: fn(&Placement<'_>) -> Cpu) -> (Interrupts, IrqHandle) {
    let cpus = NonZeroU16::new(4).unwrap();
    let config = Config::new(cpus, Arc::new(Kernel)).with_wired(Arc::new(Root::default()));
    let interrupts = Interrupts::new(config.with_policy(Arc::new(Policy(policy)))).unwrap();
    let request = WiredRequest::new(HwIrq::new(40), Trigger::Edge, "line");
    let handle = interrupts.request_wired(request, |_| {}).unwrap();
    (interrupts, handle)
}

#[test]
fn a_policy_choice_outside_the_set_falls_back_to_the_first() {
    let (_interrupts, handle) = line_under(|_| Cpu::new(9));
    assert_eq!(handle.effective_affinity(), Cpu::new(0));
}

/// Places the even slots of the first device at CPU 1 and its odd ones at CPU 2, and line 40 at
/// CPU 2; prefers CPU 0 for everything else.
fn by_interrupt(of: &Placement<'_>) -> Cpu {
    let device = of.device.zip(of.requester);
    Cpu::new(match (device, of.vector) {
        (Some(("first", FIRST_DEVICE)), PlacedVector::Slot(slot)) => 1 + u32::from(slot % 2),
        (None, PlacedVector::Wired(hwirq)) if hwirq == HwIrq::new(40) => 2,
        _ => 0,
    })
}

const FIRST_DEVICE: RequesterId = RequesterId::pci(1, 0, 0);

#[test]
fn a_policy_learns_which_interrupt_it_places() {
    let (interrupts, line) = line_under(by_interrupt);
    let controller = Controller::new(Addressing::NamesCpu);
    (1..CPUS).for_each(|cpu| drop(interrupts.bring_online(Cpu::new(cpu)).unwrap()));
    let attach = |name, requester| {
        let store = Store::new(StoreKind::MSIX, &controller);
        let config = MsiDeviceConfig::new(name, requester, controller.clone(), store);
        MsiDevice::attach(&interrupts, config).unwrap()
    };
    let [first, second] =
        [attach("first", FIRST_DEVICE), attach("second", RequesterId::pci(2, 0, 0))];
    let cpus = |device: &MsiDevice| {
        device.vectors().unwrap().iter().map(|vector| vector.cpu.get()).collect::<Vec<_>>()
    };
    first.allocate(Shape::Independent, 4..=4).unwrap();
    second.allocate_at(&[2, 5]).unwrap();
    assert_eq!((cpus(&first), cpus(&second)), (vec![1, 2, 1, 2], vec![0, 0]));
    // The policy places each interrupt again when its CPU goes offline.
    for info in interrupts.snapshot().unwrap() {
        interrupts.set_affinity(info.irq, Cpu::new(3)).unwrap();
    }
    interrupts.offline(Cpu::new(3)).unwrap();
    assert_eq!((cpus(&first), cpus(&second)), (vec![1, 2, 1, 2], vec![0, 0]));
    assert_eq!(line.effective_affinity(), Cpu::new(2));
}
