//! Exhausted heaps. A failed allocation must be an error without side effects, and operations that
//! free resources must not allocate.

use crate::layer::{Translation, iommu};
use crate::mock::{
    Addressing, CPUS, Hotplug as _, Kernel, Machine, StoreKind, attached, in_hard_irq,
};
use doorbell_test_support::{after_failures, outside, with_allocations};
use irq_domain::layer::DoorbellMode;
use irq_domain::{
    Config, Dispatched, Interrupts, MoveError, MsiDevice, MsiDeviceConfig, MsiDeviceError,
    RequestError, SharedDevice, WiredRequest,
};
use msi_types::{Cpu, Granule, HwIrq, MsiError, RequesterId, Shape, Trigger};
use std::num::NonZeroU16;
use std::sync::Arc;

const DEVICE: RequesterId = RequesterId::pci(1, 0, 0);
const LINE: WiredRequest<'static> = WiredRequest::new(HwIrq::new(40), Trigger::Edge, "line");

/// Returns the number of IRQ numbers, devices, vectors and lines in use.
fn in_use(machine: &Machine) -> [usize; 4] {
    let Machine { interrupts, controller, root } = machine;
    let lines = root.lines.lock().unwrap().len();
    let numbers = interrupts.snapshot().unwrap().len();
    [numbers, controller.devices_attached(), controller.vectors_in_use(), lines]
}

#[test]
fn creating_the_core_without_memory_fails() {
    let config = || outside(|| Config::new(NonZeroU16::new(4).unwrap(), Arc::new(Kernel)));
    let interrupts = after_failures(4, || Interrupts::new(config()), drop);
    assert_eq!(interrupts.online_cpus().collect::<Vec<_>>(), [Cpu::new(0)]);
}

#[test]
fn an_attach_without_memory_is_rolled_back() {
    let machine = Machine::new(Addressing::Stays);
    let store = machine.store(StoreKind::MSIX);
    let nothing_remains = |error| {
        assert_eq!(error, MsiDeviceError::NoMemory);
        assert_eq!(in_use(&machine), [0; 4]);
    };
    drop(after_failures(4, || machine.try_attach(&store), nothing_remains));
    let attach =
        || SharedDevice::attach(&machine.interrupts, DEVICE, machine.controller.clone(), 16);
    let shared = after_failures(1, attach, nothing_remains);
    let one_remains = |error| {
        assert_eq!((error, in_use(&machine)), (MsiDeviceError::NoMemory, [0, 1, 0, 0]));
    };
    drop(after_failures(3, || shared.domain("store", store.clone()), one_remains));
    drop(shared);
    assert_eq!(in_use(&machine), [0; 4]);
}

/// Runs an allocation that fails at each of its memory allocations in turn, and checks that each
/// failure leaves the machine unchanged.
fn allocate_without_memory(
    kind: StoreKind,
    least: u32,
    allocate: impl Fn(&MsiDevice) -> Result<Vec<irq_domain::MsiVector>, MsiDeviceError>,
) {
    let machine = Machine::new(Addressing::NamesCpu);
    let store = machine.store(kind);
    let device = machine.attach(&store);
    let before = in_use(&machine);
    let granted = after_failures(
        least,
        || allocate(&device),
        |error| {
            assert_eq!(error, MsiDeviceError::NoMemory);
            assert_eq!(in_use(&machine), before);
            assert!(!store.enabled.load(std::sync::atomic::Ordering::SeqCst));
        },
    );
    assert_eq!(device.vectors().unwrap(), granted);
    for slot in granted.iter().map(|vector| vector.slot) {
        let handle = device.request(slot, "test", |_| {}).unwrap();
        store.fire(slot);
        machine.settle();
        assert_eq!(handle.count(), 1);
    }
    drop(device);
    assert_eq!(in_use(&machine), [0; 4]);
}

#[test]
fn an_allocation_that_runs_out_of_memory_frees_its_vectors() {
    allocate_without_memory(StoreKind::MSIX, 10, |device| {
        device.allocate(Shape::Independent, 1..=8)
    });
    allocate_without_memory(StoreKind::MSI, 8, |device| {
        device.allocate(Shape::AlignedGroup, 8..=8)
    });
    allocate_without_memory(StoreKind::LEVEL, 10, |device| {
        device.allocate(Shape::Independent, 2..=3)
    });
    allocate_without_memory(StoreKind::MSIX, 10, |device| device.allocate_at(&[5, 1, 7]));
    let among = [1, 2].map(Cpu::new);
    allocate_without_memory(StoreKind::MSIX, 8, |device| device.allocate_managed(3, &among));
}

