//! Vectors of a chained controller, which a line of the root controller signals.

use crate::mock::{Addressing, FIRST, Hotplug as _, Machine, StoreKind};
use irq_domain::{IrqHandle, MoveError, MsiDevice, MsiDeviceError, WiredRequest};
use msi_types::{Cpu, HwIrq, MsiError, Shape, Trigger};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

const LINE: HwIrq = HwIrq::new(33);

/// A device with two vectors, whose controller is chained to a line.
struct Setup {
    machine: Machine,
    line: IrqHandle,
    handles: [IrqHandle; 2],
    _device: MsiDevice,
}

/// Creates a machine whose controller is chained to the line.
fn chained() -> Machine {
    let machine = Machine::new(Addressing::Stays);
    *machine.controller.line.lock().unwrap() = Some(LINE);
    machine
}

fn setup() -> Setup {
    let machine = chained();
    let request = WiredRequest::new(LINE, Trigger::Level, "bridge");
    let found = |context: &irq_domain::IrqContext<'_>| {
        context.dispatch(HwIrq::new(FIRST));
        context.dispatch(HwIrq::new(FIRST + 1));
    };
    let line = machine.interrupts.request_wired(request, found).unwrap();
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    device.allocate(Shape::Independent, 2..=2).unwrap();
    let handles = [0, 1].map(|slot| device.request(slot, "test", |_| {}).unwrap());
    Setup { machine, line, handles, _device: device }
}

impl Setup {
    /// Returns where the line is routed, and where its vectors' interrupts are delivered.
    fn targets(&self) -> (Option<Cpu>, [Cpu; 2]) {
        let line = self.machine.root.line(LINE.get()).and_then(|line| line.target);
        (line, self.handles.each_ref().map(IrqHandle::effective_affinity))
    }
}

#[test]
fn the_handler_of_a_chained_line_dispatches_its_vectors() {
    let setup = setup();
    setup.machine.dispatch(1, LINE);
    assert_eq!(setup.handles.each_ref().map(IrqHandle::count), [1, 1]);
}

#[test]
fn freeing_a_vector_waits_for_the_handler_of_its_line() {
    let machine = chained();
    let request = WiredRequest::new(LINE, Trigger::Level, "bridge");
    let ((runs, is_running), (end, is_ended)) = (channel(), channel());
    let is_ended = Mutex::new(is_ended);
    let found = move |_: &irq_domain::IrqContext<'_>| {
        runs.send(()).unwrap();
        is_ended.lock().unwrap().recv().unwrap();
    };
    let _line = machine.interrupts.request_wired(request, found).unwrap();
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    device.allocate(Shape::Independent, 2..=2).unwrap();
    let in_use = || machine.controller.vectors_in_use();
    let before = thread::scope(|scope| {
        scope.spawn(|| machine.dispatch(1, LINE));
        is_running.recv().unwrap();
        // The run may have read an arrival that the next owner of a vector must not get.
        let freed = scope.spawn(|| device.tear_down());
        thread::sleep(Duration::from_millis(20));
        let before = in_use();
        end.send(()).unwrap();
        freed.join().unwrap().unwrap();
        before
    });
    assert_eq!((before, in_use()), (2, 0));
}

#[test]
fn chained_vectors_move_only_with_their_line() {
    let setup = setup();
    let interrupts = &setup.machine.interrupts;
    let shares = MoveError::SharesLine(setup.line.irq());
    let [first, second] = setup.handles.each_ref().map(IrqHandle::irq);
    for cpu in [2, 0].map(Cpu::new) {
        assert_eq!(interrupts.set_affinity(first, cpu).unwrap_err(), shares);
        let moved = interrupts.set_affinity(setup.line.irq(), cpu).unwrap();
        assert_eq!((moved.to, moved.is_new, moved.others), (cpu, true, vec![first, second]));
        assert_eq!(setup.targets(), (Some(cpu), [cpu, cpu]));
        let again = interrupts.set_affinity(setup.line.irq(), cpu).unwrap();
        assert_eq!((again.is_new, again.others), (false, vec![]));
    }
}

#[test]
fn taking_a_cpu_offline_moves_a_line_and_its_vectors_away() {
    let setup = setup();
    let (Some(here), _) = setup.targets() else { panic!("the line is routed") };
    setup.machine.interrupts.offline(here).unwrap();
    let (line, vectors) = setup.targets();
    assert!(line != Some(here) && vectors.iter().all(|cpu| Some(*cpu) == line), "{line:?}");
}

#[test]
fn allocating_vectors_on_an_unrequested_line_is_refused() {
    let machine = chained();
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    let refused = device.allocate(Shape::Independent, 1..=1).unwrap_err();
    assert_eq!(refused, MsiDeviceError::Controller(MsiError::UnknownVector(LINE)));
    assert_eq!(machine.controller.vectors_in_use(), 0);
}
