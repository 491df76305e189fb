//! Several devices on one level-triggered line.

use crate::mock::{Addressing, CPUS, Hotplug as _, LongHandler, Machine, Root, take_spurious};
use doorbell_test_support::after_failures;
use irq_domain::{
    Deferral, Dispatched, IrqHandle, IrqReturn, RequestError, Sharing, Start, Unhandled,
    WiredRequest,
};
use msi_types::{Cpu, HwIrq, Trigger, WiredParent};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

const LINE: HwIrq = HwIrq::new(40);
/// Number of handlers that a thread adds and removes. Miri is slow, but switches threads more
/// often.
const VISITS: u32 = 2_000;

fn named(name: &str) -> WiredRequest<'_> {
    WiredRequest::new(LINE, Trigger::Level, name).with_sharing(Sharing::Shared)
}

/// A device that asserts the line until its handler serves it.
#[derive(Default)]
struct Device {
    asserted: AtomicBool,
    runs: AtomicU32,
}

impl Device {
    fn request(self: &Arc<Self>, machine: &Machine, request: WiredRequest<'_>) -> IrqHandle {
        let device = self.clone();
        let handler = move |_: &irq_domain::IrqContext<'_>| {
            device.runs.fetch_add(1, SeqCst);
            if device.asserted.swap(false, SeqCst) { IrqReturn::Handled } else { IrqReturn::None }
        };
        machine.interrupts.request_wired(request, handler).unwrap()
    }

    fn runs(&self) -> u32 {
        self.runs.load(SeqCst)
    }
}

fn device(machine: &Machine, name: &str) -> (Arc<Device>, IrqHandle) {
    let device = Arc::new(Device::default());
    let handle = device.request(machine, named(name));
    (device, handle)
}

/// Creates a machine with two devices on the line.
fn two_devices() -> (Machine, [(Arc<Device>, IrqHandle); 2]) {
    let machine = Machine::new(Addressing::Stays);
    let devices = ["first", "second"].map(|name| device(&machine, name));
    (machine, devices)
}

fn arrive(machine: &Machine) -> Dispatched {
    machine.dispatch(1, LINE)
}

fn is_masked(machine: &Machine) -> bool {
    machine.root.line(LINE.get()).unwrap().masked
}

#[test]
fn all_handlers_of_a_line_run() {
    let (machine, [(first, a), (second, b)]) = two_devices();
    assert_eq!((a.irq(), a.hwirq()), (b.irq(), b.hwirq()), "one line has one number");
    second.asserted.store(true, SeqCst);
    assert_eq!(arrive(&machine), Dispatched::Handled);
    first.asserted.store(true, SeqCst);
    assert_eq!(arrive(&machine), Dispatched::Handled);
    assert_eq!((first.runs(), second.runs(), a.count()), (2, 2, 2));
    assert_eq!(arrive(&machine), Dispatched::Unhandled(Unhandled::IrqNone));
    assert_eq!(machine.interrupts.irq_info(b.irq()).unwrap().unwrap().unhandled, 1);
}

#[test]
fn sharing_requires_level_trigger_and_a_sharing_holder() {
    let machine = Machine::new(Addressing::Stays);
    let refused = |request| machine.interrupts.request_wired(request, |_| {}).err();
    let edge = named("edge").with_trigger(Trigger::Edge);
    assert_eq!(refused(edge), Some(RequestError::SharedEdge(LINE)));
    let exclusive = named("exclusive").with_sharing(Sharing::Exclusive);
    let holder = machine.interrupts.request_wired(exclusive, |_| {}).unwrap();
    assert_eq!(refused(named("shared")), Some(RequestError::InUse(LINE)));
    drop(holder);
    let _holder = device(&machine, "first");
    assert_eq!(refused(exclusive), Some(RequestError::InUse(LINE)));
    assert_eq!(refused(exclusive.with_trigger(Trigger::Edge)), Some(RequestError::InUse(LINE)));
    assert_eq!(machine.interrupts.snapshot().unwrap().len(), 1);
}

#[test]
fn a_line_of_another_controller_is_not_shared() {
    let machine = Machine::new(Addressing::Stays);
    let (first, _a) = device(&machine, "first");
    let other: Arc<dyn WiredParent> = Arc::new(Root::default());
    let refused = machine.interrupts.request_wired_at(&other, named("stranger"), |_| {});
    assert_eq!(refused.err(), Some(RequestError::InUse(LINE)));
    arrive(&machine);
    assert_eq!(first.runs(), 1);
}