#[test]
fn a_handler_without_memory_is_refused() {
    let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 2);
    let before = in_use(&machine);
    let refused = |error| {
        assert_eq!(error, RequestError::NoMemory);
        assert_eq!(in_use(&machine), before);
    };
    let owned = Arc::new(());
    let handler = || {
        let owned = owned.clone();
        move |_: &irq_domain::IrqContext<'_>| drop(owned.clone())
    };
    let interrupts = &machine.interrupts;
    let message = after_failures(3, || device.request(1, "message", handler()), refused);
    let line = after_failures(5, || interrupts.request_wired(LINE, handler()), refused);
    drop(line);
    let (private, edge) = (HwIrq::new(27), Trigger::Edge);
    let private = || interrupts.request_per_cpu(private, edge, "timer", handler());
    drop(after_failures(5, private, refused));
    assert_eq!(in_use(&machine), before);
    drop(message);
    assert_eq!(Arc::strong_count(&owned), 1);
}

#[test]
fn a_group_move_without_memory_keeps_the_affinity() {
    let (_machine, _, device) = attached(Addressing::NamesCpu, StoreKind::MSI, 4);
    let handle = device.request(1, "message", |_| {}).unwrap();
    let before = handle.effective_affinity();
    let to = Cpu::new((before.get() + 1) % CPUS);
    let stays =
        |error| assert_eq!((error, handle.effective_affinity()), (MoveError::NoMemory, before));
    let moved = after_failures(1, || handle.set_affinity(to), stays);
    assert_eq!((moved.to, moved.others.len()), (to, 3));
}

#[test]
fn a_snapshot_without_memory_fails() {
    let machine = Machine::new(Addressing::Stays);
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    let granted = device.allocate(Shape::Independent, 3..=3).unwrap();
    let interrupts = &machine.interrupts;
    assert_eq!(after_failures(4, || interrupts.snapshot(), drop).len(), 3);
    assert!(after_failures(1, || interrupts.irq_info(granted[0].irq), drop).is_some());
    assert_eq!(after_failures(1, || device.vectors(), drop), granted);
}

#[test]
fn a_layer_without_memory_releases_pages_and_vectors() {
    let machine = Machine::new(Addressing::NamesCpu);
    let translation = Translation::new(DoorbellMode::Mapped(Granule::Size4K));
    let parent = iommu(&machine, &translation);
    let store = machine.store(StoreKind::MSIX);
    let config = || MsiDeviceConfig::new("device", DEVICE, parent.clone(), store.clone());
    let no_memory = |error| match error {
        MsiDeviceError::NoMemory | MsiDeviceError::Controller(MsiError::NoMemory(_)) => {}
        other => panic!("{other}"),
    };
    let attach = || MsiDevice::attach(&machine.interrupts, config());
    let device = after_failures(5, attach, |error| {
        no_memory(error);
        assert_eq!(in_use(&machine), [0; 4]);
    });
    let allocate = || device.allocate(Shape::Independent, 2..=2);
    after_failures(12, allocate, |error| {
        no_memory(error);
        assert_eq!((in_use(&machine), translation.pages()), ([0, 1, 0, 0], 0));
    });
    let handle = device.request(0, "test", |_| {}).unwrap();
    let before = handle.effective_affinity();
    let moved = with_allocations(0, || handle.set_affinity(Cpu::new(3))).unwrap();
    assert!(moved.to != before && moved.is_new);
    with_allocations(0, || drop(device));
    assert_eq!((in_use(&machine), translation.pages()), ([0; 4], 0));
}

/// A device with eight handlers, one of them on a managed vector, a wired interrupt and a timer.
struct Busy {
    machine: Machine,
    device: MsiDevice,
    handles: Vec<irq_domain::IrqHandle>,
    private: irq_domain::PerCpuHandle,
}

impl Busy {
    fn new() -> Self {
        let (machine, _, device) = attached(Addressing::NamesCpu, StoreKind::MSIX, 7);
        device.allocate_managed(7, &[1, 2].map(Cpu::new)).unwrap();
        let mut handles: Vec<_> =
            (0..8).map(|slot| device.request(slot, "test", |_| {}).unwrap()).collect();
        handles.push(machine.interrupts.request_wired(LINE, |_| {}).unwrap());
        handles[0].set_affinity(Cpu::new(1)).unwrap();
        let (interrupts, private) = (&machine.interrupts, HwIrq::new(27));
        let private = interrupts.request_per_cpu(private, Trigger::Edge, "timer", |_| {}).unwrap();
        Self { machine, device, handles, private }
    }
}