#[test]
fn the_last_handle_frees_the_line() {
    let (machine, [(first, a), (second, b)]) = two_devices();
    drop(a);
    assert_eq!(Arc::strong_count(&first), 1, "the handler was not freed");
    assert!(!is_masked(&machine));
    second.asserted.store(true, SeqCst);
    assert_eq!((arrive(&machine), first.runs()), (Dispatched::Handled, 0));
    drop(b);
    assert_eq!(Arc::strong_count(&second), 1, "the handler was not freed");
    assert_eq!(machine.root.line(LINE.get()), None);
    assert!(machine.interrupts.snapshot().unwrap().is_empty());
    assert_eq!(arrive(&machine), Dispatched::Unhandled(Unhandled::Released));
    let exclusive = named("exclusive").with_sharing(Sharing::Exclusive);
    let _exclusive = machine.interrupts.request_wired(exclusive, |_| {}).unwrap();
}

#[test]
fn disabling_through_one_handle_masks_the_line_for_all_handlers() {
    let (machine, [(first, a), (second, b)]) = two_devices();
    a.disable();
    assert!(is_masked(&machine));
    assert_eq!(arrive(&machine), Dispatched::Deferred(Deferral::Disabled));
    b.enable();
    assert!(is_masked(&machine), "a handle undid another's disable");
    b.disable();
    a.enable();
    assert!(is_masked(&machine));
    b.enable();
    assert!(!is_masked(&machine));
    arrive(&machine);
    assert_eq!((first.runs(), second.runs()), (1, 1));
}

#[test]
fn a_dropped_handle_undoes_its_disables() {
    let (machine, [(_first, a), (second, _b)]) = two_devices();
    a.disable();
    a.disable();
    drop(a);
    assert!(!is_masked(&machine));
    arrive(&machine);
    assert_eq!(second.runs(), 1);
    let (third, c) = device(&machine, "third");
    c.enable();
    arrive(&machine);
    assert_eq!((second.runs(), third.runs()), (2, 1), "the next handler inherits no disable");
}

#[test]
fn requesting_a_disabled_handler_masks_the_shared_line() {
    let machine = Machine::new(Addressing::Stays);
    let device = Arc::new(Device::default());
    let first = device.request(&machine, named("first").with_start(Start::Disabled));
    assert!(is_masked(&machine));
    first.enable();
    assert!(!is_masked(&machine));
    let second = device.request(&machine, named("second").with_start(Start::Disabled));
    first.enable();
    assert!(is_masked(&machine));
    second.enable();
    assert!(!is_masked(&machine));
}

#[test]
fn a_spurious_shared_line_is_disabled_for_all_handlers() {
    let (machine, [(first, a), (_second, b)]) = two_devices();
    let disabled_as_spurious = || {
        for _ in 0..99_901 {
            arrive(&machine);
        }
        take_spurious()
    };
    assert_eq!((disabled_as_spurious(), is_masked(&machine)), (Some(a.irq()), true));
    b.disable();
    b.enable();
    assert!(is_masked(&machine), "only an enable without a disable unmasks it");
    b.enable();
    assert!(!is_masked(&machine));
    first.asserted.store(true, SeqCst);
    assert_eq!(arrive(&machine), Dispatched::Handled);
    arrive(&machine);
    assert_eq!((disabled_as_spurious(), is_masked(&machine)), (Some(a.irq()), true));
    let _third = device(&machine, "third");
    assert!(!is_masked(&machine), "the new handler may serve the device that asserts the line");
    assert_eq!(arrive(&machine), Dispatched::Unhandled(Unhandled::IrqNone));
}

#[test]
fn one_active_device_keeps_a_shared_line_from_being_disabled_as_spurious() {
    let (machine, [(_first, _a), (second, _b)]) = two_devices();
    for _ in 0..200_000 {
        second.asserted.store(true, SeqCst);
        arrive(&machine);
    }
    assert_eq!((take_spurious(), is_masked(&machine)), (None, false));
}

#[test]
fn all_handlers_of_a_line_share_its_affinity() {
    let (machine, [(_first, a), (_second, b)]) = two_devices();
    assert!(a.set_affinity(Cpu::new(2)).unwrap().is_new);
    assert_eq!(b.effective_affinity(), Cpu::new(2));
    drop(a);
    assert_eq!(machine.root.line(LINE.get()).unwrap().target, Some(Cpu::new(2)));
    machine.interrupts.offline(Cpu::new(2)).unwrap();
    assert_ne!(b.effective_affinity(), Cpu::new(2));
}