#[test]
fn cpu_hotplug_needs_no_memory() {
    let Busy { machine, handles, .. } = &Busy::new();
    for cpu in [1, 2, 3].map(Cpu::new) {
        with_allocations(0, || {
            machine.interrupts.cpu_offline(cpu, |stranded| panic!("{stranded:?}")).unwrap();
        });
        assert!(handles.iter().all(|handle| handle.effective_affinity() != cpu || cpu.get() == 2));
    }
    let managed = handles[7].irq();
    assert!(!machine.interrupts.irq_info(managed).unwrap().unwrap().enabled);
    with_allocations(0, || {
        machine.interrupts.cpu_online(Cpu::new(1), |stranded| panic!("{stranded:?}")).unwrap();
    });
    assert!(machine.interrupts.irq_info(managed).unwrap().unwrap().enabled);
    assert_eq!(machine.interrupts.bring_online(Cpu::new(2)), Ok(vec![]));
}

#[test]
fn releasing_resources_needs_no_memory() {
    let Busy { machine, device, mut handles, private } = Busy::new();
    let in_interrupt = handles.split_off(4);
    with_allocations(0, || {
        in_hard_irq(0, || drop(in_interrupt));
        for handle in &handles {
            handle.disable();
            handle.enable();
        }
        device.restore().unwrap();
        machine.interrupts.reclaim();
        device.free(5).unwrap();
        drop((handles, private));
        in_hard_irq(0, || drop(device));
        machine.interrupts.reclaim();
    });
    assert_eq!(in_use(&machine), [0; 4]);
}

#[test]
fn dropping_handles_in_interrupts_adds_no_allocations() {
    let (_machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    drop(device.request(0, "first", |_| {}).unwrap());
    for _ in 0..100 {
        // The request makes one allocation for the handler, and two for its name.
        let handle = with_allocations(3, || device.request(0, "test", |_| {})).unwrap();
        in_hard_irq(0, || drop(handle));
    }
}

#[test]
fn dispatch_needs_no_memory() {
    let Busy { machine, handles, private, .. } = &Busy::new();
    with_allocations(0, || {
        for handle in handles {
            let cpu = handle.effective_affinity().get();
            assert_eq!(machine.dispatch(cpu, handle.hwirq()), Dispatched::Handled);
        }
        in_hard_irq(1, || private.enable_here());
        assert_eq!(machine.dispatch(1, private.hwirq()), Dispatched::Handled);
    });
}

#[test]
fn a_hierarchy_is_described_without_memory() {
    struct Counter(usize);
    impl std::fmt::Write for Counter {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }
    let Busy { machine, handles, .. } = &Busy::new();
    let mut out = Counter(0);
    with_allocations(0, || machine.interrupts.describe(handles[0].irq(), &mut out).unwrap());
    assert!(out.0 > 100);
}

/// Requests and drops a handle repeatedly, each time after failures at every allocation. If a
/// failure did not release its room in the list of deferred frees, a later request would allocate
/// more.
fn assert_failures_reserve_nothing<H, E>(mut request: impl FnMut() -> Result<H, E>) {
    drop(request());
    let mut failures = || doorbell_test_support::until_it_succeeds(&mut request, drop).1;
    let first = failures();
    assert!(first > 1);
    for _ in 0..64 {
        assert_eq!(failures(), first);
    }
}

#[test]
fn a_failed_request_reserves_nothing() {
    let machine = Machine::new(Addressing::Stays);
    let interrupts = &machine.interrupts;
    assert_failures_reserve_nothing(|| {
        interrupts.request_per_cpu(HwIrq::new(27), Trigger::Level, "timer", |_| {})
    });
    assert_failures_reserve_nothing(|| interrupts.request_wired(LINE, |_| {}));
    let store = machine.store(StoreKind::MSIX);
    assert_failures_reserve_nothing(|| machine.try_attach(&store));
    let device = machine.attach(&store);
    device.allocate_at(&[0]).unwrap();
    assert_failures_reserve_nothing(|| device.request(0, "vector", |_| {}));
}