#[test]
fn a_shared_line_lists_the_names_of_all_its_handlers() {
    let (machine, [(_first, a), (_second, b)]) = two_devices();
    let name = || machine.interrupts.irq_info(b.irq()).unwrap().unwrap().name.unwrap();
    assert_eq!(&*name(), "first, second");
    drop(a);
    assert_eq!(&*name(), "second");
    let (_third, _c) = device(&machine, "third");
    let mut text = String::new();
    machine.interrupts.describe(b.irq(), &mut text).unwrap();
    assert!(text.starts_with("irq 0: third, second, level"), "{text}");
}

#[test]
fn a_handler_may_drop_any_handle_of_its_line() {
    let machine = Machine::new(Addressing::Stays);
    let handles = Arc::new(Mutex::new(Vec::new()));
    let (other, b) = device(&machine, "other");
    let mine = handles.clone();
    let drop_all = move |_: &irq_domain::IrqContext<'_>| mine.lock().unwrap().clear();
    let own = machine.interrupts.request_wired(named("own"), drop_all).unwrap();
    handles.lock().unwrap().extend([own, b]);
    assert_eq!(arrive(&machine), Dispatched::Handled);
    assert_eq!(Arc::strong_count(&other), 2, "freed in hard-IRQ context");
    assert_eq!(arrive(&machine), Dispatched::Unhandled(Unhandled::Released));
    let (again, _c) = device(&machine, "again");
    assert_eq!((Arc::strong_count(&other), Arc::strong_count(&handles)), (1, 1));
    arrive(&machine);
    assert_eq!(again.runs(), 1);
}

#[test]
fn dropping_a_handle_waits_for_its_running_handler() {
    let machine = Machine::new(Addressing::Stays);
    let (_first, _a) = device(&machine, "first");
    let (long, run) = LongHandler::new();
    let handle = machine.interrupts.request_wired(named("slow"), move |_| run()).unwrap();
    assert!(long.awaited_by(&machine, LINE, || drop(handle)));
}

#[test]
fn a_shared_request_without_memory_leaves_the_line_unchanged() {
    let machine = Machine::new(Addressing::Stays);
    let request = |name| machine.interrupts.request_wired(named(name), |_| IrqReturn::None);
    let nothing = |error| {
        assert_eq!((error, machine.root.line(LINE.get())), (RequestError::NoMemory, None));
    };
    let _first = after_failures(5, || request("first"), nothing);
    let one = |error| {
        let info = machine.interrupts.irq_info(irq_domain::Irq::new(0)).unwrap().unwrap();
        assert_eq!((error, &*info.name.unwrap()), (RequestError::NoMemory, "first"));
    };
    let second = after_failures(3, || request("second"), one);
    after_failures(1, || machine.interrupts.irq_info(second.irq()), drop);
}

/// Two handlers are added and removed repeatedly while CPUs handle a third device's interrupts.
#[test]
fn adding_and_removing_handlers_keeps_a_shared_line_running() {
    let machine = Machine::new(Addressing::Stays);
    let (steady, handle) = device(&machine, "steady");
    let stop = AtomicBool::new(false);
    let served = thread::scope(|scope| {
        let cpus: Vec<_> = (0..CPUS)
            .map(|cpu| {
                let (stop, steady, machine) = (&stop, &steady, &machine);
                scope.spawn(move || {
                    let mut served = 0;
                    while !stop.load(SeqCst) {
                        steady.asserted.store(true, SeqCst);
                        served += u32::from(machine.dispatch(cpu, LINE) == Dispatched::Handled);
                    }
                    served
                })
            })
            .collect();
        let visitors: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..VISITS {
                        let (visitor, handle) = device(&machine, "visitor");
                        handle.disable();
                        drop(handle);
                        assert_eq!(Arc::strong_count(&visitor), 1, "not freed");
                    }
                })
            })
            .collect();
        for visitor in visitors {
            visitor.join().unwrap();
        }
        stop.store(true, SeqCst);
        cpus.into_iter().map(|cpu| cpu.join().unwrap()).sum::<u32>()
    });
    assert!(served > 0);
    assert_eq!(handle.count(), u64::from(steady.runs()));
    assert!(!is_masked(&machine));
}

/// The first and the last handler of a line are added and removed on several CPUs.
#[test]
fn concurrent_requests_and_drops_free_the_line() {
    let machine = Machine::new(Addressing::Stays);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..VISITS {
                    let (device, handle) = device(&machine, "visitor");
                    arrive(&machine);
                    drop(handle);
                    assert_eq!(Arc::strong_count(&device), 1, "not freed");
                }
            });
        }
    });
    assert_eq!(machine.root.line(LINE.get()), None);
    assert!(machine.interrupts.snapshot().unwrap().is_empty());
}
